"""The groups that a run keeps: written, read and removed."""

import gzip
import json
import math

import pytest
from kept_groups import group, response

from grpo_cli.errors import DataError
from grpo_cli.runs.rollouts import (
    Split,
    TokenValues,
    kept_group,
    kept_steps,
    read_groups,
    read_step,
    remove_after,
    rollout_file,
    write_groups,
)
from grpo_cli.runs.stored_steps import replay_file
from grpo_cli.types import Completion, Problem, Prompt, Score, ScoredGroup, Verdict

VALUES = TokenValues(["no", " é"], [-0.5, -0.25], [-0.5, -0.125], [1.5, 0.75], [-0.5, -0.0625])


def write(run_dir, *groups):
    write_groups(rollout_file(run_dir, groups[0].split, groups[0].step), groups)


def names(run_dir) -> list[str]:
    return sorted(file.name for file in (run_dir / "rollouts").iterdir())


def test_groups_are_read_as_they_were_written(tmp_path):
    groups = [
        group(7, response(advantage=None), response("é\u2028", verdict=Verdict.unparsable, extracted=None)),
        group(7, response(values=VALUES), problem="q"),
    ]
    write(tmp_path, *groups)
    assert read_step(tmp_path, Split.train, 7) == groups
    assert read_step(tmp_path, Split.train, 8) == []


def test_a_line_has_the_documented_keys(tmp_path):
    write(tmp_path, group(7, response(values=VALUES)))
    (line,) = gzip.decompress((tmp_path / "rollouts/train_000007.jsonl.gz").read_bytes()).decode().splitlines()
    assert json.loads(line) == {
        "step": 7, "split": "train", "problem": "3-1-1-1", "question": "3 1 1 1", "prompt": "3 1 1 1 :",
        "answer": "0", "grader": "math",
        "responses": [{
            "text": "no wait yes", "tokens": 3, "truncated": False, "reward": 1.1,
            "terms": {"accuracy": 1.0, "format": 1.0}, "extracted": "3 -1 -1 -1", "verdict": "correct",
            "correct": True, "advantage": 1.725, "token_texts": ["no", " é"], "sampler_logprobs": [-0.5, -0.25],
            "trainer_logprobs": [-0.5, -0.125], "entropies": [1.5, 0.75],
            "updated_logprobs": [-0.5, -0.0625],
        }],
    }  # fmt: skip


def test_a_response_that_no_rule_judges_is_neither_right_nor_wrong():
    assert [response(verdict=verdict).correct for verdict in Verdict] == [True, False, False, False, None]


def test_the_same_groups_give_the_same_bytes(tmp_path, monkeypatch):
    file = rollout_file(tmp_path, Split.train, 2)
    write(tmp_path, group(2))
    first = file.read_bytes()
    monkeypatch.setattr("time.time", lambda: 1e9)
    write(tmp_path, group(2))
    assert file.read_bytes() == first


def test_a_reward_that_is_not_a_number_stays_so(tmp_path):
    write(tmp_path, group(2, response(reward=math.nan, terms={"mine": math.nan})))
    ((kept,),) = [found.responses for found in read_step(tmp_path, Split.train, 2)]
    assert math.isnan(kept.reward)
    assert math.isnan(kept.terms["mine"])


def test_a_run_is_read_in_the_order_of_its_steps(tmp_path):
    for step in (1_000_000, 20, 3):
        write(tmp_path, group(step))
    write(tmp_path, group(0, split=Split.heldout))
    assert kept_steps(tmp_path, Split.train) == [3, 20, 1_000_000]
    assert [found.step for found in read_groups(tmp_path, Split.train)] == [3, 20, 1_000_000]
    assert kept_steps(tmp_path, Split.heldout) == [0]
    assert kept_steps(tmp_path / "no_such_run", Split.train) == []


@pytest.mark.parametrize(
    ("step", "left"),
    [
        (20, ["heldout_000000.jsonl.gz", "mine.txt", "replay_000020.npz", "train_000020.jsonl.gz"]),
        (0, ["mine.txt"]),  # the evaluation before training is repeated too
    ],
)
def test_what_a_resumed_run_repeats_is_removed(tmp_path, step, left):
    for later in (20, 21, 1_000_000):
        write(tmp_path, group(later))
        replay_file(tmp_path, later).write_bytes(b"")
    write(tmp_path, group(0, split=Split.heldout))
    (tmp_path / "rollouts/train_000019.jsonl.gz.tmp").write_bytes(b"killed while writing")
    (tmp_path / "rollouts/mine.txt").write_text("")
    remove_after(tmp_path, step)
    assert names(tmp_path) == left


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"not compressed", "cannot be read"),
        (gzip.compress(b"{}\n{", mtime=0), "line 1"),
        (gzip.compress(b'{"step": 2}\n', mtime=0), "there is no 'responses'"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, content, fault):
    write(tmp_path, group(2))
    rollout_file(tmp_path, Split.train, 2).write_bytes(content)
    with pytest.raises(DataError, match=f"train_000002.*{fault}.*Remove the file"):
        read_step(tmp_path, Split.train, 2)


def test_a_scored_group_is_kept_with_its_problem():
    scores = tuple(Score(total, {"accuracy": total}, Verdict.correct, "4") for total in (1.0, 0.0))
    completions = (Completion((5, 6, 7), (-0.1,) * 3, "4 .", truncated=True), Completion((), (), "", truncated=False))
    prompt = Prompt(Problem("p", "2 + 2?", "4", "expression"), "Q: 2 + 2?", (1, 2))
    kept = kept_group(3, Split.train, ScoredGroup(prompt, completions, scores), [0.5, -0.5])
    assert (kept.problem, kept.question, kept.prompt, kept.answer, kept.grader) == (
        "p", "2 + 2?", "Q: 2 + 2?", "4", "expression",
    )  # fmt: skip
    assert [(r.text, r.tokens, r.truncated, r.reward, r.advantage) for r in kept.responses] == [
        ("4 .", 3, True, 1.0, 0.5), ("", 0, False, 0.0, -0.5),
    ]  # fmt: skip
