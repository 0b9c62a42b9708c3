"""The rules of rejection sampling: which responses are kept, and which pairs a reward model can learn from."""

import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from grpo_cli.choices import KeepRule, Language
from grpo_cli.config.sampling import SampleConfig
from grpo_cli.evaluation.samples import Sample, right_by_problem, samples_by_problem
from grpo_cli.reward.terms.language import is_mixed, language_consistency
from grpo_cli.rollout.collect import sample_seed
from grpo_cli.types import Verdict

LANGUAGE_SHARE = 0.95  # the smallest share of the letters that must be in the language asked for
NGRAM_SIZE = 3  # in words; responses are compared by their n-grams

_TAG = re.compile(r"</?(?:think|answer)>")  # Latin letters that belong to the template, not to the language


@dataclass(frozen=True, slots=True)
class Kept:
    """The samples that pass every rule, ordered by problem and number, and how many each rule dropped.

    A sample that breaks several rules counts for the first of them, in the order of `dropped`.
    """

    samples: list[Sample]
    dropped: Mapping[str, int]


def keep(samples: Iterable[Sample], config: SampleConfig) -> Kept:
    """The samples that pass the rules for single responses, differ enough from those kept before, and fit in the limit
    per problem.
    """
    rules = _rules(config)
    kept: list[Sample] = []
    dropped = dict.fromkeys([*rules, "max_similarity", *(["per_problem"] if config.per_problem else [])], 0)
    for group in samples_by_problem(samples).values():
        kept_parts: list[set] = []  # of this problem's kept samples, to compare with
        for sample in group:
            parts = {sample.text} if config.max_similarity == 1 else word_ngrams(sample.text)
            broken = next((name for name, passes in rules.items() if not passes(sample)), None)
            if broken is None and any(jaccard(parts, others) >= config.max_similarity for others in kept_parts):
                broken = "max_similarity"
            if broken is None and config.per_problem and len(kept_parts) == config.per_problem:
                broken = "per_problem"
            if broken is None:
                kept_parts.append(parts)
                kept.append(sample)
            else:
                dropped[broken] += 1
    return Kept(kept, dropped)


def _rules(config: SampleConfig) -> dict[str, Callable[[Sample], bool]]:
    """The rules for single responses, by the name under which `dropped` counts them."""
    of_rule = {
        KeepRule.correct: lambda sample: sample.verdict is Verdict.correct,
        KeepRule.well_formed: lambda sample: sample.well_formed,
        KeepRule.one_language: lambda sample: is_in_one_language(sample.text, config.language),
    }
    rules = {"skipped": lambda sample: not sample.skipped, "truncated": lambda sample: not sample.truncated}
    rules |= {rule.value: of_rule[rule] for rule in config.keep}
    if config.min_tokens is not None:
        rules["min_tokens"] = lambda sample: sample.num_tokens >= config.min_tokens
    if config.max_tokens is not None:
        rules["max_tokens"] = lambda sample: sample.num_tokens <= config.max_tokens
    return rules


def is_in_one_language(text: str, language: Language | None) -> bool:
    """Whether a response does not mix scripts of several languages and, if one is given, reasons in that language.

    >>> [is_in_one_language(text, None) for text in ("wait, no", "<think> нет </think>", "wait, нет")]
    [True, True, False]
    >>> is_in_one_language("<think> нет </think>", Language.en)
    False
    """
    if is_mixed(_TAG.sub("", text)):
        return False
    return language is None or language_consistency(text, language) >= LANGUAGE_SHARE


def jaccard(one: set, other: set) -> float:
    """The share of the union of two sets that is in both.

    >>> jaccard(word_ngrams("a b c d"), word_ngrams("a b c e"))
    0.3333333333333333
    """
    return len(one & other) / len(one | other)


def word_ngrams(text: str) -> set[tuple[str, ...]]:
    """The word 3-grams of a text; a text with fewer words counts as one n-gram."""
    words = text.split()
    return {tuple(words[start : start + NGRAM_SIZE]) for start in range(max(1, len(words) - NGRAM_SIZE + 1))}


def draw_pairs(
    samples: Iterable[Sample], kept: Iterable[Sample], per_problem: int, seed: int
) -> list[tuple[Sample, Sample]]:
    """For each problem up to `per_problem` different pairs of a kept right response and a wrong one.

    A response whose grading timed out may be right, so it is in no pair. The pairs of a problem do not depend on other
    problems.
    """
    good = samples_by_problem(sample for sample in kept if sample.verdict is Verdict.correct)
    bad = samples_by_problem(
        sample for sample in samples if sample.verdict in (Verdict.wrong, Verdict.unparsable) and not sample.skipped
    )
    pairs = []
    for id in [id for id in good if id in bad]:
        possible = [(chosen, rejected) for chosen in good[id] for rejected in bad[id]]
        pairs += random.Random(sample_seed(seed, "pairs", id)).sample(possible, min(per_problem, len(possible)))
    return pairs


def by_difficulty(samples: Sequence[Sample], kept: Iterable[Sample]) -> dict[str, dict[str, float]]:
    """The number and share of problems with `none`, `some` or `all` samples right, and how many of their samples are
    kept.
    """
    classes: dict[str, set[str]] = {"none": set(), "some": set(), "all": set()}
    right = right_by_problem(samples)
    for id, (n, c) in right.items():
        classes["none" if c == 0 else "all" if c == n else "some"].add(id)
    kept_ids = [sample.id for sample in kept]
    return {
        name: {"problems": len(ids), "share": len(ids) / len(right), "kept": sum(id in ids for id in kept_ids)}
        for name, ids in classes.items()
    }
