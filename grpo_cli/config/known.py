"""The settings of a command by dotted key, the nearest one to a misspelt key, and values of a wrong type."""

import difflib
import fnmatch
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import Field, dataclass, fields, is_dataclass
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from grpo_cli.value_types import type_faults


@dataclass(frozen=True)
class KnownSetting:
    """A setting of a command, as users can name it."""

    key: str  # dotted; `*` stands for any entry of a typed dictionary
    hint: Any  # its type
    kind: Any  # the same without `| None`
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
        kind = get_args(hint)[0] if isinstance(hint, UnionType) else hint
        entry = get_args(kind)[1] if get_origin(kind) is dict else None
        yield KnownSetting(key, hint, kind, field, schema, is_open=entry is not None and not is_dataclass(entry))
        if is_dataclass(kind):
            yield from known_settings(kind, f"{key}.")
        elif is_dataclass(entry):
            yield KnownSetting(f"{key}.*", entry, entry, field, schema)
            yield from known_settings(entry, f"{key}.*.")


def wrong_values(key: str, value: Any, settings: Sequence[KnownSetting]) -> Iterator[str]:
    """The fault of a value that its setting cannot hold; if it is a dictionary of settings, of each one in it."""
    setting = next((setting for setting in settings if setting.matches(key)), None)
    if setting is None:
        yield f"{key}: there is no setting of that name.{nearest(key, [setting.key for setting in settings])}"
        return
    if setting.is_open and setting.key != key:
        return
    if setting.is_open and isinstance(value, Mapping):
        for name, inner in value.items():
            yield from type_faults(f"{key}.{name}", inner, get_args(setting.kind)[1])
        return
    holds_settings = is_dataclass(setting.kind) or (get_origin(setting.kind) is dict and not setting.is_open)
    if holds_settings and isinstance(value, Mapping):
        for name, inner in value.items():
            yield from wrong_values(f"{key}.{name}", inner, settings)
    else:
        yield from type_faults(key, value, setting.hint, setting.field)


def file_faults(values: Any, schema: Any) -> list[str]:
    """Every key in the content of a file that `schema` does not have, and every value of a wrong type."""
    if not isinstance(values, Mapping):
        return ["it must hold settings, one `key: value` per line."]
    settings = list(known_settings(schema))
    return [fault for key, value in values.items() for fault in wrong_values(f"{key}", value, settings)]


def nearest(name: str, known: Collection[str]) -> str:
    """` Did you mean ...?`, or an empty string. A key without its group is found by its last part."""
    last = name.rsplit(".", 1)[-1]
    same_ending = [key for key in known if key.rsplit(".", 1)[-1] == last]
    close = same_ending or difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if not close:
        by_ending = {key.rsplit(".", 1)[-1]: key for key in known}
        close = [by_ending[ending] for ending in difflib.get_close_matches(last, by_ending, n=1, cutoff=0.6)]
    return f" Did you mean {' or '.join(close)}?" if close else ""
