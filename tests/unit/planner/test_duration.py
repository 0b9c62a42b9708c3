"""Estimated seconds, compared with sums by hand for a machine with round numbers."""

import json
from dataclasses import replace

import pytest

from grpo_cli.config.model import ShapeConfig
from grpo_cli.errors import ConfigError
from grpo_cli.hardware import Hardware
from grpo_cli.model_files import find_teacher_shape
from grpo_cli.planner import duration
from grpo_cli.planner.duration import Lengths, assumed_lengths, plan_seconds
from grpo_cli.planner.flops import Work, forward_flops, training_flops
from grpo_cli.planner.measured import read_measured
from grpo_cli.planner.memory import plan_memory

OAT_7B = "experiment=oat_zero_7b"
ENDLESS = Hardware("everything except one part takes no time", 1e30, 1e30, 1e30)
LENGTHS = Lengths(prompt=100, response=500, longest=2000)


def seconds(config, hardware=ENDLESS, lengths=LENGTHS):
    return plan_seconds(config, config.model.shape, hardware, lengths, find_teacher_shape(config))


def test_without_a_run_responses_are_assumed_to_have_half_of_the_maximum(compose_train):
    assert assumed_lengths(compose_train(OAT_7B)) == Lengths(prompt=256, response=1500, longest=3000)


def test_decoding_reads_the_weights_once_per_step_and_the_cache_once_per_token(compose_train):
    config = compose_train(OAT_7B)
    memory = plan_memory(config, config.model.shape)
    slow = replace(ENDLESS, bandwidth=1e9)
    # 128 requests per rank at once: as many steps as the longest has tokens; on average a token follows 100 + 500 / 2
    traffic = 2000 * memory.vllm_weights + 128 * 500 * 350 * memory.kv_token
    assert seconds(config, slow).generation == pytest.approx(traffic / (duration.BANDWIDTH_SHARE * 1e9))


def test_more_requests_than_the_engine_runs_at_once_take_several_waves(compose_train):
    config = compose_train(OAT_7B, "cluster.vllm.max_num_seqs=32")
    slow = replace(ENDLESS, bandwidth=1e6)  # slow enough that host time is hidden
    additional = seconds(config, slow).generation - seconds(compose_train(OAT_7B), slow).generation
    waves = 3 * 500 * plan_memory(config, config.model.shape).vllm_weights  # three of mean length before the last
    assert additional == pytest.approx(waves / (duration.BANDWIDTH_SHARE * 1e6))


def test_a_small_cache_also_needs_several_waves(compose_train):
    config = compose_train(OAT_7B, "cluster.vllm.gpu_memory_utilization=0.22")
    assert (
        seconds(config, replace(ENDLESS, bandwidth=1e9)).generation
        > seconds(compose_train(OAT_7B), replace(ENDLESS, bandwidth=1e9)).generation
    )


def test_python_overlaps_with_a_gpu_and_adds_to_a_cpu(compose_train):
    config = compose_train(OAT_7B)
    host = 2000 * duration.STEP_S["cuda"] + 128 * 500 * duration.SEQUENCE_S["cuda"]
    assert seconds(config).generation == pytest.approx(host)
    slow = replace(ENDLESS, bandwidth=1e9)
    assert seconds(config, slow).generation > 10 * host
    tiny = compose_train()
    device = replace(ENDLESS, peak_flops=1e9)
    lengths = Lengths(prompt=5, response=20, longest=20)
    host = 20 * duration.STEP_S["cpu"] + 128 * 20 * duration.SEQUENCE_S["cpu"]
    flops = forward_flops(tiny.model.shape, Work.of([(5, 20)]) * 128)
    assert seconds(tiny, device, lengths).generation == pytest.approx(host + flops / (duration.MATRIX_SHARE * 1e9))


@pytest.mark.parametrize(
    ("overrides", "passes"),  # of the layers, counted as forward passes
    [
        (
            ["algorithm.num_minibatches=1"],
            3 + 1,
        ),  # forward, backward (counts twice), and recomputation in the backward pass
        (["algorithm.num_minibatches=1", "cluster.gradient_checkpointing=false"], 3),
        ([], 3 + 1 + 1),  # eight optimizer steps need the old log-probabilities
        (["algorithm.beta=0.1"], 3 + 1 + 1 + 1),  # and the reference's log-probabilities
        (["algorithm.beta=0.1", "algorithm.kl.placement=reward"], 3 + 1 + 1 + 3),
        (["algorithm.beta=0.1", "algorithm.kl.placement=reward_to_go"], 3 + 1 + 1 + 3),
        # A tiny teacher takes no time.
        (["algorithm.beta=0.1", "algorithm.reference.path=builtin:make_zero"], 3 + 1 + 1),
        (["algorithm.num_epochs=2"], 2 * (3 + 1) + 1),
    ],
)
def test_the_time_of_passes_is_proportional_to_their_number(overrides, passes, compose_train):
    config = compose_train(OAT_7B, *overrides)
    config.model.shape = replace(config.model.shape, vocab_size=1)
    slow = replace(ENDLESS, peak_flops=1e12)
    seconds_of_one = forward_flops(config.model.shape, Work.of([(100, 500)]) * 128) / (duration.MATRIX_SHARE * 1e12)
    assert seconds(config, slow).passes == pytest.approx(passes * seconds_of_one, rel=1e-4)


def test_responses_without_an_advantage_take_no_time(compose_train):
    config, slow = compose_train(OAT_7B), replace(ENDLESS, peak_flops=1e12)
    half = seconds(config, slow, replace(LENGTHS, trained=0.5)).passes
    assert seconds(config, slow).passes == pytest.approx(2 * half)


def test_only_several_ranks_exchange_and_zero_3_exchanges_most(compose_train):
    slow = replace(ENDLESS, link=1e9)
    by_stage = [seconds(compose_train(OAT_7B, f"cluster.zero_stage={stage}"), slow).exchange for stage in (1, 2, 3)]
    assert by_stage[0] == by_stage[1] < by_stage[2]
    assert seconds(compose_train(OAT_7B, "cluster=gpu_1"), slow).exchange == 0


def test_offloaded_states_move_both_ways(compose_train):
    config = compose_train("experiment=oat_zero_1_5b", "cluster=gpu_1", "cluster.offload_during_rollout=true")
    moved = 2 * plan_memory(config, config.model.shape).moved_out
    assert seconds(config).swap == pytest.approx(duration.SLEEP_S + moved / duration.HOST_LINK)


def test_training_flops_are_six_per_weight_and_token():
    # 2 layers of 4 * 8 * 8 + 3 * 8 * 16 = 640 weights; 10 tokens, 7 of them of the response, in one sequence
    shape, work = ShapeConfig(2, 8, 16, 2, 2, 4, 32, True, 64), Work.of([(3, 7)])
    output, attention = 8 * 32 * 7, 2 * 8 * 10**2
    assert training_flops(shape, work) == 6 * (2 * 640 * 10 + output + attention)
    assert training_flops(shape, work, has_adapters=True) == 4 * (2 * 640 * 10 + output) + 6 * attention


def test_times_and_lengths_of_a_run_are_medians(compose_train, tmp_path):
    rows = [{"step": 0, "eval/heldout/avg": 0.1}]
    for step, update in enumerate([5.0, 1.0, 2.0], start=1):
        rows.append(
            {
                "step": step,
                "time/rollout": 3.0,
                "time/update": update,
                "time/sync": 0.5,
                "time/step": update + 14.0,
                "time/eval": 10.0,
                "length/mean": 500.0,
                "length/max": 2000.0,
                "perf/trained_tokens": 0.5 * 1024 * (256 + 500),
            }
        )
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    measured = read_measured(tmp_path, compose_train(OAT_7B))
    assert (measured.num_steps, measured.rollout, measured.update, measured.sync) == (3, 3.0, 2.0, 0.5)
    assert measured.step == 6.0  # without the evaluation
    assert measured.lengths == Lengths(prompt=256, response=500, longest=2000, trained=0.5)


def test_a_run_without_a_step_is_rejected(compose_train, tmp_path):
    with pytest.raises(ConfigError, match="has no finished step"):
        read_measured(tmp_path, compose_train(OAT_7B))


def test_a_critic_takes_four_or_more_forward_passes_of_its_layers(compose_train):
    slow = replace(ENDLESS, peak_flops=1e12)
    settings = (OAT_7B, "algorithm.num_epochs=2", "cluster.gradient_checkpointing=true")
    config = compose_train(*settings, "algorithm=ppo", "algorithm.num_minibatches=8")
    added = seconds(config, slow).passes - seconds(compose_train(*settings), slow).passes
    work = Work.of([(100, 500)]) * 128
    # Values once; in each epoch one pass forward, one more for the checkpoints, and twice as much backward.
    flops = (1 + 2 * 4) * duration.layer_flops(config.model.shape, work)
    assert added == pytest.approx(flops / (duration.MATRIX_SHARE * 1e12))
