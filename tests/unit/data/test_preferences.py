"""Pairs of responses from rows, the held-out split, and the errors for invalid data."""

import json

import pytest

from grpo_cli.config.examples import PreferenceColumnsConfig, PreferencesConfig
from grpo_cli.data.preferences import Preference, load_preferences
from grpo_cli.errors import DataError


@pytest.fixture
def data(tmp_path):
    """A function that writes rows to a file and returns its config."""

    def write(*rows, **settings):
        (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return PreferencesConfig(path=str(tmp_path / "pairs.jsonl"), **settings)

    return write


def row(problem="p", chosen="good", rejected="bad", **others):
    return {"problem": problem, "chosen": chosen, "rejected": rejected, **others}


def test_pairs_on_a_held_out_problem_are_all_held_out(data):
    rows = [row(f"p{n}", chosen=f"good {k}") for n in range(10) for k in range(3)]
    config = data(*rows, num_heldout=4)
    split = load_preferences(config, seed=0)
    assert (len(split.train), len(split.heldout)) == (18, 12)
    assert not {pair.problem for pair in split.train} & {pair.problem for pair in split.heldout}
    assert load_preferences(config, seed=0) == split
    assert load_preferences(config, seed=1) != split


def test_columns_may_be_nested(data):
    turns = [[{"role": "user", "content": "q"}, {"role": "assistant", "content": text}] for text in ("yes", "no")]
    rows = [{"prompt": f"q{n}", "chosen": turns[0], "rejected": turns[1]} for n in range(2)]
    columns = PreferenceColumnsConfig("prompt", "chosen.1.content", "rejected.1.content")
    split = load_preferences(data(*rows, columns=columns, num_heldout=1), seed=0)
    assert {*split.train, *split.heldout} == {Preference("q0", "yes", "no"), Preference("q1", "yes", "no")}


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"chosen": ""}, "'chosen' is missing or empty"),
        ({"rejected": None}, "'rejected' is missing or empty"),
        ({"problem": 7}, "'problem' must be text, not int"),
        ({"rejected": "good"}, "both responses are the same"),
    ],
)
def test_an_invalid_row_is_named_and_may_be_left_out(data, fault, message):
    rows = [row("p1"), row("p2"), row("p3") | fault]
    with pytest.raises(DataError, match=f"line 3: {message}"):
        load_preferences(data(*rows, num_heldout=1), seed=0)
    split = load_preferences(data(*rows, num_heldout=1, max_bad_rows=1), seed=0)
    assert len(split.train + split.heldout) == 2


def test_a_missing_column_error_lists_the_present_columns(data):
    with pytest.raises(DataError, match=r"no column 'rejected'; its columns are .*'better'.*columns.rejected="):
        load_preferences(data({"problem": "p", "chosen": "a", "better": "b"}, num_heldout=1), seed=0)


def test_a_tenth_of_few_problems_is_held_out(data, caplog):
    pairs = load_preferences(data(row("p1"), row("p2"), num_heldout=2), seed=0)
    assert (len(pairs.train), len(pairs.heldout)) == (1, 1)
    assert "Holding out 1 of 2 problems, a tenth: data.num_heldout=2 is more than half." in caplog.messages


def test_an_empty_file_is_rejected(data):
    with pytest.raises(DataError, match="is empty"):
        load_preferences(data(), seed=0)
