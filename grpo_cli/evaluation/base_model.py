"""What a base model can do before any training, from its samples (after arXiv:2503.20783, sections 2.2 and 2.3)."""

import re
from collections.abc import Mapping, Sequence

from grpo_cli.analysis.reflection import count_self_corrections
from grpo_cli.choices import AnswerMarker
from grpo_cli.evaluation.measures import measure, mixed_group_share
from grpo_cli.evaluation.samples import Sample, right_by_problem
from grpo_cli.grading import extract_answer
from grpo_cli.reward.terms.language import is_mixed
from grpo_cli.types import Verdict

_STATES_AN_ANSWER = re.compile(r"(?i)\\boxed|####|\banswers?\b[ *]*(?:is|are|=|:)")
_CONTINUES = re.compile(r"(?im)^[ #*]*(?:question|problem|exercise|example|user|human|q)\b[ \d.*]*:|<\|im_start\|>")


def answers_question(sample: Sample, marker: AnswerMarker, prefix: str = "") -> bool:
    """Whether a response answers, by rule: it states an answer, ends by itself and continues with no other question."""
    if sample.truncated or sample.skipped or _CONTINUES.search(sample.text):
        return False
    return extract_answer(prefix + sample.text, marker).answer is not None or bool(
        _STATES_AN_ANSWER.search(sample.text)
    )


def base_model_metrics(
    samples: Sequence[Sample], answers: Sequence[bool], group_sizes: Sequence[int]
) -> dict[str, float]:
    """The metrics of `measure`, and these shares of all responses (unless noted otherwise):

    - `answering`: those that answer the question, as given by `answers`
    - `mixed@G`: the expected share of groups of G with right and wrong responses, the only ones that give GRPO a
      gradient; a lower bound if G is above the number of samples per problem
    - `reflecting`: those with a self-correction; `reflecting_problems`: the share of problems with such a response;
      `avg_reflecting` and `avg_plain`: the share of right ones among responses with and without
    - `mixed_languages`
    """
    metrics = measure(samples, same_answer=None)
    right = right_by_problem(samples)
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


def trainable_share(metrics: Mapping[str, float], group_sizes: Sequence[int]) -> str:
    """How many prompts give a gradient, in words: `31% of the prompts would teach at G=8; with G=16, 62%`.

    For groups larger than the number of samples only a lower bound is known.
    """
    n = metrics["num_samples"] / metrics["num_problems"]
    shares = [("at least " if size > n else "") + f"{metrics[f'mixed@{size}']:.0%}" for size in group_sizes]
    others = "".join(f"; with G={size}, {share}" for size, share in zip(group_sizes[1:], shares[1:], strict=True))
    return f"{shares[0]} of the prompts would teach at G={group_sizes[0]}{others}"


def _share(values: Sequence[float]) -> float:
    return sum(values) / len(values)
