"""Parses answers in words: choices, times, dates, lead-ins such as "the answer is", and plain text."""

import re
from collections.abc import Callable

from grpo_cli.grading.answers import Answer, Choice, Clock, Scalar, TextAnswer
from grpo_cli.grading.latex import FUNCTIONS, Unreadable

# --- choices ---

_CHOICE = re.compile(r"(?:\\text\{)?(?:\(([A-J])\)|([A-J])(?:[).]|:(?=[A-Za-z]{2}|\})))(?:\}|(?=[\w$\\]))(.+)")
_CHOICE_IN_TEXT = re.compile(r"\\text\{(?:\(([A-J])\)|([A-J])[).:]) ?([\w$\\].*)\}")
_CHOICE_ALONE = re.compile(r"[A-J]\)")
_LETTER_AND_WORDS = re.compile(r"([B-HJ]) ((?!A ?$)[A-Za-z]{2}.*)")  # not A and I, which are also words
_LETTER = re.compile(r"\(?([A-Za-z])\)?\.?")
_PREDICATE = re.compile(r"(?i)(?:is|are|was|were|has|can|will|does|seems|appears|looks|works|fails|follows)\b")
_OTHER_LETTER = re.compile(r"(?<![\w\\{])[A-J](?![\w'])")


def parse_choice(text: str, inner: Callable[[str], Answer]) -> Answer | None:
    r"""Returns a choice such as `(C) 12` or `C: Paris`; None if the text is not a choice.

    The article in `A triangle` is not a choice. Raises Unreadable if more than the choice's text follows the letter, as
    in `C is wrong`.
    """
    if match := _CHOICE_IN_TEXT.fullmatch(text) or _CHOICE.fullmatch(text):
        letter, rest = match[1] or match[2], match[3]
        if rest[0] in "^_=<>!,;" or (text[0] == "(" and rest[0] in "([") or _JOINS.match(rest):
            return None
    elif match := _LETTER_AND_WORDS.fullmatch(text):
        letter, rest = match.groups()
        if _JOINS.match(rest):
            return None
    elif len(text) == 2 and _CHOICE_ALONE.fullmatch(text):
        return Scalar(text[0])
    else:
        return None
    words = re.sub(r"\\text\{|\}", " ", rest).strip(" ")
    if _PREDICATE.match(words) or _HEDGED.search(words) or _OTHER_LETTER.search(words.removeprefix("A ")):
        raise Unreadable(f"the choice {letter} is followed by more than its text")
    try:
        return Choice(letter, inner(rest))
    except Unreadable:
        return Choice(letter, TextAnswer(rest))


_JOINS = re.compile(r"(?:\\text\{)? ?(?:and|or)\b", re.IGNORECASE)


# --- times and dates ---

_CLOCK = re.compile(r"(\d{1,2})(?::(\d\d))?(?::(\d\d))? ?(?:([AaPp])\. ?[Mm]\.?|([AaPp])[Mm])?")
_MONTHS = ("january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
           "december")  # fmt: skip
_MONTH = "|".join(month[:3] + f"(?:{month[3:]})?" if len(month) > 3 else month for month in _MONTHS)
_DATES = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"(?P<year>\d{4})-(?P<month>\d{1,2})-(?P<day>\d{1,2})",
        rf"(?P<name>{_MONTH})\.? ?(?P<day>\d{{1,2}})(?:st|nd|rd|th)?(?:,? ?(?P<year>\d{{4}}))?",
        rf"(?P<day>\d{{1,2}})(?:st|nd|rd|th)? ?(?:of )?(?P<name>{_MONTH})\.?(?:,? ?(?P<year>\d{{4}}))?",
        r"(?P<first>\d{1,2})/(?P<second>\d{1,2})/(?P<year>\d{4})",  # day or month first, in the same order as the gold
    )
]
_FONTS = re.compile(r"\\text\{([^{}]*)\}")


def parse_clock(text: str, ratio: Answer | None) -> Clock | None:
    """Returns a time such as 12:30, 4:51:06 or 9 p.m.; None if minutes or seconds are not below 60."""
    match = _CLOCK.fullmatch(_FONTS.sub(r" \1", text).strip(" ").replace("  ", " "))
    if not match or not (match[2] or match[4] or match[5]):
        return None
    hours, minutes, seconds = (int(number or 0) for number in match.groups()[:3])
    am_pm = (match[4] or match[5] or "").lower()
    if minutes > 59 or seconds > 59 or (am_pm and not 0 < hours < 13):
        return None
    if am_pm:  # 12 a.m. is midnight
        hours = hours % 12 + 12 * (am_pm == "p")
    return Clock(hours * 3600 + minutes * 60 + seconds, am_pm, None if am_pm else ratio)


def parse_date(text: str) -> TextAnswer | None:
    """Returns a date in canonical spelling, so that 2024-7-5 is not a difference; None if the text is not a date."""
    text = _FONTS.sub(r"\1", text)
    match = next(filter(None, (pattern.fullmatch(text) for pattern in _DATES)), None)
    if match is None:
        return None
    found = match.groupdict()
    if found.get("first"):
        month, day = int(found["first"]), int(found["second"])
        return TextAnswer(f"date {found['year']} {month} then {day}") if max(month, day) < 32 else None
    month = _MONTHS_BY_START[found["name"][:3].lower()] if found.get("name") else int(found["month"])
    if not 0 < month < 13 or not 0 < int(found["day"]) < 32:
        return None
    return TextAnswer(f"date {found['year'] or ''} {month} {int(found['day'])}")


_MONTHS_BY_START = {month[:3]: number for number, month in enumerate(_MONTHS, 1)}


# --- words ---

_LEAD_IN = re.compile(
    r"\b(?:(?:is|are|be|equals|equal to)\b|[Aa]nswers?\b|\b(?:[Oo]ption|[Cc]hoice)\b(?= ?\(?[A-J]\b)) ?[:=]? ?"
)
_HEDGED = re.compile(
    r"(?i)\b(?:or|and|nor|xor|not|n't|never|neither|either|maybe|perhaps|possibly|probably|likely|but|because|since|if"
    r"|unless|could|may|might|seems?|appears?|should|rather|instead|than|vs|versus|except|wrong|false|incorrect"
    r"|alternatively|guess)\b"
)
_LEADING_TEXT = re.compile(r"\\text\{([^{}]*)\} ?(?=[^ ^_])")
_NEGATIVE = re.compile(r"(?i)(?:\\text\{ ?(?:negative|minus) ?\}|(?:negative|minus) ) ?(?=[\d.\\(])")
_ONLY_TEXT = re.compile(r"\\text\{([^{}]*)\}")
_WORDS = re.compile(r"[^\W\d_][\w' .\-]*")


def strip_lead_in(text: str) -> str:
    """Removes a lead-in: `The largest n is 34` and `Answer: 34` become 34, and `negative 34` becomes -34."""
    sentence = text
    if first := _LEADING_TEXT.match(text):
        sentence = f"{first[1]} {text[first.end() :]}"
    if sentence[:1].isalpha():
        ends = [match.end() for match in _LEAD_IN.finditer(sentence)]
        before = sentence[: ends[-1]] if ends else ""
        # `Either 41 is right or the answer is 42` has no lead-in
        is_plain = not _HEDGED.search(before) and not (len(ends) > 1 and any(char.isdigit() for char in before))
        if ends and ends[-1] < len(sentence) and is_plain:
            text = sentence[ends[-1] :]
    return _NEGATIVE.sub("-", text, count=1) if _NEGATIVE.match(text) else text


def parse_words(text: str, inner: Callable[[str], Answer]) -> Answer | None:
    """Returns an answer in words; None if the text is a formula."""
    if match := _ONLY_TEXT.fullmatch(text):
        if letter := _LETTER.fullmatch(match[1]):
            return Scalar(letter[1])
        if any(char.isdigit() or char in ",;" for char in match[1]):
            return inner(match[1])
        return TextAnswer(match[1])
    if text.lower() in ("inf", "infinity", "-inf", "-infinity"):
        return Scalar("-\\infty" if text[0] == "-" else "\\infty")
    if _WORDS.fullmatch(text):
        words = re.split(r"[ .\-']+", text)
        if any(len(word) > 2 for word in words) and not FUNCTIONS.intersection(words):
            return TextAnswer(text)
    return None
