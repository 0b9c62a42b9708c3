r"""Read JSON lines: always UTF-8, whatever the locale, and only \n ends a line.

str.splitlines would also split at U+2028, U+0085 and the form feed, which a JSON string may contain.
"""

import gzip
import json
import math
import zlib
from collections.abc import Callable, Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

from grpo_cli.errors import DataError

Item = TypeVar("Item")
BOM = b"\xef\xbb\xbf"


def open_bytes(path: Path) -> BinaryIO:
    """The file's content, decompressed if its name ends in .gz."""
    return cast(BinaryIO, gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


def read_objects(path: Path, *, drop_unfinished: bool = False) -> Iterator[tuple[int, dict[str, Any]]]:
    r"""The line number, from 1, and the object of each line that is not blank. Skips a byte order mark.

    `drop_unfinished` ignores a last line without \n: the process that wrote it died while writing.
    Raises DataError, which names the line, if a line is not UTF-8, not JSON or not an object.
    """
    try:
        with open_bytes(path) as file:
            for number, line in enumerate(file, start=1):
                if drop_unfinished and not line.endswith(b"\n"):
                    return
                content = line.removeprefix(BOM if number == 1 else b"").rstrip(b" \t\r\n")
                if content:
                    place = f"{path}, line {number}"
                    yield number, as_object(parse_json(content, place), place)
    except (OSError, EOFError, zlib.error) as fault:
        raise DataError(f"{path} cannot be read: {getattr(fault, 'strerror', None) or fault}.") from fault


def read_jsonl(
    path: Path, read: Callable[[dict[str, Any]], Item], shape: str, *, drop_unfinished: bool = False
) -> dict[int, Item]:
    """The result of `read` for each object, by line number.

    `read` may raise ValueError, TypeError or KeyError for an object that it cannot use; then this raises DataError, as
    for any fault that `read_objects` finds. The message ends with `shape`, which says what the file should hold.
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
    """Raise DataError, which names both lines, if two lines have the same id. `name` is what the message calls it."""
    first_lines: dict[Hashable, int] = {}
    for number, id in ids.items():
        if (first := first_lines.setdefault(id, number)) != number:
            raise DataError(f"{path}, line {number}: {name} {id!r} is already on line {first}. Remove one of the two.")


def json_text(value: Any, **options: Any) -> str:
    """`value` as JSON. nan and infinity, which JSON does not have, become null."""
    return json.dumps(_without_nan(value), allow_nan=False, **options)


def with_nan(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of numbers with nan in place of null: the reverse of `json_text`."""
    return {name: math.nan if value is None else value for name, value in row.items()}


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def parse_json(content: bytes, place: str) -> Any:
    """The value of one JSON text. Raises DataError, whose message starts with `place`, if it cannot be read."""
    try:
        return json.loads(content.decode())
    except UnicodeDecodeError as fault:
        seen = f"not UTF-8: {fault.reason} at byte {fault.start + 1}"
    except json.JSONDecodeError as fault:
        line = f"line {fault.lineno}, " if fault.lineno > 1 else ""
        seen = f"not JSON: {fault.msg} at {line}column {fault.colno}"
    except (ValueError, RecursionError) as fault:  # a number with thousands of digits, lists nested too deeply
        seen = f"not JSON that can be read: {fault}"
    raise DataError(f"{place} is {seen}. Fix it.")


def as_object(value: Any, place: str) -> dict[str, Any]:
    """`value`, if it is a JSON object. Raises DataError, whose message starts with `place`, if not."""
    if not isinstance(value, dict):
        raise DataError(f"{place}: {json.dumps(value)[:60]} is not a JSON object. Fix it.")
    return value
