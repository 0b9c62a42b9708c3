"""What must not leave this process: values of the environment that are secret, or that a setting was made of."""

import os
import re
from collections.abc import Callable, Mapping
from typing import Any

SECRET_WORDS = ("TOKEN", "KEY", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL", "CREDENTIALS")  # of a variable's name
MIN_LENGTH = 8  # of a secret inside a longer text: a shorter one would be found in ordinary words
# Of Hugging Face, OpenAI and alike, GitHub, GitLab, AWS and Slack; and a password in an address.
TOKEN = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,}|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,}|glpat-[\w-]{20,}"
    r"|AKIA[A-Z0-9]{16}|xox[abprs]-[\w-]{10,})|(?<=://)[^\s/:@]+:[^\s/@]+(?=@)"
)
_ASSIGNED = re.compile(r"\b(?P<name>\w+)=(?P<value>\"[^\"]*\"|'[^']*'|[^\s;&|]+)")
_HEADER = re.compile(
    r"(?P<name>(?:\bBearer|\bBasic|--(?:token|password|api-key))[ =])(?P<value>[^\s\"']+)", re.IGNORECASE
)
MASK = "<masked>"

_read: set[str] = set()  # the variables that settings of this process were made of


def note_variable(name: str) -> None:
    """Treat the variable of the environment as a secret, whatever its name."""
    _read.add(name)


def parts(text: str) -> list[tuple[str, str | None]]:
    """The pieces of `text` in their order, each with the name of the variable that it is the value of, or None."""
    values = {value: name for name, value in os.environ.items() if name in _read or _is_secret(name)}
    if text in values and (values[text] in _read or len(text) >= MIN_LENGTH):
        return [(text, values[text])]
    found = sorted((value for value in values if len(value) >= MIN_LENGTH), key=len, reverse=True)
    if not found:
        return [(text, None)]
    pieces = re.split(f"({'|'.join(map(re.escape, found))})", text)  # every second one is a value
    return [(piece, values[piece] if place % 2 else None) for place, piece in enumerate(pieces) if piece]


def masked(text: str) -> str:
    """`text` without secrets: `<NAME>` for those of the environment, and a mask for what looks like a token."""
    return TOKEN.sub(MASK, "".join(f"<{name}>" if name else piece for piece, name in parts(text)))


def masked_shell_line(line: str) -> str:
    """A shell line without what looks like a token, and without what it assigns to a variable with a secret's name."""

    def assignment(found: re.Match) -> str:
        value = found["value"].strip("\"'")
        is_reference = value.startswith("$") or not value
        return found[0] if is_reference or not _is_secret(found["name"]) else f"{found['name']}={MASK}"

    return masked(_HEADER.sub(rf"\g<name>{MASK}", _ASSIGNED.sub(assignment, line)))


def mapped(value: Any, change: Callable[[str], str]) -> Any:
    """Dictionaries and lists with `change` made to every text in them but the keys."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: mapped(item, change) for key, item in value.items()}
    return [mapped(item, change) for item in value] if isinstance(value, list | tuple) else value


def _is_secret(name: str) -> bool:
    return any(part.endswith(SECRET_WORDS) for part in name.upper().split("_"))
