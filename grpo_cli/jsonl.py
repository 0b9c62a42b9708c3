r"""JSON lines as they are on disk: UTF-8 whatever the locale, and a line ends with \n and nowhere else.

U+2028, U+0085 and the form feed, where str.splitlines parts lines too, may stand inside a JSON string.
"""

import json
import math
from collections.abc import Callable, Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from grpo_cli.errors import DataError

Item = TypeVar("Item")
BOM = b"\xef\xbb\xbf"


def read_objects(path: Path, *, drop_unfinished: bool = False) -> Iterator[tuple[int, dict[str, Any]]]:
    """The number, from 1, and the object of each line that is not blank; a byte order mark is skipped.

    `drop_unfinished` leaves out a last line without its end, as a process leaves it that dies while it writes.
    Raises DataError, which names the line, where one is not UTF-8, not JSON or not an object.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if drop_unfinished and not line.endswith(b"\n"):
                    return
                content = line.removeprefix(BOM if number == 1 else b"").rstrip(b" \t\r\n")
                if content:
                    place = f"{path}, line {number}"
                    yield number, as_object(parse_json(content, place), place)
    except OSError as fault:
        raise DataError(f"{path} cannot be read: {fault.strerror}.") from fault


def read_jsonl(
    path: Path, read: Callable[[dict[str, Any]], Item], shape: str, *, drop_unfinished: bool = False
) -> dict[int, Item]:
    """What `read` makes of each object, by the number of its line.

    `read` raises ValueError, TypeError or KeyError for one that it cannot use. Raises DataError as `read_objects` does,
    and for such an object; it ends with `shape`, which says what the file should hold.
    """
    items = {}
    try:
        for number, row in read_objects(path, drop_unfinished=drop_unfinished):
            try:
                items[number] = read(row)
            except (ValueError, TypeError, KeyError) as fault:
                seen = f"there is no {fault}" if isinstance(fault, KeyError) else fault
                raise DataError(f"{path}, line {number}: {seen}.") from fault
    except DataError as fault:
        raise DataError(f"{fault} {shape}") from fault
    return items


def check_unique(path: Path, ids: Mapping[int, Hashable], name: str) -> None:
    """Raise DataError, which names both lines, where two lines have the same id; `name` says of what."""
    first: dict[Hashable, int] = {}
    for number, id in ids.items():
        if (before := first.setdefault(id, number)) != number:
            raise DataError(f"{path}, line {number}: {name} {id!r} is on line {before} already. Remove one of the two.")


def json_text(value: Any, **options: Any) -> str:
    """`value` as JSON, which has no word for nan and infinity: they become null."""
    return json.dumps(_without_nan(value), allow_nan=False, **options)


def with_nan(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of numbers as it was before `json_text`: nan for null."""
    return {name: math.nan if value is None else value for name, value in row.items()}


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def parse_json(content: bytes, place: str) -> Any:
    """The value of one JSON text. Raises DataError, which begins with `place`, for anything else."""
    try:
        return json.loads(content.decode())
    except UnicodeDecodeError as fault:
        seen = f"not UTF-8: {fault.reason} at byte {fault.start + 1}"
    except json.JSONDecodeError as fault:
        line = f"line {fault.lineno}, " if fault.lineno > 1 else ""
        seen = f"not JSON: {fault.msg} at {line}column {fault.colno}"
    except (ValueError, RecursionError) as fault:  # a number of thousands of digits, lists in lists without end
        seen = f"not JSON that can be read: {fault}"
    raise DataError(f"{place} is {seen}. Fix it.")


def as_object(value: Any, place: str) -> dict[str, Any]:
    """`value`, which must be a JSON object. Raises DataError, which begins with `place`, for anything else."""
    if not isinstance(value, dict):
        raise DataError(f"{place}: {json.dumps(value)[:60]} is not a JSON object. Fix it.")
    return value
