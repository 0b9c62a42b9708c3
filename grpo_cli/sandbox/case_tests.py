"""Tests in the form of pairs: the arguments and the value of a call, or the input and the output of a program."""

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

from grpo_cli.choices import Sandbox
from grpo_cli.sandbox.box import Box, BoxError, BoxTimeout, Limits, describe_error, printable
from grpo_cli.sandbox.same_result import brief, same_output, same_value
from grpo_cli.sandbox.wire import encode

# The index of a test and why it failed, or "" if it passed.
Outcome = tuple[int, str]


@dataclass(frozen=True)
class CallTests:
    """Calls of one function, each with a list of arguments and the expected value."""

    fn_name: str
    cases: tuple[tuple[list[Any], Any], ...]
    tolerance: float
    starter: str = ""  # code that the solution may continue

    @property
    def total(self) -> int:
        return len(self.cases)

    @property
    def names(self) -> tuple[str, ...]:
        return (self.fn_name,)

    def run(self, codes: Sequence[str], sandbox: Sandbox, limits: Limits) -> Generator[Outcome, None, None]:
        """Yield the outcome of each call, for the first of `codes` that compiles. Raises BoxError."""
        with Box(sandbox, limits) as box:
            box.load("solution", codes=codes, is_contest=True)
            for index, (args, expected) in enumerate(self.cases):
                reply = box.call({"target": self.fn_name, "args": encode(args), "kwargs": encode({})})
                value = reply.get("value")
                if "raised" in reply:
                    yield index, describe_error(reply)
                elif same_value(value, expected, self.tolerance):
                    yield index, ""
                else:
                    yield index, printable(f"{self.fn_name} returned {brief(value)}, not {brief(expected)}")


@dataclass(frozen=True)
class ProgramTests:
    """Standard inputs, each with the expected standard output."""

    cases: tuple[tuple[str, str], ...]
    tolerance: float
    starter: str = ""
    names: tuple[str, ...] = ()  # a program need not define any name

    @property
    def total(self) -> int:
        return len(self.cases)

    def run(self, codes: Sequence[str], sandbox: Sandbox, limits: Limits) -> Generator[Outcome, None, None]:
        """Yield the outcome of each input, for the first of `codes` that compiles. Raises BoxTimeout."""
        remaining_s = limits.timeout_s
        for index, (stdin, expected) in enumerate(self.cases):
            with Box(sandbox, limits, stdin.encode(errors="replace")) as box:
                box.wait_until_ready()
                start = time.monotonic()
                try:
                    box.load("program", codes=codes, timeout_s=remaining_s)
                    printed = box.finish()
                except BoxTimeout:
                    raise
                except BoxError as error:
                    yield index, str(error)
                else:
                    is_same = same_output(printed, expected, self.tolerance)
                    yield index, "" if is_same else printable(f"printed {brief(printed)}, not {brief(expected)}")
                remaining_s -= time.monotonic() - start
