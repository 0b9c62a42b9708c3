"""Verdicts on answers: immediate if exact comparison can decide, otherwise from processes that can be killed."""

from concurrent.futures import Future
from typing import Self

from grpo_cli.choices import Grader
from grpo_cli.grading.expression import judge_expression
from grpo_cli.grading.killable import KillableProcesses
from grpo_cli.grading.math_grader import MAX_PARSED_CHARS, Judgement, Undecided, judge
from grpo_cli.limits import check_shared_memory
from grpo_cli.types import Verdict

_MAX_CACHED = 100_000  # verdicts
_Question = tuple[str, str, str]


class VerifierPool:
    """Judges answers: immediately if exact comparison can decide, otherwise in `num_workers` processes.

    Each process may use `timeout_s` of CPU time per answer and `memory_gib` of address space. A context manager.
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
        """Stop the processes and cancel unfinished judgements."""
        self._processes.close()

    def judge(self, grader: str, gold: str, answer: str) -> Future[Judgement]:
        """Returns a future of the verdict on an answer. Verdicts are cached, except timeouts, which are tried again."""
        question = (grader, gold, answer)
        if question in self._judgements:
            return self._judgements[question]
        exact = _judge_exactly(*question)
        if exact is None:
            judgement = self._processes.submit(gold, answer)
        else:
            judgement = Future()
            judgement.set_result(exact)
        if len(answer) <= MAX_PARSED_CHARS:  # longer answers are decided immediately and would fill the memory
            if len(self._judgements) >= _MAX_CACHED:
                self._judgements.clear()
            self._judgements[question] = judgement
            if exact is None:
                judgement.add_done_callback(lambda judgement: self._forget_if_stopped(question, judgement))
        return judgement

    def _forget_if_stopped(self, question: _Question, judgement: Future[Judgement]) -> None:
        if judgement.cancelled() or judgement.exception() or judgement.result().verdict is Verdict.timeout:
            self._judgements.pop(question, None)


def _judge_exactly(grader: str, gold: str, answer: str) -> Judgement | None:
    """Returns the verdict of an exact comparison; None if only algebra can decide."""
    if grader == Grader.expression:
        return judge_expression(gold, answer)
    try:
        return judge(gold, answer)
    except Undecided:
        return None
