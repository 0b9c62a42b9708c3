"""The final answer that a response states, by the marker that its template asks for.

Every scan is linear in the text: no regular expression here can backtrack. What is strict here is strict because
the policy learns whatever is let through: a second answer block, an answer inside the reasoning, a box left open
all mean that no answer was given.
"""

import itertools
import re
from dataclasses import dataclass

from grpo_cli.choices import AnswerMarker
from grpo_cli.grading.latex import Box, boxes_in

WHITESPACE = " \t\n\r\f\v"


@dataclass(frozen=True, slots=True)
class Extraction:
    """The stated answer, or None and why there is none."""

    answer: str | None
    reason: str = ""


def extract_answer(text: str, marker: AnswerMarker) -> Extraction:
    """The answer in `text`, a whole response together with what its template put before it."""
    match marker:
        case AnswerMarker.answer_tag:
            return answer_block(text)
        case AnswerMarker.boxed:
            return last_box(text)
        case AnswerMarker.text:
            return stated_answer(text)


def answer_block(text: str) -> Extraction:
    """What stands in the one `<answer>` block, which lies outside the thinking."""
    if text.count("<answer>") != 1 or text.count("</answer>") != 1:
        return Extraction(None, "not exactly one <answer> block")
    start, end = text.index("<answer>"), text.index("</answer>")
    if end < start:
        return Extraction(None, "</answer> before <answer>")
    if "<think>" in text or "</think>" in text:
        opened, closed = text.rfind("<think>", 0, start), text.rfind("</think>", 0, start)
        closes_later, opens_later = text.find("</think>", start), text.find("<think>", start)
        if closed <= opened:
            return Extraction(None, "<answer> does not follow </think>")
        if closes_later != -1 and not -1 < opens_later < closes_later:
            return Extraction(None, "<answer> inside the thinking")
    return Extraction(text[start + len("<answer>") : end].strip(WHITESPACE))


def last_box(text: str) -> Extraction:
    r"""What stands in the last `\boxed{}` after the thinking, or in the last ones where they are neighbours."""
    reply = _reply(text)
    if reply is None:
        return Extraction(None, "the thinking never ends")
    boxes = boxes_in(reply)
    if boxes is None:
        return Extraction(None, r"\boxed{ is never closed")
    return Extraction(_listed(reply, boxes)) if boxes else Extraction(None, r"no \boxed{}")


def _reply(text: str) -> str | None:
    """What follows the thinking; None where it never ends."""
    if "</think>" in text:
        return text[text.rfind("</think>") + len("</think>") :]
    return None if "<think>" in text else text


_NAME = r"[A-Za-z](?:_\{?\w{1,9}\}?)?[ \t]{0,3}=[ \t]{0,3}\$?"  # of a value: x = \boxed{4} and x = \boxed{5}
_NAMED = re.compile(rf"(?<![\w\\}}^*/+-])({_NAME})$")
_JOINT = re.compile(rf"(?:[ \t\n\r,;.$]|\\[()\[\]]|\\q?quad|\\text\{{|\}}|\b(?:and|or)\b)*(?:{_NAME})?")
_MAX_JOINT = 60  # characters


def _last_run(text: str, spans: list[tuple[int, int]]) -> int:
    """How many of the last spans stand beside one another, with at most "and", "or" and punctuation in between."""
    count = 1
    while count < len(spans):
        between = text[spans[-count - 1][1] : spans[-count][0]]
        if len(between) > _MAX_JOINT or not _JOINT.fullmatch(between):
            break
        count += 1
    return count


def _listed(text: str, boxes: list[Box]) -> str:
    """The last box with its neighbours, each with the name before it: they are one answer."""
    run = boxes[-_last_run(text, [(box.start, box.end) for box in boxes]) :]
    answer = run[0].content.strip(WHITESPACE)
    if len(run) == 1:
        return answer
    answer = _name_before(text, run[0].start) + answer
    for before, box in itertools.pairwise(run):
        joint = " or " if re.search(r"\bor\b", text[before.end : box.start]) else ", "
        answer += joint + _name_before(text, box.start) + box.content.strip(WHITESPACE)
    return answer


def _name_before(text: str, end: int) -> str:
    named = _NAMED.search(text[max(0, end - _MAX_JOINT) : end])
    return named[1].rstrip("$") if named else ""


_STATED = re.compile(r"(?i)\banswers?\b[ \t*]*(?:(?:is|are|=|:)[ \t*:]*|(?=\$|\\[(\[]))")
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)|\n|I hope it is correct")
_MAX_SENTENCE = 500  # characters
_CHOICE = re.compile(r"\(?([A-J])\)?(?=[\s.,:;)]|$)")
_NOT_PROSE = re.compile(
    r"\\(?:text|mbox|textbf|mathrm|operatorname|begin|end)\{[^{}]*\}|\\[A-Za-z]+"
    r"|(?<![A-Za-z])(?:and|or)(?![a-z])|\b(?:sqrt|sin|cos|tan|log|ln|exp|pi|percent|pct|percentage)\b"
)
_PROSE = re.compile(r"[^\W\d_]{2,}|[\u0600-\u9fff]")
_EXPRESSION_TOKEN = re.compile(
    r"\$\$?|\\[()\[\]]|\\.|\n|(?<![A-Za-z0-9.,])-?(?:[0-9][0-9,]*(?:\.[0-9]+)?|\.[0-9]+)(?:/[0-9]+)?", re.DOTALL
)
_CLOSES = {"$$": "$$", "$": "$", "\\[": "\\]", "\\(": "\\)"}
_PERCENT = re.compile(r"\s*(?:\\?%|percent|pct)")


def stated_answer(text: str) -> Extraction:
    """The answer in free text.

    That is one answer block; else the last box with its neighbours; else what follows #### or "the answer is"; else
    the text itself where it is a formula; else its last formula or number.
    """
    reply = _reply(text)
    if reply is None:
        return Extraction(None, "the thinking never ends")
    if "<answer>" in reply:
        return answer_block(reply)
    if boxes := boxes_in(reply):
        return Extraction(_listed(reply, boxes))
    if boxes is None:
        return Extraction(None, r"\boxed{ is never closed")
    if "####" in reply:
        return Extraction(reply[reply.rfind("####") + 4 :].strip(WHITESPACE).partition("\n")[0])
    for lead_in in reversed(list(_STATED.finditer(reply))):
        rest = reply[lead_in.end() : lead_in.end() + _MAX_SENTENCE].lstrip(WHITESPACE)
        if answer := _first_sentence_answer(rest):
            return Extraction(answer)
    answer = _last_expression(reply)
    return Extraction(answer, "" if answer else "no formula and no number")


def _first_sentence_answer(text: str) -> str | None:
    if choice := _CHOICE.match(text):
        return choice[1]
    start = 0
    if text.startswith(tuple(_CLOSES)) and (expressions := _expressions(text)):
        start = expressions[0][1]  # a displayed formula may hold line breaks
    return _last_expression(text[:start] + _SENTENCE_END.split(text[start:], maxsplit=1)[0])


def _last_expression(text: str) -> str | None:
    text = text.strip(WHITESPACE)
    if text and not _PROSE.search(_NOT_PROSE.sub("", text)):
        return text
    found = _expressions(text)
    if not found:
        return None
    run = found[-_last_run(text, found) :]
    percent = "%" if _PERCENT.match(text, run[-1][1]) else ""
    return ", ".join(text[start:end] for start, end in run) + percent


def _expressions(text: str) -> list[tuple[int, int]]:
    """Where formulas stand, and numbers outside of them. A dollar sign that opens no formula is a currency's."""
    found: list[tuple[int, int]] = []
    inside: list[tuple[int, int]] = []  # numbers since a delimiter opened
    opened: tuple[str, int] | None = None
    for token in _EXPRESSION_TOKEN.finditer(text):
        symbol = token.group()
        if opened and symbol == _CLOSES[opened[0]]:
            found.append((opened[1], token.end()))
            opened, inside = None, []
        elif symbol in _CLOSES and not opened:
            opened = (symbol, token.start())
        elif symbol == "\n" and opened and opened[0] == "$":
            found += inside
            opened, inside = None, []
        elif symbol[-1].isdigit():
            (inside if opened else found).append(token.span())
    return found + inside
