"""Signs of reward hacking in the groups of a run: what changed in the responses that the reward does not say."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from grpo_cli.report.kept import Group

ENDS = 0.2  # share of the steps at each end that are compared
NGRAM = 4  # words
REPEATED = 3  # times in one response
MOST = 8  # rows of a table
FREQUENT = 0.01  # share of the last responses; an answer that is rarer says nothing
EXAMPLES = 5
# The kind of an answer: the first pattern that matches all of it.
KINDS = (
    ("whole number", re.compile(r"[-+]?\d+")),
    ("decimal number", re.compile(r"[-+]?\d*\.\d+")),
    ("fraction", re.compile(r"[-+]?\d+\s*/\s*\d+|\\d?frac.*")),
    ("letter", re.compile(r"[A-Za-z]")),
    ("tuple, set or interval", re.compile(r"[(\[{\\].*,.*[)\]}]")),
    ("expression", re.compile(r"[^=]*[-+*/^\\=].*")),
)

Responses = Sequence[tuple[Group, int, Mapping[str, Any]]]  # group, number in it, response


def aids(groups: Sequence[Group]) -> dict[str, Any] | None:
    """What the first and the last steps' training responses are like; None if there are none.

    `shares` holds rows of (name, first, last); `answers` the most frequent answers, `ngrams` the most repeated words
    of the last steps; `kinds` the accuracy by kind of gold answer; `shortest_right` and `longest_wrong` point to
    responses of the last steps.
    """
    training = [group for group in groups if group["split"] == "train"]
    if not training:
        return None
    steps = sorted({group["step"] for group in training})
    size = max(1, round(ENDS * len(steps)))
    first, last = (_responses(training, set(ends)) for ends in (steps[:size], steps[-size:]))
    right = [each for each in last if each[2]["correct"] is True]
    wrong = [each for each in last if each[2]["correct"] is False]
    return {
        "first": [steps[0], steps[size - 1]],
        "last": [steps[-size], steps[-1]],
        "shares": [[name, _share(first, is_so), _share(last, is_so)] for name, is_so in SHARES],
        "answers": _answers(first, last),
        "ngrams": _ngrams(last),
        "kinds": _kinds(first, last),
        "shortest_right": _examples(right, lambda response: response["tokens"]),
        "longest_wrong": _examples(wrong, lambda response: -response["tokens"]),
    }


def _responses(groups: Sequence[Group], steps: set[int]) -> Responses:
    return [
        (group, number, response)
        for group in groups
        if group["step"] in steps
        for number, response in enumerate(group["responses"])
    ]


def _repeats(response: Mapping[str, Any]) -> Counter[str]:
    """The word n-grams that a response repeats, with their counts."""
    words = (response["text"] + response.get("tail", "")).split()
    ngrams = list(zip(*(words[place:] for place in range(NGRAM)), strict=False))
    if len(ngrams) - len(set(ngrams)) < REPEATED - 1:  # none can be repeated so often; counting them is slower
        return Counter()
    return Counter({" ".join(ngram): count for ngram, count in Counter(ngrams).items() if count >= REPEATED})


def _earns_without_answer(response: Mapping[str, Any]) -> bool:
    return response["correct"] is False and (response["reward"] or 0) > 0


SHARES: tuple[tuple[str, Callable[[Mapping[str, Any]], bool]], ...] = (
    ("right", lambda response: response["correct"] is True),
    ("wrong, but with a positive reward (such as for the format)", _earns_without_answer),
    (f"repeats {NGRAM} words {REPEATED} times or more", lambda response: bool(_repeats(response))),
    ("no answer found", lambda response: response["extracted"] is None),
    ("cut at the limit", lambda response: response["truncated"]),
)


def _share(responses: Responses, is_so: Callable[[Mapping[str, Any]], bool]) -> float:
    return sum(is_so(response) for _, _, response in responses) / len(responses)


def _answers(first: Responses, last: Responses) -> list[list[Any]]:
    """(answer, share of the first responses, share of the last, share of these that are right), the most frequent.

    Answers of at most 1 % of the last responses are left out.
    """
    before, after = (Counter(response["extracted"] for _, _, response in ends) for ends in (first, last))
    rows = []
    for answer, count in after.most_common(MOST + 1):
        if answer is not None and count > FREQUENT * len(last):
            right = sum(r["correct"] is True for _, _, r in last if r["extracted"] == answer)
            rows.append([answer[:80], before[answer] / len(first), count / len(last), right / count])
    return rows[:MOST]


def _ngrams(responses: Responses) -> list[list[Any]]:
    """(words, number of responses that repeat them, most repetitions in one)."""
    found: Counter[str] = Counter()
    most: Counter[str] = Counter()
    for _, _, response in responses:
        for ngram, count in _repeats(response).items():
            found[ngram] += 1
            most[ngram] = max(most[ngram], count)
    return [[ngram[:120], count, most[ngram]] for ngram, count in found.most_common(MOST)]


def _kinds(first: Responses, last: Responses) -> list[list[Any]]:
    """(kind of gold answer, accuracy at first, at last, number of responses at last)."""
    by_kind = [_accuracy_by_kind(ends) for ends in (first, last)]
    return [
        [kind, by_kind[0].get(kind, (None, 0))[0], accuracy, num]
        for kind, (accuracy, num) in sorted(by_kind[1].items())
    ]


def _accuracy_by_kind(responses: Responses) -> dict[str, tuple[float, int]]:
    totals: Counter[str] = Counter()
    right: Counter[str] = Counter()
    for group, _, response in responses:
        kind = kind_of(group["answer"])
        totals[kind] += 1
        right[kind] += response["correct"] is True
    return {kind: (right[kind] / num, num) for kind, num in totals.items()}


def kind_of(answer: str) -> str:
    r"""
    >>> [kind_of(answer) for answer in ("-12", "0.5", r"\frac{1}{2}", "(1, 2)", "x+1", "Paris")]
    ['whole number', 'decimal number', 'fraction', 'tuple, set or interval', 'expression', 'text']
    """
    return next((kind for kind, pattern in KINDS if pattern.fullmatch(answer.strip())), "text")


def _examples(responses: Responses, order: Callable[[Mapping[str, Any]], float]) -> list[dict[str, Any]]:
    """The first by this order; equal texts once."""
    different: dict[str, tuple[Group, int, Mapping[str, Any]]] = {}
    for each in sorted(responses, key=lambda each: order(each[2])):
        different.setdefault(each[2]["text"], each)
    return [
        {key: group[key] for key in ("step", "split", "problem")}
        | {"sample": number, "tokens": response["tokens"], "text": response["text"][:200]}
        for group, number, response in list(different.values())[:EXAMPLES]
    ]
