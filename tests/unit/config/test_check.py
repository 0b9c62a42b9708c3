"""The rules between settings: what breaks each rule, and the fix that its message suggests."""

import pytest

from grpo_cli.choices import AdvantageReward, Select
from grpo_cli.commands.train import ungraded_prompts_error
from grpo_cli.config.commands import check_settings
from grpo_cli.config.train import TrainConfig
from grpo_cli.errors import ConfigError
from grpo_cli.types import Problem


def all_warnings(config, overridden, **options):
    return list(config.warnings(overridden, **options))


FAULTS = [
    (["steps=0"], "steps=0: must be 1 or more"),
    (["optimizer.lr=-1"], "optimizer.lr=-1.0: must be 0 or more"),
    (["checkpoint.keep_last=0"], "checkpoint.keep_last=0: must be 1 or more"),
    (["checkpoint.keep_best=reward/mean"], "Set checkpoint.keep_best=eval/heldout/avg"),
    (["checkpoint.keep_best=eval/aime24/avg"], "Set checkpoint.keep_best=eval/heldout/avg"),
    (["cluster=slurm_1x8", "cluster.slurm.time_min=10"], "less than the job's whole time of 600 s"),
    (["cluster.zero_stage=4"], "must be 0 or more and at most 3"),
    (["cluster.persistence_threshold=-1"], "cluster.persistence_threshold=-1: must be 0 or more"),
    (["cluster.vllm.max_num_seqs=0"], "cluster.vllm.max_num_seqs=0: must be 1 or more"),
    (["cluster.dtype=bf16"], "Set cluster.zero_stage=1"),
    (["rollout.prompts_per_step=100", "cluster.ranks=8"], "for example rollout.prompts_per_step=96"),
    (["cluster.ranks=4", "cluster.rollout_ranks=4"], "Set cluster.ranks=5 or more, or cluster.rollout_ranks=3"),
    (
        ["cluster.ranks=4", "cluster.rollout_ranks=1", "cluster.vllm.tensor_parallel_size=2"],
        "cluster.rollout_ranks=1 cannot be divided into engines",
    ),
    (["cluster.ranks=5", "cluster.rollout_ranks=2"], "on 3 rank(s). Use a multiple of 3"),
    (["rollout.max_staleness=1"], "Set rollout.oversample=8, for example, choose cluster=gpu_8_split, or set it to 0"),
    (["cluster=cpu_split", "rollout.max_staleness=2"], "Set rollout.oversample=8, for example, or rollout.max_stal"),
    (["rollout.segment_tokens=64"], "has no effect without rollout.oversample. Set rollout.oversample=8"),
    (["rollout.oversample=4"], "Set rollout.max_staleness=1 to allow it, or rollout.oversample=0"),
    (["cluster=cpu_split", "rollout.oversample=4", "rollout.max_staleness=1"], "Set rollout.max_staleness=2"),
    (["rollout.oversample=17", "rollout.max_staleness=1"], "Set rollout.oversample=16 or less"),
    (["rollout.oversample=4", "rollout.max_staleness=1", "algorithm=dapo"], "Set one of them to 0"),
    (["rollout.restart_engines=true"], "cluster.rollout_ranks=0, cluster.vllm.tensor_parallel_size=1"),
    (["rollout.restart_engines=true", "cluster=slurm_2x8_split"], "no Slurm, which ends all ranks if one dies"),
    (
        ["rollout.restart_engines=true", "cluster=gpu_8_split", "cluster.vllm.tensor_parallel_size=2"],
        "an engine in each",
    ),
    (["algorithm.num_minibatches=32"], "for example rollout.prompts_per_step=32"),
    (["rollout.group_size=1"], "Set rollout.group_size=8"),
    (["algorithm.advantage.std_ddof=2"], "must be 0 or more and at most 1"),
    (["algorithm.advantage.baseline=none"], "Set algorithm.advantage.scale=batch_std"),
    (["algorithm=ppo", "algorithm.advantage.baseline=batch_mean"], "Set algorithm.advantage.baseline=none"),
    (["algorithm=ppo", "algorithm.functions.advantage=mine.py:f"], "and algorithm.functions.advantage=null"),
    (["algorithm.advantage.kind=gae", "algorithm.advantage.baseline=none"], "needs a critic. Choose algorithm=ppo"),
    (
        ["algorithm=ppo", "algorithm.advantage.kind=rewards"],
        "has no use for one. Choose algorithm=ppo, or set critic=null",
    ),
    (["algorithm=ppo", "critic.warmup_steps=2", "optimizer.weight_decay=0.1"], "Set one of them to 0"),
    (["algorithm=ppo", "critic.lr=-1"], "critic.lr=-1.0: must be 0 or more"),
    (["algorithm=ppo", "critic.value_clip=0"], "must be above 0"),
    (["algorithm=ppo", "critic.path=./nowhere"], "critic.path=./nowhere: there is no model in that folder"),
    (["algorithm.sampler_correction.cap=0"], "must be above 0"),
    (
        ["algorithm.sampler_correction.method=token_mask", "algorithm.sampler_correction.floor=1.5"],
        "Set algorithm.sampler_correction.floor=0.5 and algorithm.sampler_correction.cap=5",
    ),
    (["algorithm=on_policy_distillation"], "Name one with algorithm.reference.path="),
    (["algorithm=on_policy_distillation", "algorithm.reference.path=./nowhere"], "there is no model in that folder"),
    (
        ["algorithm.beta=1", "algorithm.reference.path=builtin:make_zero", "algorithm.reference.refresh_steps=4"],
        "would replace the weights of algorithm.reference.path=builtin:make_zero",
    ),
    (["algorithm.dual_clip=1"], "must be above 1"),
    (["algorithm.dynamic_sampling.max_refills=-1"], "must be 0 or more"),
    (["model.max_model_len=100"], "Set rollout.max_new_tokens=84"),
    (["rollout.temperature=0"], "Set rollout.temperature=1"),
    (["rollout.top_k=1"], "Set rollout.top_k=0 (all), or 2 or more"),
    (["rollout.top_k=513"], "must be 0 or more and at most 512 (0: all)"),
    (["model.path=./nowhere"], "there is no model in that folder"),
    (["data.path=nowhere.jsonl"], "there is no such file or folder"),
    (["data.source=null"], "data.path is not set"),
    (["template.text=hello"], "{problem}"),
    (["reward=code"], "Set data.grader=code"),
    (["reward=boxed"], "no response would be correct. Choose reward=accuracy"),
    (["template=qwen_math", "+reward.terms.accuracy.marker=answer_tag"], "than template.answer=boxed asks for"),
    (["~reward.terms.accuracy", "~reward.terms.format"], "Choose reward=r1"),
    (["data.pass_rate=[0.1,0.9]"], "Set data.pass_rates to the file"),
    (["data.pass_rate=[0.9,0.1]", "data.pass_rates=x"], "two shares in rising order"),
    (["benchmark=file"], "benchmark.file.path is not set"),
    (["eval.n=4"], "Set eval.temperature=0.6"),
    (["cluster.offload_optimizer=true"], "Set cluster.zero_stage=1, 2 or 3"),
    (["cluster.offload_during_rollout=true"], "Set cluster.zero_stage=2"),
    (
        ["cluster.zero_stage=2", "cluster.offload_optimizer=true", "cluster.offload_during_rollout=true"],
        "Set one of them to false",
    ),
    (["model.lora.rank=-1"], "must be 0 or more (0: every weight is trained)"),
    (["model.lora.alpha=0"], "Set model.lora.alpha=32"),
    (["model.lora.rank=4", "algorithm.reference.refresh_steps=4"], "Set algorithm.reference.refresh_steps=0"),
]
EVAL_FAULTS = [
    (["benchmark=[]"], "Choose one or several, as in benchmark=[aime24,math500]"),
    (
        ["benchmark=math500", "benchmark.math500.path=nowhere.jsonl"],
        "math500.path=nowhere.jsonl: there is no",
    ),
    (["eval.n=4"], "eval.n=4 samples at eval.temperature=0 would all be the same"),
    (["eval.n=0"], "eval.n=0: must be 1 or more"),
    (["eval.temperature=-1"], "must be 0 or more and at most 2"),
    (["eval.top_p=0"], "must be above 0 and at most 1"),
    (["rescore=nowhere.jsonl"], "there is no such file"),
    (["cluster.ranks=0"], "cluster.ranks=0: must be 1 or more"),
]
ANALYZE_FAULTS = [
    (["analyze.group_sizes=[]"], "Set analyze.group_sizes=[8,16,64]"),
    (["analyze.num_problems=-1"], "must be 0 or more"),
    (["analyze.judge=./nowhere"], "analyze.judge=./nowhere: there is no model in that folder"),
    (["+template@templates.r1=r1", "templates.r1.text=hello"], "{problem}"),
]
SAMPLE_FAULTS = [
    (["sample.n=0"], "sample.n=0: must be 1 or more"),
    (["sample.temperature=0"], "Set sample.temperature=0.6, for example, or sample.n=1"),
    (["sample.num_problems=-1"], "must be 0 or more"),
    (["sample.pairs_per_problem=-1"], "must be 0 or more"),
    (["sample.min_tokens=9", "sample.max_tokens=8"], "sample.min_tokens=9 is above sample.max_tokens=8"),
    (["sample.max_similarity=0"], "must be above 0 and at most 1"),
    (["sample.max_similarity=1.1"], "must be above 0 and at most 1"),
    (["sample.language=ru"], "Set sample.keep=correct,one_language"),
    (["to=traces.txt"], "must end in .jsonl, as in to=traces.jsonl"),
    (["to=nowhere/traces.jsonl"], "mkdir -p nowhere"),
    (["cluster.ranks=0"], "cluster.ranks=0: must be 1 or more"),
]


@pytest.mark.parametrize(("overrides", "message"), FAULTS, ids=[faults[0][0] for faults in FAULTS])
def test_each_fault_of_train_comes_with_its_fix(overrides, message, compose_train):
    with pytest.raises(ConfigError) as raised:
        check_settings(compose_train(*overrides))
    assert message in str(raised.value)


@pytest.mark.parametrize(("overrides", "message"), EVAL_FAULTS, ids=[faults[0][0] for faults in EVAL_FAULTS])
def test_each_fault_of_eval_comes_with_its_fix(overrides, message, compose_as):
    with pytest.raises(ConfigError) as raised:
        check_settings(compose_as("eval", *overrides))
    assert message in str(raised.value)


@pytest.mark.parametrize(("overrides", "message"), ANALYZE_FAULTS, ids=[faults[0][0] for faults in ANALYZE_FAULTS])
def test_each_fault_of_analyze_comes_with_its_fix(overrides, message, compose_as):
    with pytest.raises(ConfigError) as raised:
        check_settings(compose_as("analyze", *overrides))
    assert message in str(raised.value)


@pytest.mark.parametrize(("overrides", "message"), SAMPLE_FAULTS, ids=[faults[0][0] for faults in SAMPLE_FAULTS])
def test_each_fault_of_sample_comes_with_its_fix(overrides, message, compose_as):
    with pytest.raises(ConfigError) as raised:
        check_settings(compose_as("sample", *overrides))
    assert message in str(raised.value)


def test_a_critic_needs_no_group(compose_train):
    check_settings(compose_train("algorithm=ppo", "rollout.group_size=1", "critic.warmup_steps=2"))


def test_limits_that_some_response_can_meet_are_accepted(compose_as):
    limits = ("sample.min_tokens=8", "sample.max_tokens=8", "sample.max_similarity=0.5", "to=traces.jsonl")
    check_settings(compose_as("sample", *limits, "sample.keep=[one_language]", "sample.language=ru"))
    check_settings(compose_as("sample", "sample.min_tokens=8"))


def test_all_faults_are_reported_together(compose_train):
    with pytest.raises(ConfigError) as raised:
        check_settings(compose_train("steps=0", "rollout.temperature=0", "data.path=nowhere.jsonl"))
    assert str(raised.value).count("\n- ") == 3


def test_a_slurm_job_that_could_not_resume_after_a_requeue_is_warned_about(compose_train):
    (warning,) = all_warnings(compose_train(), [], in_slurm_job=True)
    assert "Set run.dir" in warning
    for given in ("run.dir", "resume.run"):
        assert all_warnings(compose_train(), [given], in_slurm_job=True) == []


def test_an_epsilon_without_effect_is_warned_about(compose_train):
    config = compose_train("algorithm.epsilon=0.1")
    assert "epsilon has no effect" in all_warnings(config, ["algorithm.epsilon"])[0]
    assert all_warnings(config, ["steps"]) == []
    assert "surrogate" in all_warnings(compose_train("algorithm=rloo"), ["algorithm.epsilon"])[0]
    assert "refresh_steps" in all_warnings(compose_train("algorithm.reference.refresh_steps=4"), [])[0]
    assert "reference.path" in all_warnings(compose_train("algorithm.reference.path=builtin:make_zero"), [])[0]
    several = compose_train("algorithm.epsilon=0.1", "algorithm.num_minibatches=4")
    assert all_warnings(several, ["algorithm.epsilon"]) == []


SUM = Problem("sum", "What is 17 + 26?", "43")
POEM = Problem("poem", "Write a poem.", "", grader="model")


def general(**terms) -> TrainConfig:
    config = TrainConfig()
    config.reward.terms = {"accuracy": {}} | terms
    return config


def test_general_prompts_need_a_term_that_scores_them():
    assert ungraded_prompts_error([SUM], general()) is None
    assert ungraded_prompts_error([SUM, POEM], general(model={"path": "x"})) is None
    assert ungraded_prompts_error([SUM, POEM], general(mine={"function": "m:f"})) is None
    by_teacher = general()
    by_teacher.algorithm.advantage.reward = AdvantageReward.none
    assert ungraded_prompts_error([SUM, POEM], by_teacher) is None
    fault = ungraded_prompts_error([SUM, POEM], general())
    assert "1 problems, such as poem," in fault
    assert "reward=r1_general reward.terms.model.path=" in fault


def test_general_prompts_need_an_algorithm_that_uses_more_than_correct_answers():
    config = general(model={"path": "x"})
    config.algorithm.select = Select.correct
    assert "algorithm.select=all" in ungraded_prompts_error([POEM], config)
    config.algorithm.advantage.reward = AdvantageReward.accuracy
    assert "algorithm.advantage.reward=total" in ungraded_prompts_error([POEM], config)


@pytest.mark.parametrize(
    ("overrides", "fix"),
    [
        ([], "as in data.path=runs/.../pairs.jsonl"),
        (["data.path=nowhere.jsonl"], "data.path=nowhere.jsonl: there is no such file"),
        (["data.path=README.md", "data.max_tokens=1"], "data.max_tokens=1: must be 2 or more"),
        (["data.path=README.md", "model.lora.rank=8"], "Set model.lora.rank=0"),
        (["data.path=README.md", "epochs=0"], "epochs=0.0: must be above 0"),
        (["data.path=README.md", "data.num_heldout=0"], "data.num_heldout=0: must be 1 or more"),
    ],
)
def test_each_fault_of_reward_model_comes_with_its_fix(overrides, fix, compose_as):
    with pytest.raises(ConfigError) as error:
        check_settings(compose_as("reward-model", *overrides))
    assert fix in str(error.value)


@pytest.mark.parametrize(
    ("overrides", "fix"),
    [
        (["data.source=null"], "as in data.path=traces.jsonl"),
        (["data.path=nowhere.jsonl"], "data.path=nowhere.jsonl: there is no such file"),
        (["data.weight=0"], "data.weight=0.0: must be above 0"),
        (["++data.mix.more.path=nowhere.jsonl"], "data.mix.more.path=nowhere.jsonl: there is no such file"),
        (["++data.mix.more.source=org/set", "++data.mix.more.weight=-1"], "data.mix.more.weight=-1.0: must be above 0"),
        (
            ["++data.mix.more.wieght=2"],
            "data.mix.more.wieght: there is no setting of that name.",
        ),
        (["++data.mix.more.path=README.md", "++data.mix.more.weight=often"], "weight=often: must be a number."),
        (["batch_size=63", "cluster.ranks=2"], "Set batch_size=62"),
        (["epochs=0"], "epochs=0.0: must be above 0"),
        (["cluster.dtype=bf16"], "Set cluster.zero_stage=1"),
        (["benchmark=file"], "benchmark.file.path is not set"),
        (["eval.n=4", "eval.temperature=0"], "Set eval.temperature=0.6"),
    ],
)
def test_each_fault_of_sft_comes_with_its_fix(overrides, fix, compose_as):
    with pytest.raises(ConfigError) as error:
        check_settings(compose_as("sft", *overrides))
    assert fix in str(error.value)


def test_a_term_that_never_counts_is_warned_about(compose_train):
    [warning] = all_warnings(compose_train("+reward.terms.format.from_step=21", "steps=20"), [])
    assert "reward.terms.format.from_step=21 is after steps=20" in warning
    assert all_warnings(compose_train("+reward.terms.format.from_step=20", "steps=20"), []) == []


def test_a_format_that_the_template_does_not_ask_for_is_warned_about(compose_train):
    [warning] = all_warnings(compose_train("template=qwen_math"), [])
    assert "reward.terms.format wants <think> and <answer> tags" in warning
    assert all_warnings(compose_train("template=qwen_math", "reward=accuracy"), []) == []
    assert all_warnings(compose_train("template=r1"), []) == []


def test_a_think_tag_that_no_response_contains_is_warned_about(compose_train):
    text = "template.text='{problem} <think>'"
    [warning] = all_warnings(compose_train("template=none", "reward=accuracy", text), [])
    assert 'Set template.response_prefix="<think>"' in warning
    prefix = "template.response_prefix='<think>'"
    assert all_warnings(compose_train("template=none", "reward=accuracy", text, prefix), []) == []
