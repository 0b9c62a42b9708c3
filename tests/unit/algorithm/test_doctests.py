import doctest
import importlib

import pytest


@pytest.mark.parametrize("name", ["advantage", "preference", "ratio"])
def test_the_examples_in_docstrings_hold(name):
    result = doctest.testmod(importlib.import_module(f"grpo_cli.algorithm.{name}"))
    assert result.attempted > 0
    assert result.failed == 0
