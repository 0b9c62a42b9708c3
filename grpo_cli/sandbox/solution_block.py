"""Which part of a response is the solution, and how it completes the code that its problem began."""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from grpo_cli.grading import answer_block

_FENCE = re.compile(r"([ \t]*)(`{3,}|~{3,})(.*)")
_PYTHON = re.compile(r"[{.\s]*(?:python|py)[\d.]*(?![\w+-])", re.IGNORECASE)
_LONG_QUOTES = re.compile(r'"""|' + "'''")


@dataclass(frozen=True)
class Block:
    """A block between fences. `label` is what stands after the opening one, as in "```python"."""

    label: str
    code: str

    @property
    def is_python(self) -> bool:
        return _PYTHON.match(self.label) is not None


def extract_code(text: str, names: Collection[str] = ()) -> str | None:
    """The solution that a response states in its answer tag, or, where it has none, after its thinking.

    `names` are what the solution has to define. It is the last block between ``` fences that defines them; where
    none does, or nothing is asked for, the last block that is labelled as Python, or else the last without a label.
    In an answer tag without fences, all is code. None where there is no code.
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
            return blocks[max(range(len(blocks)), key=lambda at: (counts[at], at))].code
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


def completions(starter: str, code: str, names: Collection[str]) -> list[str]:
    """The texts that `code` may stand for, the likeliest first; the first that is Python is meant.

    Code that defines what is asked for stands alone, after the starter where that is whole. Other code goes on where
    the starter ends, in the same line or in the next.
    """
    if not starter:
        return [code]
    on_next_line = f"{starter.rstrip()}\n{code}"
    if defines(code, names):
        return [on_next_line, code]
    return [starter + code, on_next_line, code]


def fenced_blocks(text: str) -> Iterator[Block]:
    """The closed blocks of the text in order, as Markdown has them, in a time that is linear in its length.

    A fence may be indented, and the code with it. The closing fence may stand at the end of the last line of code.
    A fence inside a string in triple quotes closes nothing, unless there is no other.
    """
    lines, at = text.split("\n"), 0
    while at < len(lines):
        opening = _FENCE.fullmatch(lines[at])
        at += 1
        if opening is None or "`" in opening[3]:
            continue
        indentation, fence, label = opening.groups()
        end = _closing_line(lines, at, fence)
        if end is None:
            return
        code = lines[at:end]
        if not _is_fence(lines[end], fence):
            code.append(lines[end].rstrip().removesuffix(fence))
        yield Block(label.strip(), "\n".join(_dedented(code, len(indentation))))
        at = end + 1


def _closing_line(lines: list[str], start: int, fence: str) -> int | None:
    """The index of the line that closes the block whose code begins at `start`; None where none does."""
    open_quotes, first_in_quotes = "", None
    for at in range(start, len(lines)):
        line = lines[at]
        for quotes in _LONG_QUOTES.findall(line):
            open_quotes = {"": quotes, quotes: ""}.get(open_quotes, open_quotes)
        if _is_fence(line, fence) or (line.rstrip().endswith(fence) and line.count(fence) == 1):
            if not open_quotes:
                return at
            first_in_quotes = at if first_in_quotes is None else first_in_quotes
    return first_in_quotes


def _is_fence(line: str, fence: str) -> bool:
    return len(line.strip()) >= len(fence) and not line.strip().strip(fence[0])


def _dedented(code: list[str], width: int) -> list[str]:
    """The lines less the indentation of their fence, unless they were not indented with it."""
    first = next((line for line in code if line.strip()), "")
    if first[:width].strip():
        return code
    return [line[min(width, len(line) - len(line.lstrip())) :] for line in code]
