"""Verdicts on answers: at once where exact means suffice, else by algebra in processes that can be killed."""

from concurrent.futures import Future
from typing import Self

from grpo_cli.choices import Grader
from grpo_cli.grading.expression import judge_expression
from grpo_cli.grading.killable import KillableProcesses
from grpo_cli.grading.math_grader import MAX_PARSED_CHARS, Judgement, Undecided, judge
from grpo_cli.limits import check_shared_memory
from grpo_cli.types import Verdict

_MAX_REMEMBERED = 100_000  # verdicts
_Question = tuple[str, str, str]


class VerifierPool:
    """Judges answers: at once where exact means suffice, else in one of `num_workers` processes. A context manager.

    Each process may spend `timeout_s` of CPU time on one answer, and hold `memory_gib` of address space.
    """

    def __init__(self, num_workers: int, timeout_s: float, memory_gib: float) -> None:
        check_shared_memory()
        self._judgements: dict[_Question, Future[Judgement]] = {}
        self._processes = KillableProcesses(num_workers, timeout_s, memory_gib)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the processes. Judgements still under way are cancelled."""
        self._processes.close()

    def judge(self, grader: str, gold: str, answer: str) -> Future[Judgement]:
        """The verdict on an answer, without waiting for it. An equal question is not asked twice.

        A timeout is no verdict: what was stopped is asked again when it comes again.
        """
        question = (grader, gold, answer)
        if question in self._judgements:
            return self._judgements[question]
        exact = _exactly(*question)
        if exact is None:
            judgement = self._processes.submit(gold, answer)
        else:
            judgement = Future()
            judgement.set_result(exact)
        if len(answer) <= MAX_PARSED_CHARS:  # longer ones are decided at once, and would fill the memory
            if len(self._judgements) >= _MAX_REMEMBERED:
                self._judgements.clear()
            self._judgements[question] = judgement
            if exact is None:
                judgement.add_done_callback(lambda judgement: self._forget_if_stopped(question, judgement))
        return judgement

    def _forget_if_stopped(self, question: _Question, judgement: Future[Judgement]) -> None:
        if judgement.cancelled() or judgement.exception() or judgement.result().verdict is Verdict.timeout:
            self._judgements.pop(question, None)


def _exactly(grader: str, gold: str, answer: str) -> Judgement | None:
    """The verdict by exact means; None where only algebra can tell."""
    if grader == Grader.expression:
        return judge_expression(gold, answer)
    try:
        return judge(gold, answer)
    except Undecided:
        return None
