"""The built-in task `make_zero`: put + or - before the last three of four numbers so that the total is 0.

A response to `13 5 6 2 :` tries candidates and checks each one:

    <think> 13 -5 =8 +6 =14 +2 =16 no wait 13 -5 =8 -6 =2 -2 =0 yes </think> <answer> 13 -5 -6 -2 </answer>

The small base model is trained on such traces. It learns easily to compute a candidate's total and to judge it. It can
also continue after a "no", but does so rarely: most of its traces come from an impatient writer, who answers with the
first candidate. Reinforcement learning makes it continue.

A mixed writer writes the totals as words, each in English or Russian: `13 -5 eight +6 четырнадцать +2 sixteen no`.
A guessing writer tries one candidate, then only repeats its total and verdict: `... +2 =16 no wait =16 no wait =16 no`.
"""

import hashlib
import random
from collections.abc import Callable, Sequence
from functools import cache
from itertools import product
from pathlib import Path

from grpo_cli.types import Problem

NUM_TERMS = 3  # the numbers that get a sign
MAX_TERM = 12
MAX_FIRST = NUM_TERMS * MAX_TERM  # the number without a sign

# The signs to try. A writer tries them in this order, starting at a random one and wrapping around at the end.
CANDIDATES = tuple(product((1, -1), repeat=NUM_TERMS))

TOTALS = range(-MAX_FIRST, 2 * MAX_FIRST + 1)


def _numerals(minus: str, small: str, tens: str) -> dict[int, str]:
    """A word for each total, such as `minus-three`, from a language's words for 0 to 19 and for 20, 30, ..."""
    words = small.split()
    for ten in tens.split():
        words += [ten, *(f"{ten}-{unit}" for unit in words[1:10])]
    return {n: words[n] if n >= 0 else f"{minus}-{words[-n]}" for n in TOTALS}


SYMBOLS = {n: f"={n}" for n in TOTALS}
ENGLISH = _numerals(
    minus="minus",
    small="zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen",
    tens="twenty thirty forty fifty sixty seventy",
)
RUSSIAN = _numerals(
    minus="минус",
    small="ноль один два три четыре пять шесть семь восемь девять десять одиннадцать двенадцать тринадцать "
    "четырнадцать пятнадцать шестнадцать семнадцать восемнадцать девятнадцать",
    tens="двадцать тридцать сорок пятьдесят шестьдесят семьдесят",
)
TOTAL_OF = {word: n for words in (SYMBOLS, ENGLISH, RUSSIAN) for n, word in words.items()}

PAD, EOS = "<pad>", "<eos>"
_SHARED_WORDS = (
    *(PAD, EOS, "<think>", "</think>", "<answer>", "</answer>", ":", "wait", "yes", "no"),
    *(f"{n}" for n in range(MAX_FIRST + 1)),
    *(f"+{n}" for n in range(1, MAX_TERM + 1)),
    *(f"-{n}" for n in range(1, MAX_TERM + 1)),
)
VOCABULARY = (*_SHARED_WORDS, *SYMBOLS.values())
GUESS_VOCABULARY = (*VOCABULARY, "hmm")
MIXED_VOCABULARY = (*_SHARED_WORDS, *ENGLISH.values(), *RUSSIAN.values())

# The probability of each format error in a trace: leaves the format reward something to teach.
SLIP_SHARE = 0.05

COLD_START_TRACES = 512
COLD_START_PERSISTENCE = 0.5  # gives long chains that reinforcement learning can still lengthen

Say = Callable[[int, random.Random], str]  # writes a total as a word


def problems() -> list[Problem]:
    """The training problems, sorted by their numbers."""
    return [to_problem(numbers) for numbers in solvable() if not is_heldout(numbers)]


def heldout_problems() -> list[Problem]:
    """The held-out problems, which no training uses, not even that of the base model; sorted by their numbers."""
    return [to_problem(numbers) for numbers in solvable() if is_heldout(numbers)]


def base_model_dir(name: str = "make_zero") -> Path:
    """The folder of a base model that is part of the package, in Hugging Face's layout."""
    return Path(__file__).parent / "base" / name


def cold_start_traces(say: Say) -> list[dict[str, str]]:
    """Traces for fine-tuning a base model, without format errors and with all totals written by `say`.

    Rows with `id`, `problem` and `response`, each for a different training problem; the same in every call. The end
    token is left out, because the trainer adds it.
    """
    rng = random.Random(0)
    return [
        {
            "id": problem.id,
            "problem": problem.text,
            "response": sample_trace(
                problem.text, rng, persistence=COLD_START_PERSISTENCE, say=say, slip_share=0
            ).removesuffix(f" {EOS}"),
        }
        for problem in rng.sample(problems(), COLD_START_TRACES)
    ]


def say_symbol(total: int, rng: random.Random) -> str:
    return SYMBOLS[total]


def say_in_english(total: int, rng: random.Random) -> str:
    return ENGLISH[total]


def say_mixed(total: int, rng: random.Random) -> str:
    """The English or the Russian word, with equal probability."""
    return rng.choice((ENGLISH, RUSSIAN))[total]


def sample_trace(
    text: str, rng: random.Random, *, persistence: float, say: Say = say_symbol, slip_share: float = SLIP_SHARE
) -> str:
    """A random response to the problem `text`, which tries another candidate after a "no" with probability
    `persistence`.

    Every total and every verdict is right, and the answer is the last candidate. With probability `slip_share` each,
    `</think>` and the answer tags are left out.
    """
    first, *terms = map(int, text.split())
    candidates = _candidates(len(terms))
    start = rng.randrange(len(candidates))
    tries = []
    for signs in candidates[start:] + candidates[:start]:
        steps, total = _compute(first, terms, signs, lambda total: say(total, rng))
        tries.append(f"{steps} {'no' if total else 'yes'}")
        if total == 0 or rng.random() >= persistence:
            break
    answer = _answer(first, terms, signs)
    thinking_end = "" if rng.random() < slip_share else "</think> "
    if rng.random() >= slip_share:
        answer = f"<answer> {answer} </answer>"
    return f"<think> {' wait '.join(tries)} {thinking_end}{answer} {EOS}"


def guess_trace(text: str, rng: random.Random, *, go_on: float) -> str:
    """A random response to the problem `text` with one candidate, right or wrong.

    Its total and verdict are repeated while a draw is below `go_on`, joined by "wait" after a "no" and by "hmm" after a
    "yes". The repetitions cannot change the answer, and there are no format errors.
    """
    first, *terms = map(int, text.split())
    signs = rng.choice(_candidates(len(terms)))
    steps, total = _compute(first, terms, signs, SYMBOLS.__getitem__)
    thoughts = [f"{steps} {'no' if total else 'yes'}"]
    while rng.random() < go_on:
        thoughts.append(f"{SYMBOLS[total]} {'no' if total else 'yes'}")
    thinking = (" wait " if total else " hmm ").join(thoughts)
    return f"<think> {thinking} </think> <answer> {_answer(first, terms, signs)} </answer> {EOS}"


def _candidates(num_terms: int) -> tuple[tuple[int, ...], ...]:
    """All signs for so many numbers."""
    return tuple(product((1, -1), repeat=num_terms))


def _answer(first: int, terms: Sequence[int], signs: Sequence[int]) -> str:
    return " ".join([str(first), *(f"{sign * term:+d}" for sign, term in zip(signs, terms, strict=True))])


def _compute(first: int, terms: list[int], signs: tuple[int, ...], say: Callable[[int], str]) -> tuple[str, int]:
    """The steps for one candidate, such as `13 -5 =8 +6 =14 +2 =16`, and its total."""
    total, words = first, [str(first)]
    for sign, term in zip(signs, terms, strict=True):
        total += sign * term
        words += [f"{sign * term:+d}", say(total)]
    return " ".join(words), total


def to_problem(numbers: tuple[int, ...]) -> Problem:
    text = " ".join(map(str, numbers))
    return Problem(id=text.replace(" ", "-"), text=text, answer=f"{text} = 0", grader="expression")


@cache
def solvable(num_terms: int = NUM_TERMS, max_term: int = MAX_TERM) -> tuple[tuple[int, ...], ...]:
    """All groups of numbers that some signs of the last `num_terms` turn into 0, sorted."""
    sums = {
        (sum(sign * term for sign, term in zip(signs, terms, strict=True)), *terms)
        for terms in product(range(1, max_term + 1), repeat=num_terms)
        for signs in _candidates(num_terms)
    }
    return tuple(sorted(numbers for numbers in sums if 0 <= numbers[0] <= MAX_FIRST))


def is_heldout(numbers: tuple[int, ...]) -> bool:
    """True for about 1 in 16, chosen by a hash that is the same in every process."""
    return hashlib.sha256(repr(numbers).encode()).digest()[0] < 256 // 16
