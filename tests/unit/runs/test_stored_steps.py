"""Rollouts that are stored for a replay: every value is read exactly as it was sampled."""

import io
from dataclasses import fields

import numpy as np
import pytest

from grpo_cli.errors import DataError
from grpo_cli.runs.stored_steps import (
    StoredGroup,
    read_completions,
    read_groups,
    replay_file,
    sampling_settings,
    write_step,
)
from grpo_cli.types import Completion

SINGLE = float(np.float32(0.1))  # as vLLM gives it: a float32 as a Python float
GROUPS = [
    (
        StoredGroup("p", (1, 2), rank=0, position=1),
        (
            Completion((5, 6, 151_000), (-SINGLE, -(2.0**-100), 0.0), "é\u2028 \ud83d", truncated=True),
            Completion((), (), "", truncated=False),
        ),
    ),
    (
        StoredGroup("q", (1,), rank=1, position=None),
        (
            Completion((7,), (-0.5,), "no", False, (b"12345678",)),
            Completion((8,), (float("-inf"),), "yes", truncated=False),
        ),
    ),
]


@pytest.fixture
def file(tmp_path, compose_train):
    """A step of GROUPS."""
    file = replay_file(tmp_path, 3)
    write_step(file, compose_train("rollout.group_size=2"), GROUPS)
    return file


def test_groups_are_read_exactly_as_they_were_written(file):
    settings, groups = read_groups(file)
    assert groups == [group for group, _ in GROUPS]
    assert read_completions(file) == [completions for _, completions in GROUPS]
    assert settings["rollout.group_size"] == 2


def test_every_field_of_a_completion_is_stored_except_ages_which_only_metrics_read():
    stored = ["token_ids", "logprobs", "text", "truncated", "support"]
    assert [field.name for field in fields(Completion)] == [*stored, "ages"]


def test_log_probabilities_take_four_bytes_unless_that_would_change_one(file, tmp_path, compose_train):
    assert np.load(file)["logprobs"].dtype == np.float32
    exact = replay_file(tmp_path, 4)
    completion = Completion((1, 2), (-0.1, -SINGLE), "", truncated=False)
    write_step(exact, compose_train(), [(StoredGroup("p", (1,), 0, 0), (completion,))])
    assert read_completions(exact) == [(completion,)]


def test_the_same_groups_give_the_same_bytes(file, compose_train, monkeypatch):
    first = file.read_bytes()
    monkeypatch.setattr("time.time", lambda: 1e9)
    write_step(file, compose_train("rollout.group_size=2"), GROUPS)
    assert file.read_bytes() == first


def pickled() -> bytes:
    content = io.BytesIO()
    np.savez(content, header=np.array([{"settings": {}}], dtype=object))
    return content.getvalue()


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda content: content[: len(content) // 2], "not a zip file"),
        (lambda content: b"", "No data left in file"),
        (lambda content: content.replace(b"header.npy", b"footer.npy"), "header"),
        (lambda content: pickled(), "allow_pickle=False"),
    ],
)
def test_a_damaged_file_is_named_and_nothing_in_it_is_unpickled(file, damage, fault):
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(DataError, match=rf"replay_000003.npz cannot be read: .*{fault}.*lower steps"):
        read_groups(file)


def test_a_damaged_response_is_found_when_it_is_read(file):
    content = bytearray(file.read_bytes())
    content[content.index(b"token_ids.npy") + 40] ^= 0xFF
    file.write_bytes(content)
    assert read_groups(file)[1]
    with pytest.raises(DataError, match=r"replay_000003.npz cannot be read"):
        read_completions(file)


def test_a_schedule_of_token_limits_depends_on_the_optimizer_steps_of_each_rollout(compose_train):
    assert "algorithm.num_minibatches" not in sampling_settings(compose_train())
    settings = sampling_settings(compose_train("++rollout.max_new_tokens_schedule={20: 64}"))
    assert settings["rollout.max_new_tokens_schedule"] == {"20": 64}
    assert settings["algorithm.num_minibatches"] == 1
