"""The settings of a command by dotted key, and the nearest one to a misspelt key."""

import difflib
import fnmatch
from collections.abc import Collection, Iterator
from dataclasses import Field, dataclass, fields, is_dataclass
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class KnownSetting:
    """A setting of a command, as users can name it."""

    key: str  # dotted; `*` stands for any entry of a typed dictionary
    kind: Any  # its type, without `| None`
    field: Field
    owner: type  # the dataclass that has it
    is_open: bool = False  # whether it is a dictionary with any entries

    def matches(self, name: str) -> bool:
        same_depth = name.count(".") == self.key.count(".")
        return (same_depth and fnmatch.fnmatchcase(name, self.key)) or (
            self.is_open and name.startswith(f"{self.key}.")
        )


def known_settings(schema: Any, prefix: str = "") -> Iterator[KnownSetting]:
    """All settings in a dataclass and the groups below it."""
    hints = get_type_hints(schema)
    for field in fields(schema):
        hint, key = hints[field.name], prefix + field.name
        if isinstance(hint, UnionType):
            hint = get_args(hint)[0]  # the type in `type | None`
        entry = get_args(hint)[1] if get_origin(hint) is dict else None
        yield KnownSetting(key, hint, field, schema, is_open=entry is not None and not is_dataclass(entry))
        if is_dataclass(hint):
            yield from known_settings(hint, f"{key}.")
        elif is_dataclass(entry):
            yield KnownSetting(f"{key}.*", entry, field, schema)
            yield from known_settings(entry, f"{key}.*.")


def nearest(name: str, known: Collection[str]) -> str:
    """` Did you mean ...?`, or an empty string. A key without its group is found by its last part."""
    last = name.rsplit(".", 1)[-1]
    same_ending = [key for key in known if key.rsplit(".", 1)[-1] == last]
    close = same_ending or difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if not close:
        by_ending = {key.rsplit(".", 1)[-1]: key for key in known}
        close = [by_ending[ending] for ending in difflib.get_close_matches(last, by_ending, n=1, cutoff=0.6)]
    return f" Did you mean {' or '.join(close)}?" if close else ""
