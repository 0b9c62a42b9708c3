"""What a base model can do before any training, from its samples (after arXiv:2503.20783, sections 2.2 and 2.3)."""

import re
from collections.abc import Mapping, Sequence

from grpo_cli.analysis.reflection import count_self_corrections
from grpo_cli.choices import AnswerMarker
from grpo_cli.evaluation.measures import measure, right_of_each
from grpo_cli.evaluation.pass_at_k import mixed_group_share
from grpo_cli.evaluation.samples import Sample
from grpo_cli.grading import extract_answer
from grpo_cli.reward.terms.language import is_mixed
from grpo_cli.types import Verdict

_STATES_AN_ANSWER = re.compile(r"(?i)\\boxed|####|\banswers?\b[ *]*(?:is|are|=|:)")
_GOES_ON = re.compile(r"(?im)^[ #*]*(?:question|problem|exercise|example|user|human|q)\b[ \d.*]*:|<\|im_start\|>")


def answers_question(sample: Sample, marker: AnswerMarker, prefix: str = "") -> bool:
    """Whether a response answers, by rule: it states an answer, ends by itself, and goes on to no other question."""
    if sample.truncated or sample.skipped or _GOES_ON.search(sample.text):
        return False
    return extract_answer(prefix + sample.text, marker).answer is not None or bool(
        _STATES_AN_ANSWER.search(sample.text)
    )


def base_model_metrics(
    samples: Sequence[Sample], answers: Sequence[bool], group_sizes: Sequence[int]
) -> dict[str, float]:
    """Shares of responses unless they say otherwise, beside what `measure` gives.

    `answering`; `mixed@G`, the expected share of groups of G whose outcomes differ, which alone give GRPO a gradient
    (at least so many where G is above the number of samples a problem); `reflecting`, with a self-correction, and
    `reflecting_problems`, of problems with such a response; `avg_reflecting` and `avg_plain`, right answers with and
    without; `mixed_languages`.
    """
    metrics = measure(samples, same_answer=None)
    right = right_of_each(samples)
    metrics["answering"] = _share(answers)
    for size in group_sizes:
        metrics[f"mixed@{size}"] = _share([mixed_group_share(n, c, size) for n, c in right.values()])
    reflects = [count_self_corrections(sample.text) > 0 for sample in samples]
    metrics["reflecting"] = _share(reflects)
    reflecting = {sample.id for sample, does in zip(samples, reflects, strict=True) if does}
    metrics["reflecting_problems"] = len(reflecting) / len(right)
    for name, wanted in (("avg_reflecting", True), ("avg_plain", False)):
        outcomes = [s.verdict is Verdict.correct for s, does in zip(samples, reflects, strict=True) if does is wanted]
        if outcomes:
            metrics[name] = _share(outcomes)
    metrics["mixed_languages"] = _share([is_mixed(sample.text) for sample in samples])
    return metrics


def teaching_verdict(metrics: Mapping[str, float], group_sizes: Sequence[int]) -> str:
    """In plain words, how many prompts would teach, such as `31% of the prompts would teach at G=8; with G=16, 62%`.

    Of groups larger than what was sampled only a lower bound is known.
    """
    n = metrics["num_samples"] / metrics["num_problems"]
    shares = [("at least " if size > n else "") + f"{metrics[f'mixed@{size}']:.0%}" for size in group_sizes]
    more = "".join(f"; with G={size}, {share}" for size, share in zip(group_sizes[1:], shares[1:], strict=True))
    return f"{shares[0]} of the prompts would teach at G={group_sizes[0]}{more}"


def _share(values: Sequence[float]) -> float:
    return sum(values) / len(values)
