"""Whether any example is short enough."""

import pytest

from grpo_cli.data import lengths
from grpo_cli.data.lengths import check_any_fits
from grpo_cli.errors import DataError


@pytest.fixture
def check(monkeypatch):
    """A function that checks texts, one token per character, two at once; returns the texts that it has measured."""
    monkeypatch.setattr(lengths, "BATCH", 2)

    def check(texts: list[str], limit: int) -> list[str]:
        measured: list[str] = []

        def count_tokens(batch):
            measured.extend(batch)
            return [len(text) for text in batch]

        check_any_fits(texts, count_tokens, limit, lambda num, shortest: DataError(f"{num}, {shortest}"))
        return measured

    return check


def test_that_all_are_too_long_is_found_with_their_number_and_the_shortest(check):
    with pytest.raises(DataError, match=r"^3, 4$"):
        check(["12345", "1234", "123456"], limit=3)


def test_measuring_ends_with_the_first_batch_that_has_one_that_fits(check):
    assert check(["12345", "123", "123456", "1"], limit=3) == ["12345", "123"]
    assert check(["12345", "1234", "1", "12", "1"], limit=3) == ["12345", "1234", "1", "12"]
    assert check([], limit=3) == []
