import pickle

import pytest

from grpo_cli.types import Columns, Problem


def test_columns_travel_between_ranks():
    problem = Problem("p", "1+1?", "2", extra=Columns({"hint": "add"}))
    assert pickle.loads(pickle.dumps(problem)) == problem
    assert hash(problem) == hash(Problem("p", "1+1?", "2"))
    assert problem != Problem("p", "1+1?", "2")


def test_a_column_that_was_not_asked_for_is_an_error_with_the_setting():
    columns = Columns({"hint": "add"})
    with pytest.raises(KeyError, match=r"level is not among data\.columns\.extra=\['hint'\]"):
        columns["level"]
    assert columns.get("level") is None
    assert "level" not in columns
