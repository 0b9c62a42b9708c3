"""Rejection sampling: which of many responses are kept, by rule, and which pairs a reward model can learn from."""

import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from grpo_cli.choices import KeepRule, Language
from grpo_cli.config.sampling import SampleConfig
from grpo_cli.evaluation.measures import right_of_each
from grpo_cli.evaluation.samples import Sample
from grpo_cli.reward.terms.language import is_mixed, language_consistency
from grpo_cli.rollout.collect import sample_seed
from grpo_cli.types import Verdict

LANGUAGE_SHARE = 0.95  # of the reasoning's letters, which must be in the language that is asked for
NGRAM_SIZE = 3  # words, by which responses are told alike

_TAG = re.compile(r"</?(?:think|answer)>")  # Latin letters of the template, whatever the response is written in


@dataclass(frozen=True, slots=True)
class Kept:
    """The samples that pass every rule, by problem and number, and how many each rule dropped.

    What breaks several rules is counted for the first of them, in the order of `dropped`.
    """

    samples: list[Sample]
    dropped: Mapping[str, int]


def keep(samples: Iterable[Sample], config: SampleConfig) -> Kept:
    """What passes the rules of each response, is not too like an earlier one that is kept, and has a place."""
    rules = _rules(config)
    kept: list[Sample] = []
    dropped = dict.fromkeys([*rules, "max_similarity", *(["per_problem"] if config.per_problem else [])], 0)
    for some in by_problem(samples).values():
        taken: list[set] = []  # what those that are kept are compared by
        for sample in some:
            parts = {sample.text} if config.max_similarity == 1 else word_ngrams(sample.text)
            broken = next((name for name, holds in rules.items() if not holds(sample)), None)
            if broken is None and any(jaccard(parts, others) >= config.max_similarity for others in taken):
                broken = "max_similarity"
            if broken is None and config.per_problem and len(taken) == config.per_problem:
                broken = "per_problem"
            if broken is None:
                taken.append(parts)
                kept.append(sample)
            else:
                dropped[broken] += 1
    return Kept(kept, dropped)


def by_problem(samples: Iterable[Sample]) -> dict[str, list[Sample]]:
    """The samples of each problem by number, the problems in the order of their first ones."""
    groups: defaultdict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[sample.id].append(sample)
    return {id: sorted(some, key=lambda sample: sample.sample) for id, some in groups.items()}


def _rules(config: SampleConfig) -> dict[str, Callable[[Sample], bool]]:
    """What a response must pass on its own, by the name that its count has."""
    of_name = {
        KeepRule.correct: lambda sample: sample.verdict is Verdict.correct,
        KeepRule.well_formed: lambda sample: sample.well_formed,
        KeepRule.one_language: lambda sample: is_in_one_language(sample.text, config.language),
    }
    rules = {"skipped": lambda sample: not sample.skipped, "truncated": lambda sample: not sample.truncated}
    rules |= {rule.value: of_name[rule] for rule in config.keep}
    if config.min_tokens is not None:
        rules["min_tokens"] = lambda sample: sample.num_tokens >= config.min_tokens
    if config.max_tokens is not None:
        rules["max_tokens"] = lambda sample: sample.num_tokens <= config.max_tokens
    return rules


def is_in_one_language(text: str, language: Language | None) -> bool:
    """Whether a response mixes no scripts of several languages and, where one is given, reasons in that language.

    >>> [is_in_one_language(text, None) for text in ("wait, no", "<think> нет </think>", "wait, нет")]
    [True, True, False]
    >>> is_in_one_language("<think> нет </think>", Language.en)
    False
    """
    if is_mixed(_TAG.sub("", text)):
        return False
    return language is None or language_consistency(text, language) >= LANGUAGE_SHARE


def jaccard(one: set, other: set) -> float:
    """How much of what is in either is in both.

    >>> jaccard(word_ngrams("a b c d"), word_ngrams("a b c e"))
    0.3333333333333333
    """
    return len(one & other) / len(one | other)


def word_ngrams(text: str) -> set[tuple[str, ...]]:
    """The text's word 3-grams; a shorter text is one of its own."""
    words = text.split()
    return {tuple(words[start : start + NGRAM_SIZE]) for start in range(max(1, len(words) - NGRAM_SIZE + 1))}


def draw_pairs(
    samples: Iterable[Sample], kept: Iterable[Sample], per_problem: int, seed: int
) -> list[tuple[Sample, Sample]]:
    """For each problem up to `per_problem` different pairs of a right response that is kept and a wrong one.

    A response whose grading ran out of time may be right, and is in no pair. A problem's draw depends on no other's.
    """
    good = by_problem(sample for sample in kept if sample.verdict is Verdict.correct)
    bad = by_problem(
        sample for sample in samples if sample.verdict in (Verdict.wrong, Verdict.unparsable) and not sample.skipped
    )
    pairs = []
    for id in [id for id in good if id in bad]:
        both = [(chosen, rejected) for chosen in good[id] for rejected in bad[id]]
        pairs += random.Random(sample_seed(seed, "pairs", id)).sample(both, min(per_problem, len(both)))
    return pairs


def by_difficulty(samples: Sequence[Sample], kept: Iterable[Sample]) -> dict[str, dict[str, float]]:
    """How many problems have `none`, `some` or `all` of their samples right, their share, and what of them is kept."""
    classes: dict[str, set[str]] = {"none": set(), "some": set(), "all": set()}
    right = right_of_each(samples)
    for id, (n, c) in right.items():
        classes["none" if c == 0 else "all" if c == n else "some"].add(id)
    kept_ids = [sample.id for sample in kept]
    return {
        name: {"problems": len(ids), "share": len(ids) / len(right), "kept": sum(id in ids for id in kept_ids)}
        for name, ids in classes.items()
    }
