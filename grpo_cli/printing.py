"""Safe text for a terminal: the output of a model or a data set cannot move the cursor or change earlier lines."""

import sys
import unicodedata
from functools import cache
from typing import TextIO

# Unicode's marks of text direction, which can make a text look different from what it is.
_DIRECTIONS = {*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x061C}


def printable(text: str) -> str:
    r"""`text` with control characters escaped as in Python; line breaks and tabs stay.

    >>> printable("\x1b[2Jgone\r\n")
    '\\x1b[2Jgone\\r\n'
    """
    return text if text.isprintable() else text.translate(_escapes())


def say(text: object, file: TextIO | None = None) -> None:
    """Print a text to `file`, or to stderr, and flush."""
    print(printable(str(text)), file=file or sys.stderr, flush=True)


@cache
def _escapes() -> dict[int, str]:
    controls = {code for code in range(0xA0) if unicodedata.category(chr(code)) == "Cc" and chr(code) not in "\n\t"}
    return {code: chr(code).encode("unicode_escape").decode() for code in controls | _DIRECTIONS}
