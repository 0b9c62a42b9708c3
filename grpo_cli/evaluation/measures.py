"""The metrics of a benchmark, computed from its samples."""

from collections.abc import Mapping, Sequence
from math import comb, sqrt
from statistics import fmean

from grpo_cli.choices import Language
from grpo_cli.evaluation.majority import SameAnswer, count_votes, majority_at_k
from grpo_cli.evaluation.samples import Sample, right_by_problem, samples_by_problem
from grpo_cli.evaluation.spread import bootstrap_interval, standard_error
from grpo_cli.reward.terms.language import language_consistency
from grpo_cli.types import Verdict


def measure(
    samples: Sequence[Sample], same_answer: SameAnswer | None, language: Language | None = None
) -> dict[str, float]:
    """The metrics of one benchmark; every problem has the same weight in `avg`, `pass@k` and `maj@k`.

    - `avg`: the mean share of right samples per problem, with its standard error `avg_se` and 95 % interval `avg_low`
      to `avg_high`, over problems
    - `pass@k`, and from k = 2 `maj@k` if `same_answer` says which answers count as the same vote. k takes the powers of
      two up to n, and n, the smallest number of samples of any problem
    - `length`, `length_correct`, `length_wrong`: mean tokens of the sampled responses; the last two only if there are
      such responses
    - `truncated`, `well_formed`, `unparsable`, `timeout`, `skipped`: shares of all samples. Skipped ones also count as
      unparsable, since they are wrong
    - `language`, if one is given: the mean share of a response's letters that are in its script
    - `num_problems`, `num_samples`
    """
    right = list(right_by_problem(samples).values())
    rates_P = [c / n for n, c in right]
    low, high = bootstrap_interval(rates_P)
    metrics = {"avg": fmean(rates_P), "avg_se": standard_error(rates_P), "avg_low": low, "avg_high": high}
    smallest_n = min(n for n, _ in right)
    ks = sorted({*(1 << power for power in range(smallest_n.bit_length())), smallest_n})
    metrics |= {f"pass@{k}": fmean(pass_at_k(n, c, k) for n, c in right) for k in ks}
    if same_answer and len(ks) > 1:
        votes_P = [count_votes(group, same_answer) for group in samples_by_problem(samples).values()]
        metrics |= {f"maj@{k}": fmean(majority_at_k(votes, k) for votes in votes_P) for k in ks[1:]}
    sampled = [sample for sample in samples if not sample.skipped]
    metrics |= _lengths(sampled) | _shares(samples)
    if language is not None and sampled:
        metrics["language"] = fmean(language_consistency(sample.text, language) for sample in sampled)
    return metrics | {"num_problems": len(right), "num_samples": len(samples)}


def _lengths(sampled: Sequence[Sample]) -> dict[str, float]:
    lengths = {
        "length": [sample.num_tokens for sample in sampled] or [0],
        "length_correct": [sample.num_tokens for sample in sampled if sample.verdict is Verdict.correct],
        "length_wrong": [sample.num_tokens for sample in sampled if sample.verdict is not Verdict.correct],
    }
    return {name: fmean(values) for name, values in lengths.items() if values}


def _shares(samples: Sequence[Sample]) -> dict[str, float]:
    return {
        "truncated": fmean(sample.truncated for sample in samples),
        "well_formed": fmean(sample.well_formed for sample in samples),
        "unparsable": fmean(sample.verdict is Verdict.unparsable for sample in samples),
        "timeout": fmean(sample.verdict is Verdict.timeout for sample in samples),
        "skipped": fmean(bool(sample.skipped) for sample in samples),
    }


def accuracy_curve(samples: Sequence[Sample]) -> list[float]:
    """pass@1 to pass@n, where n is the smallest number of samples of any problem."""
    right = right_by_problem(samples).values()
    return [fmean(pass_at_k(n, c, k) for n, c in right) for k in range(1, 1 + min(n for n, _ in right))]


def macro_average(benchmarks: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of the benchmarks' averages, all with the same weight, and its standard error."""
    return {
        "avg": sum(metrics["avg"] for metrics in benchmarks) / len(benchmarks),
        "avg_se": sqrt(sum(metrics["avg_se"] ** 2 for metrics in benchmarks)) / len(benchmarks),
    }


def pass_at_k(n: int, c: int, k: int) -> float:
    """The probability that at least one of k samples is right, estimated without bias from n samples with c right ones:
    `1 - C(n - c, k) / C(n, k)` (arXiv:2107.03374, eq. 1).

    >>> pass_at_k(n=4, c=1, k=2)
    0.5
    """
    assert 0 <= c <= n
    assert 1 <= k <= n
    # Integers up to the one division: subtracting a number close to 1 from 1 would lose digits.
    return (comb(n, k) - comb(n - c, k)) / comb(n, k)


def mixed_group_share(n: int, c: int, group_size: int) -> float:
    """The probability that a group of G samples has right and wrong ones; GRPO learns nothing from any other group.

    Up to G = n this is unbiased: `1 - C(c, G) / C(n, G) - C(n - c, G) / C(n, G)`. Above, it is `1 - p^G - (1 - p)^G` at
    p = c / n, which is concave in p and therefore a lower bound in expectation (Jensen).

    >>> mixed_group_share(n=4, c=2, group_size=3), mixed_group_share(n=4, c=2, group_size=5)
    (1.0, 0.9375)
    """
    assert 0 <= c <= n
    assert group_size >= 1
    if group_size <= n:
        groups = comb(n, group_size)
        return (groups - comb(c, group_size) - comb(n - c, group_size)) / groups
    return 1 - (c / n) ** group_size - (1 - c / n) ** group_size
