"""The groups that fit into a page."""

import math
import random

import pytest
from report_run import RIGHT, group, response, write_groups

from grpo_cli.errors import DataError
from grpo_cli.report.kept import HEAD, TAIL, read_kept, spread


def words(seed: int, num: int = 300) -> str:
    draw = random.Random(seed)
    return " ".join(str(draw.randrange(10**6)) for _ in range(num))


def test_a_small_run_is_shown_whole(tmp_path):
    groups = [group(step, str(n), [response(RIGHT, correct=True)]) for step in (1, 2) for n in range(step + 1)]
    write_groups(tmp_path, groups)
    kept = read_kept(tmp_path, 10**6)
    assert [(each["step"], each["problem"]) for each in kept.groups] == [
        (each["step"], each["problem"]) for each in groups
    ]
    assert kept.notes == []


def test_a_large_run_shows_fewer_groups_of_a_step_then_fewer_steps_evenly_spread(tmp_path):
    texts = iter(range(10**6))
    write_groups(
        tmp_path,
        [
            group(step, str(n), [response(words(next(texts)), correct=True) for _ in range(4)])
            for step in range(1, 42)
            for n in range(5)
        ],
    )
    kept = read_kept(tmp_path, 200_000)
    steps = sorted({each["step"] for each in kept.groups})
    assert all(sum(each["step"] == step for each in kept.groups) == 2 for step in steps)
    assert {1, 41, 21, 11, 31} <= set(steps)
    assert len(steps) < 41
    assert kept.notes == [
        f"{len(steps)} of 41 steps with training groups, evenly spread.",
        "The first 2 training groups of a step.",
    ]


def test_only_the_files_that_are_shown_are_read(tmp_path):
    write_groups(tmp_path, [group(step, "p", [response(words(step), correct=True)] * 3) for step in range(1, 30)])
    (tmp_path / "rollouts" / "train_000002.jsonl.gz").write_bytes(b"damaged")
    assert read_kept(tmp_path, 3000).groups
    with pytest.raises(DataError, match="train_000002"):
        read_kept(tmp_path, 10**6)


def test_a_long_response_is_cut_in_the_middle(tmp_path):
    text = "a" * HEAD + "b" * 10 + "c" * TAIL
    write_groups(tmp_path, [group(1, "p", [response(text, correct=False)])])
    kept = read_kept(tmp_path, 10**6)
    (shown,) = kept.groups[0]["responses"]
    assert (shown["text"], shown["tail"], shown["cut"]) == ("a" * HEAD, "c" * TAIL, 10)
    assert "of a longer response" in kept.notes[0]


def test_a_reward_that_is_not_a_number_is_kept_as_null(tmp_path):
    write_groups(tmp_path, [group(1, "p", [response(RIGHT, correct=False, reward=None, terms={"accuracy": math.nan})])])
    (shown,) = read_kept(tmp_path, 10**6).groups[0]["responses"]
    assert (shown["reward"], shown["terms"]) == (None, {"accuracy": None})


def test_a_run_without_groups_has_none(tmp_path):
    assert read_kept(tmp_path, 10**6).groups == []


@pytest.mark.parametrize("num", [0, 1, 2, 3, 7, 64])
def test_every_number_is_given_once(num):
    assert sorted(spread(num)) == list(range(num))
