"""Demonstrations: reading rows, mixing data sets, and holding out problems."""

import json
from collections import Counter

import pytest

from grpo_cli.config.examples import SFTDataConfig
from grpo_cli.data.demonstrations import Demonstration, load_demonstrations
from grpo_cli.errors import DataError


@pytest.fixture
def written(tmp_path):
    """A function that writes rows to a JSONL file and returns its path."""

    def write(rows: list[dict], name: str = "rows.jsonl") -> str:
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(tmp_path / name)

    return write


def rows(count: int, problem: str = "p{}", response: str = "r{}") -> list[dict]:
    return [{"problem": problem.format(n), "response": response.format(n)} for n in range(count)]


def config(path: str | None = None, **options) -> SFTDataConfig:
    return SFTDataConfig(path=path, **({"num_heldout": 2} | options))


def test_columns_and_conversations_give_the_same_demonstrations(written):
    plain = load_demonstrations(config(written(rows(6))), seed=0)
    turns = [
        {"messages": [{"role": "user", "content": f"p{n}"}, {"role": "assistant", "content": f"r{n}"}]}
        for n in range(6)
    ]
    assert load_demonstrations(config(written(turns, "turns.jsonl")), seed=0) == plain
    assert set(plain.train) | set(plain.heldout) == {Demonstration(f"p{n}", f"r{n}") for n in range(6)}
    assert len(plain.heldout) == 2


def test_a_held_out_problem_is_held_out_with_all_its_responses_in_every_data_set(written):
    main = written([*rows(10), *rows(10, response="again {}")])
    other = {"path": written(rows(10, response="other {}"), "other.jsonl")}
    found = load_demonstrations(config(main, num_heldout=3, mix={"other": other}), seed=1)
    assert len(found.heldout) == 2 * 3
    assert len(found.train) == (10 - 3) * 3
    assert not {d.problem for d in found.heldout} & {d.problem for d in found.train}


@pytest.mark.parametrize(("weight", "seen"), [(1.0, {1: 10}), (2.0, {2: 10}), (1.5, {1: 5, 2: 5}), (0.3, {1: 3})])
def test_a_weight_is_the_number_of_repeats_of_a_row(written, weight, seen):
    other = {"path": written(rows(10, "q{}"), "other.jsonl"), "weight": weight}
    found = load_demonstrations(config(written(rows(6)), mix={"other": other}), seed=0)
    counts = Counter(d for d in found.train if d.problem.startswith("q"))
    assert Counter(counts.values()) == seen
    assert found == load_demonstrations(config(written(rows(6)), mix={"other": other}), seed=0)


@pytest.mark.parametrize(("model", "total"), [("tiny", "=8"), ("tiny_half", "=8"), ("tiny_mixed", "eight")])
def test_built_in_demonstrations_use_the_vocabulary_of_their_model(model, total):
    found = load_demonstrations(config(source=f"builtin:{model}", num_heldout=16), seed=0)
    assert len({d.problem for d in found.heldout}) == 16
    assert all(d.response.startswith("<think> ") and d.response.endswith(" </answer>") for d in found.train)
    assert any(f" {total} " in d.response for d in found.train)


@pytest.mark.parametrize(
    ("invalid", "message"),
    [
        ([], "is empty"),
        ([{"question": "q", "reply": "r"}], r"neither the columns 'problem' and 'response' nor 'messages'"),
        ([*rows(5), {"problem": "p", "response": " "}], r"line 6: 'response' is missing or empty"),
        ([*rows(5), {"problem": "p", "response": 3}], "'response' must be text, not int"),
        ([*rows(5), {"problem": "p"}], r"max_bad_rows=1"),
        (rows(1), r"At least 2 problems are needed, .* The data have 1"),
        (
            [{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]}],
            r"the roles of its turns are \['system', 'user'\], not \['user', 'assistant'\]",
        ),
    ],
)
def test_invalid_data_are_reported(written, invalid, message):
    with pytest.raises(DataError, match=message):
        load_demonstrations(config(written(invalid)), seed=0)


def test_max_bad_rows_leaves_out_invalid_rows(written):
    path = written([*rows(5), {"problem": "p"}])
    found = load_demonstrations(config(path, max_bad_rows=1), seed=0)
    assert len(found.train) + len(found.heldout) == 5
