"""From the samples of a benchmark to numbers."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from grpo_cli.choices import Language
from grpo_cli.evaluation.majority import majority_at_k
from grpo_cli.evaluation.pass_at_k import pass_at_k
from grpo_cli.evaluation.samples import Sample
from grpo_cli.evaluation.spread import bootstrap_interval, standard_error
from grpo_cli.reward.terms.language import language_consistency
from grpo_cli.types import Verdict

SameAnswer = Callable[[str, str], bool]


def measure(
    samples: Sequence[Sample], same_answer: SameAnswer | None, language: Language | None = None
) -> dict[str, float]:
    """What the samples of one benchmark show; each problem weighs the same in `avg`, `pass@k` and `maj@k`.

    - `avg`: how often a problem is solved, with its standard error `avg_se` and 95 % interval, `avg_low` to `avg_high`,
      over problems
    - `pass@k`, and `maj@k` where `same_answer` says which answers are a vote for the same: k is the powers of two up to
      n, and n, which is the smallest number of samples that a problem has; a vote is among two or more
    - `length`, `length_correct`, `length_wrong`: mean tokens of what was sampled; the last two only where there is any
    - `truncated`, `well_formed`, `unparsable`, `timeout`, `skipped`: shares of all samples. What is skipped counts as
      unparsable, as it is wrong
    - `language`, where one is given: the mean share of a response's letters that are in its script
    - `num_problems`, `num_samples`
    """
    right = list(right_of_each(samples).values())
    rates_P = [c / n for n, c in right]
    low, high = bootstrap_interval(rates_P)
    metrics = {"avg": fmean(rates_P), "avg_se": standard_error(rates_P), "avg_low": low, "avg_high": high}
    ks = _ks(min(n for n, _ in right))
    metrics |= {f"pass@{k}": fmean(pass_at_k(n, c, k) for n, c in right) for k in ks}
    if same_answer and len(ks) > 1:
        polls = _polls(samples, same_answer)
        for k in ks[1:]:
            metrics[f"maj@{k}"] = fmean(majority_at_k(p.counts, p.right, k, p.num_silent) for p in polls)
    metrics |= _lengths(samples) | _shares(samples)
    sampled = [sample for sample in samples if not sample.skipped]
    if language is not None and sampled:
        metrics["language"] = fmean(language_consistency(sample.text, language) for sample in sampled)
    return metrics | {"num_problems": len(right), "num_samples": len(samples)}


def accuracy_curve(samples: Sequence[Sample]) -> list[float]:
    """pass@1 to pass@n, where n is the smallest number of samples that a problem has."""
    right = right_of_each(samples).values()
    return [fmean(pass_at_k(n, c, k) for n, c in right) for k in range(1, 1 + min(n for n, _ in right))]


def right_of_each(samples: Iterable[Sample]) -> dict[str, tuple[int, int]]:
    """By problem, in the order of their first samples: how many samples it has, and how many are right."""
    verdicts: defaultdict[str, list[Verdict]] = defaultdict(list)
    for sample in samples:
        verdicts[sample.id].append(sample.verdict)
    return {id: (len(some), some.count(Verdict.correct)) for id, some in verdicts.items()}


def _ks(n: int) -> list[int]:
    """The powers of two up to n, and n."""
    return sorted({*(1 << power for power in range(n.bit_length())), n})


@dataclass(frozen=True, slots=True)
class _Poll:
    counts: Sequence[int]  # of samples with an answer, answer by answer
    right: Sequence[bool]
    num_silent: int


def _polls(samples: Iterable[Sample], same_answer: SameAnswer) -> list[_Poll]:
    by_problem: defaultdict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        by_problem[sample.id].append(sample)
    return [_poll(some, same_answer) for some in by_problem.values()]


def _poll(samples: Sequence[Sample], same_answer: SameAnswer) -> _Poll:
    """The votes for each answer, whatever the order of the samples.

    Equality of answers is not transitive (5 cm and 5 m both pass for 5), so groups depend on where one starts. Start
    with the most frequent text, between equally frequent ones with the first in code point order. Each answer joins
    the first group whose leader it equals, or leads a new one. A group is right where its leader is.
    """
    voters = [
        (sample.extracted, sample.verdict is Verdict.correct)
        for sample in samples
        if sample.extracted is not None and not sample.truncated and sample.verdict is not Verdict.unparsable
    ]
    num_silent = len(samples) - len(voters)
    if len({is_right for _, is_right in voters}) < 2:
        # Whichever is elected is as right as any other: no answers need be compared, which can be slow.
        return _Poll([len(voters)], [any(is_right for _, is_right in voters)], num_silent)
    times = Counter(answer for answer, _ in voters)
    right_texts = {answer for answer, is_right in voters if is_right}
    leaders: list[str] = []
    group_of: dict[str, str] = {}
    for answer in sorted(times, key=lambda answer: (-times[answer], answer)):
        group_of[answer] = next((leader for leader in leaders if same_answer(leader, answer)), answer)
        if group_of[answer] == answer:
            leaders.append(answer)
    counts = Counter(group_of[answer] for answer, _ in voters)
    return _Poll([counts[leader] for leader in leaders], [leader in right_texts for leader in leaders], num_silent)


def _lengths(samples: Sequence[Sample]) -> dict[str, float]:
    sampled = [sample for sample in samples if not sample.skipped]
    lengths = {
        "length": [sample.num_tokens for sample in sampled] or [0],
        "length_correct": [sample.num_tokens for sample in sampled if sample.verdict is Verdict.correct],
        "length_wrong": [sample.num_tokens for sample in sampled if sample.verdict is not Verdict.correct],
    }
    return {name: fmean(some) for name, some in lengths.items() if some}


def _shares(samples: Sequence[Sample]) -> dict[str, float]:
    return {
        "truncated": fmean(sample.truncated for sample in samples),
        "well_formed": fmean(sample.well_formed for sample in samples),
        "unparsable": fmean(sample.verdict is Verdict.unparsable for sample in samples),
        "timeout": fmean(sample.verdict is Verdict.timeout for sample in samples),
        "skipped": fmean(bool(sample.skipped) for sample in samples),
    }
