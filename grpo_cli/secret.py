"""Masks secrets: environment variables with secret names or used in settings, and texts that look like tokens."""

import os
import re
from collections.abc import Callable, Mapping
from typing import Any

SECRET_WORDS = ("TOKEN", "KEY", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL", "CREDENTIALS")  # in variable names
MIN_LENGTH = 8  # of a secret to look for inside a longer text; a shorter one could occur in ordinary words
# Tokens of Hugging Face, OpenAI (and similar), GitHub, GitLab, AWS and Slack; and a password in a URL.
TOKEN = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,}|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,}|glpat-[\w-]{20,}"
    r"|AKIA[A-Z0-9]{16}|xox[abprs]-[\w-]{10,})|(?<=://)[^\s/:@]+:[^\s/@]+(?=@)"
)
_ASSIGNED = re.compile(r"\b(?P<name>\w+)=(?P<value>\"[^\"]*\"|'[^']*'|[^\s;&|]+)")
_HEADER = re.compile(
    r"(?P<name>(?:\bBearer|\bBasic|--(?:token|password|api-key))[ =])(?P<value>[^\s\"']+)", re.IGNORECASE
)
MASK = "<masked>"

_used_in_settings: set[str] = set()  # names of environment variables


def note_variable(name: str) -> None:
    """Treat this environment variable as a secret, whatever its name."""
    _used_in_settings.add(name)


def parts(text: str) -> list[tuple[str, str | None]]:
    """`text` in pieces; with each, the name of the secret variable whose value it is, or None for ordinary text."""
    names = [name for name in os.environ if name in _used_in_settings or _is_secret(name)]
    # Not items(): a thread may remove a variable meanwhile, as W&B does when its service ends.
    values = {value: name for name in names if (value := os.environ.get(name)) is not None}
    if text in values and (values[text] in _used_in_settings or len(text) >= MIN_LENGTH):
        return [(text, values[text])]
    found = sorted((value for value in values if len(value) >= MIN_LENGTH), key=len, reverse=True)
    if not found:
        return [(text, None)]
    pieces = re.split(f"({'|'.join(map(re.escape, found))})", text)  # every second piece is a secret
    return [(piece, values[piece] if place % 2 else None) for place, piece in enumerate(pieces) if piece]


def masked(text: str) -> str:
    """`text` with `<NAME>` in place of secret environment variables, and a mask in place of anything like a token."""
    return TOKEN.sub(MASK, "".join(f"<{name}>" if name else piece for piece, name in parts(text)))


def masked_shell_line(line: str) -> str:
    """A shell line with masks for anything like a token, and for values assigned to variables with secret names."""

    def assignment(found: re.Match) -> str:
        value = found["value"].strip("\"'")
        is_reference = value.startswith("$") or not value
        return found[0] if is_reference or not _is_secret(found["name"]) else f"{found['name']}={MASK}"

    return masked(_HEADER.sub(rf"\g<name>{MASK}", _ASSIGNED.sub(assignment, line)))


def mapped(value: Any, change: Callable[[str], str]) -> Any:
    """Dictionaries and lists with `change` applied to every text in them, except keys."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: mapped(item, change) for key, item in value.items()}
    return [mapped(item, change) for item in value] if isinstance(value, list | tuple) else value


def _is_secret(name: str) -> bool:
    return any(part.endswith(SECRET_WORDS) for part in name.upper().split("_"))
