"""Computes rewards, the weighted sums of the configured terms, while other responses are still being generated."""

import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from functools import partial
from typing import Self

from grpo_cli.choices import CodeScoring, Device, Grader
from grpo_cli.config.reward import RewardConfig
from grpo_cli.config.template import TemplateConfig
from grpo_cli.grading import Judgement, VerifierPool, expression_gold_fault, extract_answer, math_gold_fault
from grpo_cli.reward.background import Background, user_function
from grpo_cli.reward.model import reward_model
from grpo_cli.reward.terms import AccuracyTerm, CodeTerm, FunctionTerm, ModelTerm, Response, Term, typed_terms
from grpo_cli.sandbox import check_sandbox, code_fault, grade_code
from grpo_cli.types import Completion, Problem, Score, Verdict


class Reward:
    """Scores responses in the background. A context manager, because it starts processes.

    Every response that a rule can judge gets a verdict, even without an accuracy term: evaluation uses the verdict.
    """

    def __init__(self, config: RewardConfig, template: TemplateConfig, max_new_tokens: int, device: Device) -> None:
        """`device` is the cluster's, which a reward model uses unless its term sets another. `max_new_tokens` is the
        limit for length terms if `submit` is not given one.
        """
        self._terms = typed_terms(config.terms)
        self._template = template
        accuracy = next((term for term in self._terms.values() if isinstance(term, AccuracyTerm)), AccuracyTerm())
        self._marker = accuracy.marker or template.answer
        self._max_new_tokens = max_new_tokens
        code_terms = [term for term in self._terms.values() if isinstance(term, CodeTerm)]
        for term in code_terms:
            check_sandbox(term.sandbox)
        self._code = code_terms[0] if code_terms else CodeTerm()
        with ExitStack() as stack:
            slow = {name: _background(name, term, template, device) for name, term in self._terms.items()}
            self._slow = {name: stack.enter_context(closing(term)) for name, term in slow.items() if term}
            self._runners = stack.enter_context(ThreadPoolExecutor(config.num_workers, "reward-code"))
            self._verifier = stack.enter_context(VerifierPool(config.num_workers, config.timeout_s, config.memory_gib))
            self._resources = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the background work and cancel unfinished scores."""
        self._runners.shutdown(wait=False, cancel_futures=True)
        self._resources.close()

    def submit(
        self, problem: Problem, completion: Completion, *, step: int | None = None, max_new_tokens: int | None = None
    ) -> Future[Score]:
        """Returns a future of the score, over the terms that count for this problem at this training step.

        Without a step, in an evaluation, users' functions and reward models are not called: only the verdict counts
        there. `max_new_tokens` is the limit that the response was sampled with, which a schedule may change. The future
        raises TrainingError if a user's function fails. The total is nan if no term applies to the response.
        """
        text = self._template.response_prefix + completion.text
        limit = max_new_tokens or self._max_new_tokens
        extracted, judgement = self._judge(problem, completion, text)
        terms = {
            name: term
            for name, term in self._terms.items()
            if term.counts_at(step) and term.applies_to(Grader(problem.grader))
            if step is not None or name not in self._slow
        }
        slow = {name: self._slow[name].submit(completion, problem, step or 0) for name in terms if name in self._slow}

        def score() -> Score:
            response = Response(text, len(completion.token_ids), limit, judgement.result())
            found = {
                name: slow[name].result() if name in slow else term.value(response) for name, term in terms.items()
            }
            values = {name: value for name, value in found.items() if value is not None}
            total = sum((terms[name].weight * value for name, value in values.items()), start=0.0)
            if found and not values:
                total = math.nan
            return Score(total, values, response.judgement.verdict, extracted)

        return _when_done([judgement, *slow.values()], score)

    def same_answer(self, first: str, second: str) -> bool:
        """Whether two answers to a mathematical problem are equivalent."""
        return self._verifier.judge(Grader.math, first, second).result().verdict is Verdict.correct

    def _judge(self, problem: Problem, completion: Completion, text: str) -> tuple[str | None, Future[Judgement]]:
        if problem.grader == Grader.model:
            return None, _done(Judgement(Verdict.unjudged, "a general prompt: no rule can judge it"))
        if completion.truncated:
            return None, _done(Judgement(Verdict.unparsable, "cut at the token limit"))
        if problem.grader == Grader.code:
            return None, self._runners.submit(self._run_tests, problem.answer, text)
        stated = extract_answer(text, self._marker)
        if stated.answer is None:
            return None, _done(Judgement(Verdict.unparsable, stated.reason))
        return stated.answer, self._verifier.judge(problem.grader, problem.answer, stated.answer)

    def _run_tests(self, tests: str, text: str) -> Judgement:
        grade = grade_code(
            tests,
            text,
            sandbox=self._code.sandbox,
            timeout_s=self._code.timeout_s,
            memory_mib=self._code.memory_mib,
            fail_fast=self._code.scoring == CodeScoring.all,
        )
        return Judgement(grade.verdict, grade.reason, grade.passed / grade.total)


def gold_fault(problem: Problem) -> str | None:
    """Returns why the gold answer of `problem` cannot be used; None if it can. Checked when data are loaded."""
    match problem.grader:
        case Grader.model:
            return None
        case Grader.expression:
            fault = expression_gold_fault(problem.answer)
        case Grader.code:
            fault = code_fault(problem.answer)
        case _:
            fault = math_gold_fault(problem.answer)
    return fault and f"the answer {problem.answer[:100]!r} cannot be graded: {fault}"


def _background(name: str, term: Term, template: TemplateConfig, device: Device) -> Background | None:
    match term:
        case FunctionTerm():
            return user_function(name, term, template)
        case ModelTerm():
            return reward_model(name, term, device)
    return None


def _done(judgement: Judgement) -> Future[Judgement]:
    future: Future[Judgement] = Future()
    future.set_result(judgement)
    return future


def _when_done(inputs: Sequence[Future], compute: Callable[[], Score]) -> Future[Score]:
    """Returns a future of `compute()`, which the thread that finishes the last of `inputs` calls.

    `inputs` must not be empty. The future fails as soon as one input fails, because another may never finish.
    """
    output: Future[Score] = Future()

    def finish() -> None:
        try:
            set_output = partial(output.set_result, compute())
        except BaseException as error:  # otherwise the caller would wait forever
            set_output = partial(output.set_exception, error)
        with suppress(InvalidStateError):  # an input has failed before
            set_output()

    num_left, lock = len(inputs), threading.Lock()

    def count_down(future: Future) -> None:
        nonlocal num_left
        with lock:
            num_left -= 1
            is_last = num_left == 0
        if is_last:
            finish()
        elif not future.cancelled() and (error := future.exception()):
            with suppress(InvalidStateError):
                output.set_exception(error)

    for future in inputs:
        future.add_done_callback(count_down)  # called immediately if the future is done
    return output
