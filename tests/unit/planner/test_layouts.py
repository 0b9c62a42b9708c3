"""Step times of colocated and split ranks, compared with sums by hand."""

from dataclasses import replace

import pytest

from grpo_cli.commands.plan_tables import layout_table, layout_verdict
from grpo_cli.config.commands import check_settings
from grpo_cli.errors import ConfigError
from grpo_cli.hardware import Hardware
from grpo_cli.planner import duration, layouts
from grpo_cli.planner.duration import Lengths, Seconds, plan_seconds
from grpo_cli.planner.flops import Work, forward_flops
from grpo_cli.planner.layouts import Layout, choose, plan_layouts
from grpo_cli.planner.memory import GIB, plan_memory

OAT_7B = "experiment=oat_zero_7b"  # 8 ranks of 80 GiB, ZeRO-3, bf16; 128 prompts in 8 minibatches
P_7B = 7_615_616_512
ENDLESS = Hardware("everything except one part takes no time", 1e30, 1e30, 1e30)
LENGTHS = Lengths(prompt=100, response=500, longest=2000)
PARTS = Seconds(generation=30, tail=12, passes=20, optimizer=3, exchange=2, swap=0, sync=1)


def test_without_staleness_ranks_generate_update_and_sync_in_turn():
    assert PARTS.step() == 30 + (20 + 3 + 2) + 1


def test_with_staleness_the_longer_of_generation_and_update_decides():
    assert PARTS.step(1) == 30 + 1
    assert replace(PARTS, generation=10).step(1) == 25 + 1


def test_the_tail_is_what_the_longest_response_adds(compose_train):
    config = compose_train(OAT_7B)
    slow = replace(ENDLESS, bandwidth=1e9)
    # 1,500 decoding steps after those of the mean length, each of which reads the weights
    weights = plan_memory(config, config.model.shape).vllm_weights
    seconds = plan_seconds(config, config.model.shape, slow, LENGTHS)
    assert seconds.tail == pytest.approx(1500 * weights / (duration.BANDWIDTH_SHARE * 1e9))


def split_seconds(compose_train, *overrides, hardware):
    config = compose_train(OAT_7B, *overrides)
    return plan_seconds(config, config.model.shape, hardware, LENGTHS)


def test_two_engines_of_eight_ranks_read_as_many_weights_and_four_times_the_cache(compose_train):
    slow = replace(ENDLESS, bandwidth=1e9)
    config = compose_train(OAT_7B)
    memory = plan_memory(config, config.model.shape)
    large = "cluster.vllm.gpu_memory_utilization=0.9"
    split = split_seconds(compose_train, "cluster.rollout_ranks=2", large, hardware=slow).generation
    together = split_seconds(compose_train, large, hardware=slow).generation
    added = (512 - 128) * 500 * 350 * memory.kv_token  # a response reads the keys of 100 + 500 / 2 tokens on average
    assert split - together == pytest.approx(added / (duration.BANDWIDTH_SHARE * 1e9))


def test_each_engine_of_a_split_reads_a_prompt_once(compose_train):
    slow = replace(ENDLESS, peak_flops=1e9)
    split = split_seconds(compose_train, "cluster.rollout_ranks=2", hardware=slow).generation
    together = split_seconds(compose_train, hardware=slow).generation
    # Two engines read all 128 prompts each, eight read 16: four times as many responses, and 64 prompts more.
    prompt = forward_flops(compose_train(OAT_7B).model.shape, Work.of([(100, 0)]))
    assert split - 4 * together == pytest.approx(64 * prompt / (duration.MATRIX_SHARE * 1e9), rel=1e-6)


def test_a_quarter_of_the_ranks_trains_in_four_times_the_time(compose_train):
    slow = replace(ENDLESS, peak_flops=1e12)
    split = split_seconds(compose_train, "cluster.rollout_ranks=6", hardware=slow)
    assert split.passes == pytest.approx(4 * split_seconds(compose_train, hardware=slow).passes)


def test_a_split_sends_all_weights_once_and_no_engine_sleeps(compose_train):
    slow = replace(ENDLESS, link=1e9)
    split, together = (split_seconds(compose_train, *more, hardware=slow) for more in (["cluster.rollout_ranks=4"], []))
    assert split.sync - together.sync == pytest.approx(2 * P_7B / (duration.LINK_SHARE * 1e9))
    assert (split.swap, together.swap) == (0, duration.SLEEP_S)


def test_a_single_trainer_exchanges_nothing(compose_train):
    slow = replace(ENDLESS, link=1e9)
    assert split_seconds(compose_train, "cluster.rollout_ranks=7", hardware=slow).exchange == 0


def test_a_trainer_holds_no_engine_and_an_engine_no_optimizer(compose_train):
    together, split = (
        plan_memory(config, config.model.shape)
        for config in (compose_train(OAT_7B), compose_train(OAT_7B, "cluster.rollout_ranks=4"))
    )
    assert split.rollout == 2 * GIB + 0.4 * 80 * GIB
    # 2 + 12 + 4 bytes per parameter on 4 ranks instead of 8; vLLM does not sleep there
    assert split.training - together.training == pytest.approx(18 * P_7B * (1 / 4 - 1 / 8) - 1 * GIB)
    assert split.start == 2 * GIB + 2 * P_7B + 2 * P_7B / 4
    assert split.sync == split.rollout + 2 * 152064 * 3584  # an engine, and the largest tensor


def by_ranks(config, *_):
    """240 s of generation and 240 s of an update on one rank, divided by the ranks; 10 s for the sync."""
    generation, update = 240 / config.cluster.engine_ranks, 240 / config.cluster.train_ranks
    return replace(PARTS, generation=generation, tail=0.0, passes=update, optimizer=0, exchange=0, sync=10)


@pytest.fixture
def planned(monkeypatch, compose_train):
    """The layouts for some overrides, with seconds that are easy to check."""

    def plan(*overrides, seconds=by_ranks):
        monkeypatch.setattr(layouts, "plan_seconds", seconds)
        config = compose_train(OAT_7B, "algorithm.num_minibatches=1", *overrides)
        return plan_layouts(config, config.model.shape, ENDLESS, LENGTHS)

    return plan


def test_the_split_with_the_shortest_step_is_shown_for_each_staleness(planned):
    together, strict, stale = planned("cluster.ranks=4", "cluster.memory_gib=141")
    # 60 + 60 + 10; two ranks each: 120 + 120 + 10; 120 + 10 (one and three: 80 + 240 + 10, 240 + 10)
    assert [(layout.rollout_ranks, layout.step) for layout in (together, strict, stale)] == [
        (0, 130),
        (2, 250),
        (2, 130),
    ]
    # Without staleness, both halves wait for 120 of 250 s.
    assert [round(layout.idle, 6) for layout in (together, strict, stale)] == [0, 0.48, 0]


def test_the_tail_of_generation_counts_as_idle(planned):
    def with_tail(config, *_):
        return replace(by_ranks(config), tail=13.0)

    together, _, stale = planned("cluster.ranks=4", "cluster.memory_gib=141", seconds=with_tail)
    assert together.idle == pytest.approx(13 / 130)
    assert stale.idle == pytest.approx(2 * 13 / (4 * 130))  # of two ranks


def test_engines_that_share_ranks_stay_whole(planned):
    _, strict, _ = planned("cluster.ranks=12", "cluster.vllm.tensor_parallel_size=4", "rollout.prompts_per_step=96")
    assert strict.rollout_ranks in (4, 8)


def test_prompts_change_if_the_trainers_cannot_divide_them(planned):
    def slow_update(config, *_):
        return replace(by_ranks(config), passes=480 / config.cluster.train_ranks)

    *_, stale = planned(
        "cluster.ranks=3", "cluster.memory_gib=141", "rollout.prompts_per_step=129", seconds=slow_update
    )
    assert stale.changes["rollout.prompts_per_step"] == 128  # the nearest multiple of two trainers
    assert stale.step == pytest.approx(250 * 129 / 128)  # for as many prompts as before


def test_prompts_change_by_at_most_a_quarter(planned):
    def slow_update(config, *_):
        return replace(by_ranks(config), passes=4800 / config.cluster.train_ranks)

    given = ("algorithm.num_minibatches=2", "cluster.memory_gib=141", "rollout.prompts_per_step=8")
    *_, stale = planned(*given, seconds=slow_update)
    # Seven trainers would need 14 prompts and six 12; five need 10.
    assert (stale.rollout_ranks, stale.changes["rollout.prompts_per_step"]) == (3, 10)


def test_what_does_not_fit_is_left_out(planned):
    large, small = (planned(f"cluster.memory_gib={gib}") for gib in (80, 40))
    assert [layout.rollout_ranks for layout in large] == [0, 4, 4]
    assert [layout.rollout_ranks for layout in small] == [2, 2]  # 4 trainers need 48 GiB, colocated ranks 50


def test_a_split_is_compared_with_colocated_ranks_that_have_room_for_a_trainer(planned):
    together, *_ = planned("cluster.rollout_ranks=4", "cluster.vllm.gpu_memory_utilization=0.9")
    assert together.changes["cluster.vllm.gpu_memory_utilization"] == 0.4


def layout(rollout_ranks, step):
    return Layout(rollout_ranks, 1, {"cluster.rollout_ranks": rollout_ranks, "rollout.max_staleness": 1}, step, 0.25)


def test_a_split_is_chosen_only_if_it_is_clearly_faster():
    together, slightly, clearly = layout(0, 100.0), layout(2, 95.0), layout(4, 80.0)
    assert choose([together, slightly]) is together
    assert choose([together, slightly, clearly]) is clearly
    assert choose([slightly]) is slightly  # only a split fits


def test_the_plan_says_which_layout_it_would_take_and_by_how_much():
    together = layout(0, 100.0)
    settings = "set cluster.rollout_ranks=4 rollout.max_staleness=1."
    assert layout_verdict([together, layout(4, 80.0)]) == f"By this estimate a split is 1.25 times as fast: {settings}"
    assert "1.05 times as fast, which is less than the estimate's error" in layout_verdict([together, layout(2, 95.0)])
    assert "the best split would take 1.20 times as long" in layout_verdict([together, layout(2, 120.0)])
    assert layout_verdict([together]) == "By this estimate it is fastest if every rank generates and trains."
    assert layout_verdict([layout(4, 80.0)]).startswith("Only a split fits into memory. Set cluster.rollout_ranks=4 ")


def test_the_table_shows_step_and_idle_time():
    cells = [list(column.cells) for column in layout_table([layout(0, 100.0), layout(4, 80.0)]).columns]
    assert cells[1][1:] == ["0", "4"]
    assert cells[3][1:] == ["100 s", "80.0 s"]
    assert cells[4][1:] == ["25%", "25%"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["cluster.rollout_ranks=8"],
            "leaves no rank to train. Set cluster.ranks=9 or more, or cluster.rollout_ranks=7.",
        ),
        (
            ["cluster.rollout_ranks=3", "cluster.vllm.tensor_parallel_size=2", "rollout.prompts_per_step=120"],
            "cluster.rollout_ranks=3 cannot be divided into engines of cluster.vllm.tensor_parallel_size=2 ranks",
        ),
        (["cluster.rollout_ranks=2"], "minibatch(es) on 6 rank(s). Use a multiple of 48"),
        (["rollout.max_staleness=1"], "needs ranks that only generate, or rollout.oversample"),
    ],
)
def test_ranks_that_cannot_be_divided_are_rejected(overrides, message, compose_train):
    with pytest.raises(ConfigError) as raised:
        check_settings(compose_train(OAT_7B, *overrides))
    assert message in str(raised.value)
