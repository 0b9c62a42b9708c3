"""Warnings about an objective, and the settings of published methods."""

import pytest

from grpo_cli.choices import DType, SamplerCorrection
from grpo_cli.config.algorithm import SamplerCorrectionConfig
from grpo_cli.config.compose import conf_dir

METHODS = sorted(path.stem for path in (conf_dir() / "algorithm").glob("*.yaml"))
WARNED = [
    (["algorithm=cispo", "algorithm.dual_clip=3"], "algorithm.dual_clip=3 has no effect"),
    (["algorithm=rloo", "algorithm.dual_clip=3"], "Set algorithm.surrogate=clip, or algorithm.dual_clip=null"),
    (["algorithm=rloo", "algorithm.num_minibatches=4"], "takes 4 optimizer steps a rollout without a ratio"),
    (["algorithm=reinforce", "algorithm.num_epochs=2"], "takes 2 optimizer steps a rollout without a ratio"),
    (["algorithm.advantage.gae_lambda=0.95"], "no effect without a critic. Choose algorithm=ppo"),
    (["algorithm=gspo", "algorithm.weighting=token_mean"], "Set algorithm.weighting=sequence_mean"),
]
FINE = [
    ["algorithm.dual_clip=3"],
    ["algorithm=expert_iteration", "algorithm.num_epochs=2"],
    ["algorithm=rloo", "algorithm.num_minibatches=4", "algorithm.functions.surrogate=mine.py:with_ratio"],
    ["algorithm=cispo"],
    ["algorithm=dapo"],
    ["algorithm=ppo", "algorithm.advantage.gae_lambda=0.95", "critic.value_clip=null"],
    ["algorithm=gspo", "algorithm.weighting=constant"],
]


@pytest.mark.parametrize(("overrides", "message"), WARNED, ids=[" ".join(overrides) for overrides, _ in WARNED])
def test_a_combination_that_does_not_do_what_it_seems_to_is_warned_about(overrides, message, compose_train):
    (warning,) = compose_train(*overrides).warnings([])
    assert message in warning


@pytest.mark.parametrize("overrides", [*FINE, *([f"algorithm={method}"] for method in METHODS)], ids=" ".join)
def test_a_sensible_combination_gives_no_warning(overrides, compose_train):
    assert list(compose_train(*overrides).warnings([])) == []


def test_by_default_the_sampler_is_corrected_only_in_bf16():
    correction = SamplerCorrectionConfig()
    assert correction.method_in(DType.fp32) is SamplerCorrection.none
    assert (correction.method_in(DType.bf16), correction.cap) == (SamplerCorrection.token_truncate, 2)


@pytest.mark.parametrize("dtype", DType)
@pytest.mark.parametrize("method", ["none", "token_mask"])
def test_an_explicit_correction_is_used_in_every_dtype(method, dtype, compose_train):
    correction = compose_train(f"algorithm.sampler_correction.method={method}").algorithm.sampler_correction
    assert correction.method_in(dtype) == method


def test_the_full_overlong_penalty_of_dapo_is_half_the_difference_of_right_and_wrong(compose_train):
    terms = compose_train("algorithm=dapo", "reward=accuracy").reward.terms
    # DAPO: right is 1, wrong is -1, and a response at the limit loses 1.
    assert terms["overlong"]["weight"] / terms["accuracy"]["weight"] == 1 / (1 - -1)


@pytest.mark.parametrize(
    ("size", "model", "data", "template"),
    [
        ("1_5b", "Qwen/Qwen2.5-Math-1.5B", "math_12k", "qwen_math"),
        ("3b", "lkevinzc/Llama-3.2-3B-NuminaQA", "math_12k", "r1"),
        ("7b", "Qwen/Qwen2.5-Math-7B", "math_lvl3to5", "qwen_math"),
    ],
)
def test_oat_zero_has_the_settings_of_its_authors(size, model, data, template, compose_train):
    config = compose_train(f"experiment=oat_zero_{size}")
    assert (config.model.path, config.data.name) == (model, data)
    assert config.template == compose_train(f"template={template}").template
    assert config.rollout.prompts_per_step * config.rollout.group_size / config.algorithm.num_minibatches == 128
