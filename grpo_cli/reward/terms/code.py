"""Whether a program passes the tests of its problem."""

from dataclasses import dataclass
from typing import ClassVar

from grpo_cli.bounds import number
from grpo_cli.choices import CodeScoring, Grader, Sandbox
from grpo_cli.reward.terms.term import Response, Term


@dataclass(frozen=True, kw_only=True)
class CodeTerm(Term):
    """How many of the problem's unit tests the response's program passes."""

    name: ClassVar[str] = "code"

    scoring: CodeScoring = CodeScoring.all
    """Whether the reward needs all tests to pass or is the share that passes."""
    sandbox: Sandbox = Sandbox.bwrap
    """Where the program runs."""
    timeout_s: float = number(10.0, at_least=0.1, at_most=86400)
    """Time limit in seconds for all tests of one response together."""
    memory_mib: int = number(512, at_least=64, at_most=2**20)
    """Memory limit of the program in MiB."""

    def applies_to(self, grader: Grader) -> bool:
        return grader == Grader.code

    def value(self, response: Response) -> float:
        return float(response.is_correct) if self.scoring == CodeScoring.all else response.judgement.tests_passed
