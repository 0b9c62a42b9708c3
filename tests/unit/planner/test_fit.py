"""Settings that do not fit, and the suggested changes."""

import pytest

from grpo_cli.config.commands import check_settings
from grpo_cli.errors import ConfigError
from grpo_cli.planner.fit import memory_faults, shape_faults
from grpo_cli.planner.memory import GIB, plan_memory

OAT_7B = "experiment=oat_zero_7b"  # 8 ranks of 80 GiB, ZeRO-3, bf16

# Overrides that do not fit, and the advice.
OVERRUNS = [
    ([OAT_7B, "cluster=gpu_1"], "Set cluster.offload_optimizer=true: the most that a GPU then needs is 56.2 GiB."),
    ([OAT_7B, "cluster.gradient_checkpointing=false"], "Set cluster.gradient_checkpointing=true: "),
    ([OAT_7B, "cluster.vllm.gpu_memory_utilization=0.9"], "Set cluster.vllm.gpu_memory_utilization=0.5: "),
    ([OAT_7B, "cluster.vllm.gpu_memory_utilization=0.15"], "Set cluster.vllm.gpu_memory_utilization=0.5: "),
    ([OAT_7B, "cluster.zero_stage=1", "cluster.memory_gib=51"], "Set cluster.tokens_per_microbatch=4024: "),
    ([OAT_7B, "cluster.zero_stage=1", "cluster.memory_gib=49"], "Set cluster.zero_stage=2: "),
    (
        [
            *(OAT_7B, "cluster.memory_gib=36", "cluster.tokens_per_microbatch=4024"),
            *("cluster.zero_stage=2", "cluster.offload_during_rollout=true"),  # which ZeRO-3 cannot do
        ],
        "Set cluster.zero_stage=3 cluster.offload_during_rollout=false cluster.vllm.gpu_memory_utilization=0.5: ",
    ),
    (
        [OAT_7B, "cluster.vllm.sleep_level=0", "cluster.vllm.gpu_memory_utilization=0.7"],
        "Set cluster.vllm.sleep_level=1: ",
    ),
    (
        [OAT_7B, "algorithm.beta=0.01", "cluster.vllm.gpu_memory_utilization=0.7"],
        "Set cluster.offload_reference=true: ",
    ),
    (
        [OAT_7B, "cluster.memory_gib=24"],  # no single change is enough
        "Set cluster.tokens_per_microbatch=4024 cluster.vllm.gpu_memory_utilization=0.3 "
        "cluster.offload_optimizer=true cluster.vllm.tensor_parallel_size=4: ",
    ),
]
SHAPE_FAULTS = [
    (
        ["cluster.vllm.tensor_parallel_size=3", "cluster.ranks=24"],
        "Set cluster.vllm.tensor_parallel_size to one of 1, 2, 4.",
    ),
    (
        ["cluster.vllm.tensor_parallel_size=7", "cluster.ranks=56"],
        "Set cluster.vllm.tensor_parallel_size to one of 1, 2, 4",
    ),
    (["model.max_model_len=8192"], "Set model.max_model_len=4096."),
    (["model.max_model_len=null", "rollout.max_new_tokens=4000"], "Set rollout.max_new_tokens=3072."),
    (["model.max_model_len=null", "rollout.max_prompt_tokens=4096"], "Lower rollout.max_prompt_tokens."),
]
ENGINE_FAULTS = [
    (["cluster.vllm.tensor_parallel_size=0"], "must be 1 or more"),
    (["cluster.ranks=8", "cluster.vllm.tensor_parallel_size=3"], "Set cluster.vllm.tensor_parallel_size=2, or"),
    (["cluster.vllm.gpu_memory_utilization=0"], "must be above 0 and at most 1"),
    (["cluster.vllm.sleep_level=3"], "must be 0 or more and at most 2"),
    (["cluster.memory_gib=0"], "must be above 0"),
    (["cluster.gpu=A1000"], "not a known GPU. Set one of A100, A100 40GB,"),
]


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["experiment=oat_zero_1_5b"],
        ["experiment=oat_zero_1_5b", "cluster=gpu_1"],
        ["experiment=oat_zero_3b"],
        [OAT_7B],
        [OAT_7B, "cluster=slurm_2x8"],
    ],
    ids=" ".join,
)
def test_the_shipped_experiments_fit(overrides, compose_train):
    config = compose_train(*overrides)
    assert [*shape_faults(config, config.model.shape), *memory_faults(config, config.model.shape)] == []


@pytest.mark.parametrize(("overrides", "message"), OVERRUNS, ids=[" ".join(case[0]) for case in OVERRUNS])
def test_the_error_for_a_config_that_does_not_fit_gives_settings_that_fit(overrides, message, compose_train):
    config = compose_train(*overrides)
    [fault] = memory_faults(config, config.model.shape)
    assert message in fault
    changes, _, estimate = fault.partition("Set ")[2].partition(": the most that a GPU then needs is ")
    changed = compose_train(*overrides, *changes.split())
    check_settings(changed)
    assert list(memory_faults(changed, config.model.shape)) == []
    peak = max(plan_memory(changed, config.model.shape).phases.values())
    assert estimate == f"{peak / GIB:.1f} GiB."


def test_if_no_change_helps_the_message_says_so(compose_train):
    config = compose_train(OAT_7B, "cluster.memory_gib=2")
    [fault] = memory_faults(config, config.model.shape)
    assert fault.endswith("use more or larger GPUs, or a smaller model.")


def test_the_memory_of_a_known_gpu_is_that_of_its_data_sheet(compose_train):
    config = compose_train(OAT_7B, "cluster=gpu_1", "cluster.gpu=H200")
    assert all("of a GPU that has 141." in fault for fault in memory_faults(config, config.model.shape))
    config = compose_train(OAT_7B, "cluster.gpu=L40S", "cluster.zero_stage=1")
    assert "of a GPU that has 48." in next(memory_faults(config, config.model.shape))


def test_an_unknown_memory_is_not_compared(compose_train):
    config = compose_train(OAT_7B, "cluster.gpu=null", "cluster.zero_stage=1")
    assert list(memory_faults(config, config.model.shape)) == []
    assert plan_memory(config, config.model.shape).kv_cache is None


@pytest.mark.parametrize(("overrides", "message"), SHAPE_FAULTS, ids=[" ".join(case[0]) for case in SHAPE_FAULTS])
def test_settings_that_do_not_match_the_model_are_rejected(overrides, message, compose_train):
    config = compose_train(OAT_7B, *overrides)
    assert message in " ".join(shape_faults(config, config.model.shape))


@pytest.mark.parametrize(("overrides", "message"), ENGINE_FAULTS, ids=[" ".join(case[0]) for case in ENGINE_FAULTS])
def test_invalid_engine_settings_are_rejected(overrides, message, compose_train):
    with pytest.raises(ConfigError) as raised:
        check_settings(compose_train(*overrides))
    assert message in str(raised.value)
