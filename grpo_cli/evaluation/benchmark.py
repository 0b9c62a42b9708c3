"""One benchmark: its responses, each judged as soon as it is there."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future

from grpo_cli.choices import AnswerMarker, Grader
from grpo_cli.config.template import TemplateConfig
from grpo_cli.evaluation.responses import Question, Responder, Skipped
from grpo_cli.evaluation.samples import Sample
from grpo_cli.reward.reward import Reward
from grpo_cli.reward.terms.format import format_reward
from grpo_cli.types import Completion, Score, Verdict


def judged_samples(
    asked: Sequence[Question], respond: Responder, reward: Reward, template: TemplateConfig
) -> Iterator[Sample]:
    """The sample of each question, as soon as its response is there and judged, in no certain order."""
    waiting: deque[tuple[Question, Completion, Future[Score]]] = deque()
    for question, response in respond(asked):
        if isinstance(response, Skipped):
            yield _skipped(question, response.reason)
            continue
        waiting.append((question, response, reward.submit(question.problem, response)))
        while waiting and waiting[0][2].done():
            yield _sample(*waiting.popleft(), template)
    while waiting:
        yield _sample(*waiting.popleft(), template)


def _sample(question: Question, completion: Completion, score: Future[Score], template: TemplateConfig) -> Sample:
    judged = score.result()
    return Sample(
        benchmark=question.benchmark,
        id=question.problem.id,
        sample=question.sample,
        seed=question.seed,
        text=completion.text,
        extracted=judged.extracted,
        verdict=judged.verdict,
        num_tokens=len(completion.token_ids),
        truncated=completion.truncated,
        well_formed=_is_well_formed(completion, judged, template),
    )


def _is_well_formed(completion: Completion, score: Score, template: TemplateConfig) -> bool:
    """Whether the response keeps to its template: both blocks in order, or an answer where it is asked for."""
    if template.answer == AnswerMarker.answer_tag:
        return format_reward(template.response_prefix + completion.text) == 1
    return score.verdict is not Verdict.unparsable


def _skipped(question: Question, reason: str) -> Sample:
    return Sample(
        benchmark=question.benchmark,
        id=question.problem.id,
        sample=question.sample,
        seed=question.seed,
        text="",
        extracted=None,
        verdict=Verdict.unparsable,
        num_tokens=0,
        truncated=False,
        well_formed=False,
        skipped=reason,
    )


def answer_equality(grader: str, reward: Reward) -> Callable[[str, str], bool] | None:
    """Whether two answers are a vote for the same; None where answers are programs, which cannot be told apart."""
    match grader:
        case Grader.math:
            return lambda one, other: reward.same_answer(one, other)
        case Grader.expression:
            return lambda one, other: one.split() == other.split()
    return None
