"""The majority vote among a problem's samples (self-consistency, arXiv:2203.11171), also called cons@k."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import comb

from grpo_cli.choices import Grader
from grpo_cli.evaluation.samples import Sample
from grpo_cli.reward.reward import Reward
from grpo_cli.types import Verdict

SameAnswer = Callable[[str, str], bool]


def answer_equality(grader: str, reward: Reward) -> SameAnswer | None:
    """A function that says whether two answers count as the same vote; None if answers are programs, which cannot be
    compared.
    """
    match grader:
        case Grader.math:
            return lambda one, other: reward.same_answer(one, other)
        case Grader.expression:
            return lambda one, other: one.split() == other.split()
    return None


@dataclass(frozen=True, slots=True)
class Votes:
    """How the samples of one problem voted."""

    counts: Sequence[int]  # votes for each answer
    right: Sequence[bool]  # whether each answer is right
    num_silent: int  # samples without an answer


def count_votes(samples: Sequence[Sample], same_answer: SameAnswer) -> Votes:
    """The votes of one problem's samples, independent of their order.

    Equality of answers is not transitive (5 cm and 5 m both equal 5), so the groups depend on the order of comparison.
    Texts are taken by falling frequency, equally frequent ones in code point order. Each joins the first group whose
    leader it equals, or leads a new group. A group is right if its leader is.
    """
    voters = [
        (sample.extracted, sample.verdict is Verdict.correct)
        for sample in samples
        if sample.extracted is not None and not sample.truncated and sample.verdict is not Verdict.unparsable
    ]
    num_silent = len(samples) - len(voters)
    if len({is_right for _, is_right in voters}) < 2:
        # Every possible winner is equally right, so no answers need comparing, which can be slow.
        return Votes([len(voters)], [any(is_right for _, is_right in voters)], num_silent)
    frequency = Counter(answer for answer, _ in voters)
    right_texts = {answer for answer, is_right in voters if is_right}
    counts: dict[str, int] = {}  # by the leader's text
    for answer in sorted(frequency, key=lambda answer: (-frequency[answer], answer)):
        leader = next((leader for leader in counts if same_answer(leader, answer)), answer)
        counts[leader] = counts.get(leader, 0) + frequency[answer]
    return Votes(list(counts.values()), [leader in right_texts for leader in counts], num_silent)


def majority_at_k(votes: Votes, k: int) -> float:
    """The exact probability that the most frequent answer among k of the n samples is right.

    The k samples are drawn from the n without replacement, in random order. If several answers have the most votes,
    the one seen first wins. Each of the tied answers is equally likely to be seen first, since exchanging two of them
    in an order gives an equally likely order. So a draw with `tied` leading answers, `tied_right` of them right,
    counts as tied_right / tied won draws. If no drawn sample has an answer, the vote is lost.

    >>> majority_at_k(Votes(counts=[2, 1], right=[True, False], num_silent=0), k=2)  # 1 of 3 pairs won, 2 tied
    0.6666666666666666
    """
    n = sum(votes.counts) + votes.num_silent
    assert 1 <= k <= n
    most = max((count for count, is_right in zip(votes.counts, votes.right, strict=True) if is_right), default=0)
    draws_won = sum(_draws_won(votes, n, k, top) for top in range(1, min(most, k) + 1))
    return float(draws_won / comb(n, k))


def _draws_won(votes: Votes, n: int, k: int, top: int) -> Fraction:
    """The number of the C(n, k) draws that a right answer wins with exactly `top` votes; ties count as fractions.

    Only answers with at least `top` samples can have `top` votes. They are added one after the other to a table that
    counts draws by (samples drawn, answers with `top` votes, right answers with `top` votes); an answer with `count`
    samples gets v <= `top` votes in C(count, v) ways. All other samples then fill up the draw to k.
    """
    rivals = [(count, is_right) for count, is_right in zip(votes.counts, votes.right, strict=True) if count >= top]
    num_others = n - sum(count for count, _ in rivals)
    table: Counter[tuple[int, int, int]] = Counter({(0, 0, 0): 1})
    for count, is_right in rivals:
        ways = [comb(count, num_votes) for num_votes in range(top + 1)]
        extended: Counter[tuple[int, int, int]] = Counter()
        for (drawn, tied, tied_right), num_draws in table.items():
            for num_votes in range(min(top, k - drawn) + 1):
                leads = num_votes == top
                key = (drawn + num_votes, tied + leads, tied_right + (leads and is_right))
                extended[key] += num_draws * ways[num_votes]
        table = extended
    shares = (
        num_draws * comb(num_others, k - drawn) * Fraction(tied_right, tied)
        for (drawn, tied, tied_right), num_draws in table.items()
        if tied_right
    )
    return sum(shares, Fraction(0))
