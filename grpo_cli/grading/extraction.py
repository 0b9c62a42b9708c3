"""Finds the final answer in a response, by the marker that the template asks for.

Every scan takes linear time: no regular expression here can backtrack. The rules are strict because the policy learns
to use every loophole: a response with two answer blocks, with an answer inside the reasoning or with an unclosed box
has no answer.
"""

import itertools
import re
from dataclasses import dataclass

from grpo_cli.choices import AnswerMarker
from grpo_cli.grading.latex import Box, boxes_in

WHITESPACE = " \t\n\r\f\v"


@dataclass(frozen=True, slots=True)
class Extraction:
    """The stated answer, or None and the reason why there is none."""

    answer: str | None
    reason: str = ""


def extract_answer(text: str, marker: AnswerMarker) -> Extraction:
    """Returns the answer in `text`: the text that the template put at the start of the response, then the response."""
    match marker:
        case AnswerMarker.answer_tag:
            return answer_block(text)
        case AnswerMarker.boxed:
            return last_box(text)
        case AnswerMarker.text:
            return stated_answer(text)


def answer_block(text: str) -> Extraction:
    """Returns the content of the `<answer>` block. There must be exactly one, and it must be outside the thinking."""
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
    r"""Returns the content of the last `\boxed{}` after the thinking; adjacent last boxes are joined to one answer."""
    reply = _after_thinking(text)
    if reply is None:
        return Extraction(None, "the thinking never ends")
    boxes = boxes_in(reply)
    if boxes is None:
        return Extraction(None, r"\boxed{ is never closed")
    return Extraction(_join_boxes(reply, boxes)) if boxes else Extraction(None, r"no \boxed{}")


def _after_thinking(text: str) -> str | None:
    """Returns the text after the thinking; None if the thinking never ends."""
    if "</think>" in text:
        return text[text.rfind("</think>") + len("</think>") :]
    return None if "<think>" in text else text


_NAME = r"[A-Za-z](?:_\{?\w{1,9}\}?)?[ \t]{0,3}=[ \t]{0,3}\$?"  # the name before a box: x = \boxed{4} and x = \boxed{5}
_NAMED = re.compile(rf"(?<![\w\\}}^*/+-])({_NAME})$")
_CONNECTOR = re.compile(rf"(?:[ \t\n\r,;.$]|\\[()\[\]]|\\q?quad|\\text\{{|\}}|\b(?:and|or)\b)*(?:{_NAME})?")
_MAX_CONNECTOR = 60  # characters


def _num_adjacent(text: str, spans: list[tuple[int, int]]) -> int:
    """Returns how many of the last spans are adjacent: only "and", "or" and punctuation may separate them."""
    count = 1
    while count < len(spans):
        between = text[spans[-count - 1][1] : spans[-count][0]]
        if len(between) > _MAX_CONNECTOR or not _CONNECTOR.fullmatch(between):
            break
        count += 1
    return count


def _join_boxes(text: str, boxes: list[Box]) -> str:
    """Returns the last box and the boxes adjacent to it as one answer, each with the name before it."""
    adjacent = boxes[-_num_adjacent(text, [(box.start, box.end) for box in boxes]) :]
    answer = adjacent[0].content.strip(WHITESPACE)
    if len(adjacent) == 1:
        return answer
    answer = _name_before(text, adjacent[0].start) + answer
    for before, box in itertools.pairwise(adjacent):
        connector = " or " if re.search(r"\bor\b", text[before.end : box.start]) else ", "
        answer += connector + _name_before(text, box.start) + box.content.strip(WHITESPACE)
    return answer


def _name_before(text: str, end: int) -> str:
    named = _NAMED.search(text[max(0, end - _MAX_CONNECTOR) : end])
    return named[1].rstrip("$") if named else ""


_ANSWER_IS = re.compile(r"(?i)\banswers?\b[ \t*]*(?:(?:is|are|=|:)[ \t*:]*|(?=\$|\\[(\[]))")
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
    """Returns the answer in free text.

    The first of these that exists: the one answer block; the last box with those adjacent to it; the text after #### or
    "the answer is"; the whole text if it is a formula; the last formula or number.
    """
    reply = _after_thinking(text)
    if reply is None:
        return Extraction(None, "the thinking never ends")
    if "<answer>" in reply:
        return answer_block(reply)
    if boxes := boxes_in(reply):
        return Extraction(_join_boxes(reply, boxes))
    if boxes is None:
        return Extraction(None, r"\boxed{ is never closed")
    if "####" in reply:
        return Extraction(reply[reply.rfind("####") + 4 :].strip(WHITESPACE).partition("\n")[0])
    for lead_in in reversed(list(_ANSWER_IS.finditer(reply))):
        rest = reply[lead_in.end() : lead_in.end() + _MAX_SENTENCE].lstrip(WHITESPACE)
        if answer := _first_sentence_answer(rest):
            return Extraction(answer)
    answer = _last_expression(reply)
    return Extraction(answer, "" if answer else "no formula or number")


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
    adjacent = found[-_num_adjacent(text, found) :]
    percent = "%" if _PERCENT.match(text, adjacent[-1][1]) else ""
    return ", ".join(text[start:end] for start, end in adjacent) + percent


def _expressions(text: str) -> list[tuple[int, int]]:
    """Returns the spans of formulas and of numbers outside formulas. An unpaired dollar sign is a currency sign."""
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
