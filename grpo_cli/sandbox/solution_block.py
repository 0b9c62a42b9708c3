"""Finds the solution in a response and combines it with the starter code of its problem."""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from grpo_cli.grading import answer_block

_FENCE = re.compile(r"([ \t]*)(`{3,}|~{3,})(.*)")
_PYTHON = re.compile(r"[{.\s]*(?:python|py)[\d.]*(?![\w+-])", re.IGNORECASE)
_LONG_QUOTES = re.compile(r'"""|' + "'''")


@dataclass(frozen=True)
class Block:
    """A code block between fences. `label` is the text after the opening fence, such as "python"."""

    label: str
    code: str

    @property
    def is_python(self) -> bool:
        return _PYTHON.match(self.label) is not None


def extract_code(text: str, names: Collection[str] = ()) -> str | None:
    """Returns the solution in a response's answer tag, or after its thinking if it has no such tag; None if none.

    The solution is the last block between ``` fences that defines `names`. If no block does or `names` is empty, it is
    the last block labelled as Python, or otherwise the last without a label. An answer tag without fences contains
    only code.
    """
    if "<answer>" in text:
        answer = answer_block(text).answer
        if not answer or "```" not in answer:
            return answer or None
        return _solution(answer, names)
    if "<think>" in text and "</think>" not in text:
        return None
    return _solution(text.rpartition("</think>")[2], names)


def _solution(text: str, names: Collection[str]) -> str | None:
    blocks = [block for block in fenced_blocks(text) if block.is_python or not block.label]
    for statement in (_DEFINITION, _ASSIGNMENT):
        counts = [_num_defined(block.code, names, statement) for block in blocks]
        if any(counts):
            return blocks[max(range(len(blocks)), key=lambda index: (counts[index], index))].code
    labelled = [block for block in blocks if block.is_python]
    return (labelled or blocks)[-1].code if blocks else None


_DEFINITION = r"^[ \t]*(?:async[ \t]+def|def|class)[ \t]+({})\b"
_ASSIGNMENT = r"^(?:({})[ \t]*(?::[^=\n]*)?=(?!=)|(?:from|import)\b.*\bas[ \t]+({})\b)"


def defines(code: str, names: Collection[str]) -> bool:
    """Whether the code defines one of `names`."""
    return any(_num_defined(code, names, statement) for statement in (_DEFINITION, _ASSIGNMENT))


def _num_defined(code: str, names: Collection[str], statement: str) -> int:
    if not names:
        return 0
    pattern = re.compile(statement.replace("{}", "|".join(map(re.escape, names))), re.MULTILINE)
    return len({name for match in pattern.finditer(code) for name in match.groups() if name})


def candidate_programs(starter: str, code: str, names: Collection[str]) -> list[str]:
    """Returns the programs that `code` may be meant as, most likely first. The first that compiles is to be used.

    Code that defines one of `names` is a program, or follows a complete starter. Other code continues the starter, on
    the same line or on the next.
    """
    if not starter:
        return [code]
    on_next_line = f"{starter.rstrip()}\n{code}"
    if defines(code, names):
        return [on_next_line, code]
    return [starter + code, on_next_line, code]


def fenced_blocks(text: str) -> Iterator[Block]:
    """Yield the closed code blocks of Markdown text, in linear time.

    A fence may be indented together with the code. The closing fence may be at the end of the last line of code. A
    fence inside a triple-quoted string closes the block only if there is no other closing fence.
    """
    lines, start = text.split("\n"), 0
    while start < len(lines):
        opening = _FENCE.fullmatch(lines[start])
        start += 1
        if opening is None or "`" in opening[3]:
            continue
        indentation, fence, label = opening.groups()
        end = _closing_line(lines, start, fence)
        if end is None:
            return
        code = lines[start:end]
        if not _is_fence(lines[end], fence):
            code.append(lines[end].rstrip().removesuffix(fence))
        yield Block(label.strip(), "\n".join(_dedented(code, len(indentation))))
        start = end + 1


def _closing_line(lines: list[str], start: int, fence: str) -> int | None:
    """Returns the index of the line that closes the block whose code begins at `start`; None if none does."""
    open_quotes, first_in_quotes = "", None
    for index in range(start, len(lines)):
        line = lines[index]
        for quotes in _LONG_QUOTES.findall(line):
            open_quotes = {"": quotes, quotes: ""}.get(open_quotes, open_quotes)
        if _is_fence(line, fence) or (line.rstrip().endswith(fence) and line.count(fence) == 1):
            if not open_quotes:
                return index
            first_in_quotes = index if first_in_quotes is None else first_in_quotes
    return first_in_quotes


def _is_fence(line: str, fence: str) -> bool:
    return len(line.strip()) >= len(fence) and not line.strip().strip(fence[0])


def _dedented(code: list[str], width: int) -> list[str]:
    """Returns the lines without the indentation of their fence, if they were indented together with it."""
    first = next((line for line in code if line.strip()), "")
    if first[:width].strip():
        return code
    return [line[min(width, len(line) - len(line.lstrip())) :] for line in code]
