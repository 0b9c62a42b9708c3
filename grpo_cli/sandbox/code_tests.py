r"""Parses the tests of a code problem from its answer: JSON in one of three forms.

- `{"fn_name": "add", "inputs": [[1, 2]], "outputs": [3]}`: calls of a function (or of a method of a class
  `Solution`); each input is the list of arguments. Values are compared as in Python, except for types that JSON lacks:
  a tuple equals the list of its items, and a dictionary's key equals its text. `"tolerance": 1e-6` allows numbers to
  differ by this much, absolute or relative. `starter_code` is code that the solution may continue.
- `{"inputs": ["1 2\n"], "outputs": ["3\n"]}`: a program that reads standard input and writes standard output.
  Lines are compared as in LiveCodeBench: white space around them is ignored, and numbers are compared as decimals;
  `tolerance` works here too.
- `{"tests": "assert add(1, 2) == 3"}`: assert statements, as one string or a list of strings. If they define
  `check(candidate)`, `entry_point` names the candidate. `setup` is code to run before them. If it begins the candidate
  itself, as HumanEval's prompt does, the solution may continue it. HumanEval's `test` and `prompt` and MBPP's
  `test_list` and `test_setup_code` are accepted under these names, and so is a bare string or list of strings.
"""

import functools
import json
from typing import Any

from grpo_cli.errors import DataError
from grpo_cli.sandbox.assert_tests import AssertTests, parse_asserts
from grpo_cli.sandbox.case_tests import CallTests, ProgramTests

CodeTests = CallTests | ProgramTests | AssertTests


@functools.lru_cache(maxsize=256)  # some data sets have a megabyte of tests per problem
def parse_tests(gold: str) -> CodeTests:
    """Returns the tests in a problem's answer. Raises DataError with the fault and its fix."""
    try:
        spec = json.loads(gold)
    except (ValueError, RecursionError):
        spec = gold
    if isinstance(spec, str | list):
        spec = {"tests": spec}
    if not isinstance(spec, dict):
        raise DataError(f"Tests must be a JSON object or assert statements, not {gold:.80}.")
    if "inputs" in spec or "outputs" in spec:
        return _parse_cases(spec)
    for key in ("tests", "test", "test_list"):
        if key in spec:
            return parse_asserts(_code(spec, key), _setup(spec), spec.get("entry_point"))
    raise DataError(f"Tests need `inputs` and `outputs`, or `tests`; the keys here are {', '.join(spec)}.")


def _parse_cases(spec: dict[str, Any]) -> CallTests | ProgramTests:
    inputs, outputs = spec.get("inputs"), spec.get("outputs")
    if not (isinstance(inputs, list) and isinstance(outputs, list) and len(inputs) == len(outputs) > 0):
        raise DataError("`inputs` and `outputs` must be two lists of the same length, with at least one test.")
    tolerance = spec.get("tolerance", 0)
    if not isinstance(tolerance, int | float) or tolerance < 0:
        raise DataError(f"`tolerance` must be a number that is at least 0, not {tolerance!r}.")
    cases = tuple(zip(inputs, outputs, strict=True))
    if fn_name := spec.get("fn_name"):
        if not (isinstance(fn_name, str) and all(isinstance(args, list) for args in inputs)):
            raise DataError("With `fn_name`, each of `inputs` must be a list: the arguments of one call.")
        return CallTests(fn_name, cases, tolerance, _code(spec, "starter_code") if "starter_code" in spec else "")
    if not all(isinstance(text, str) for text in inputs + outputs):
        raise DataError("`inputs` and `outputs` must be strings, unless `fn_name` names a function to call.")
    return ProgramTests(cases, tolerance)


def _setup(spec: dict[str, Any]) -> str:
    return next((_code(spec, key) for key in ("setup", "test_setup_code", "prompt") if key in spec), "")


def _code(spec: dict[str, Any], key: str) -> str:
    texts = spec[key] if isinstance(spec[key], list) else [spec[key]]
    if not all(isinstance(text, str) for text in texts):
        raise DataError(f"`{key}` must be Python code, as one string or a list of strings.")
    return "\n".join(texts)
