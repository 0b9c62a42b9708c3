"""Grades code by its problem's tests. The code runs in a box that never sees an expected value or decides a verdict."""

import contextlib
from typing import NamedTuple

from grpo_cli.choices import Sandbox
from grpo_cli.errors import DataError
from grpo_cli.sandbox.box import BoxError, BoxTimeout, Limits
from grpo_cli.sandbox.code_tests import parse_tests
from grpo_cli.sandbox.solution_block import candidate_programs, extract_code
from grpo_cli.types import Verdict


class CodeGrade(NamedTuple):
    """How many tests passed. `verdict` is correct if all did; otherwise `reason` is the first failure."""

    verdict: Verdict
    passed: int
    total: int
    reason: str


def grade_code(
    gold: str,
    completion_text: str,
    *,
    sandbox: Sandbox = Sandbox.bwrap,
    timeout_s: float = 10.0,
    memory_mib: int = 512,
    max_processes: int = 8,
    output_mib: int = 4,
    fail_fast: bool = False,
) -> CodeGrade:
    """Run the code in `completion_text` against the tests in `gold`. Blocks for little more than `timeout_s`.

    With `fail_fast`, tests after the first failure are not run. Raises DataError if `code_fault` finds a fault in
    `gold`, and SetupError if the sandbox does not start.
    """
    tests = parse_tests(gold)
    code = extract_code(completion_text, tests.names)
    if code is None:
        return CodeGrade(Verdict.unparsable, 0, tests.total, "no block of Python code")
    codes = candidate_programs(tests.starter, code, tests.names)
    limits = Limits(timeout_s, memory_mib, max_processes, output_mib)
    passed: set[int] = set()
    failed: set[int] = set()
    first_failure, verdict = "", Verdict.wrong
    try:
        with contextlib.closing(tests.run(codes, sandbox, limits)) as outcomes:
            for index, failure in outcomes:
                (failed if failure else passed).add(index)
                first_failure = first_failure or failure
                if failure and fail_fast:
                    raise BoxError(failure)
        if not failed:
            return CodeGrade(Verdict.correct, tests.total, tests.total, "")
        num_passed = tests.total - len(failed)  # an assert statement that was not reached counts as passed
    except (BoxError, RecursionError) as error:  # RecursionError: data that is nested too deeply
        if isinstance(error, BoxTimeout):
            verdict = Verdict.timeout
        first_failure = first_failure or str(error)
        num_passed = min(len(passed - failed), tests.total - 1)
    return CodeGrade(verdict, num_passed, tests.total, first_failure)


def stated_code(gold: str, completion_text: str) -> str | None:
    """Returns the part of a response that `grade_code` takes as its solution; None if there is none."""
    return extract_code(completion_text, parse_tests(gold).names)


def code_fault(gold: str) -> str | None:
    """Returns why `gold` cannot be used as tests; None if it can."""
    try:
        parse_tests(gold)
    except DataError as error:
        return str(error)
    return None
