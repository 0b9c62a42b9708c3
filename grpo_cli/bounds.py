"""Bounds of numbers, declared next to their settings, and the check of all settings.

    lr: float = number(1e-6, at_least=0, at_most=1)

No number may be nan or infinite. A group of settings can have rules between its fields: a method `faults(key)` that
yields one sentence for each fault; `key` is the key of the group and ends in a dot.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from typing import Any

from omegaconf import MISSING as NO_DEFAULT


@dataclass(frozen=True)
class Bounds:
    """The range that a finite number must be in."""

    at_least: float = -math.inf
    above: float = -math.inf
    at_most: float = math.inf
    below: float = math.inf
    count: int | None = None  # how many numbers a list must hold
    note: str = ""  # the reason, or what the value at the bound means

    def allow(self, value: float) -> bool:
        # nan fails every comparison. The defaults of `above` and `below` exclude the infinities.
        return self.at_least <= value <= self.at_most and self.above < value < self.below

    def rule(self, value: float) -> str:
        """The rule in words; `value` is the number that breaks it.

        >>> Bounds(above=0, at_most=1).rule(2.0)
        'must be above 0 and at most 1'
        >>> Bounds(at_least=0, note="0: all").rule(math.nan)
        'must be finite and 0 or more (0: all)'
        """
        words = [] if isinstance(value, int) or math.isfinite(value) else ["finite"]
        ends = {"{} or more": self.at_least, "above {}": self.above, "at most {}": self.at_most, "below {}": self.below}
        words += [text.format(end) for text, end in ends.items() if math.isfinite(end)]
        return f"must be {' and '.join(words)}" + (f" ({self.note})" if self.note else "")


def number(default: Any = MISSING, **bounds: Any) -> Any:
    """A dataclass field for a number, or for a list, tuple or dictionary of numbers, each within the bounds."""
    metadata = {"bounds": Bounds(**bounds)}
    if isinstance(default, list | dict):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


def settings_faults(settings: Any, prefix: str = "") -> Iterator[str]:
    """Every fault of a typed configuration: numbers out of bounds, and whatever each group's `faults` method finds.

    `prefix` is the key of the settings themselves and ends in a dot.
    """
    for setting in fields(settings):
        key, value = f"{prefix}{setting.name}", getattr(settings, setting.name)
        if is_dataclass(value):
            yield from settings_faults(value, f"{key}.")
        elif isinstance(value, dict) and any(map(is_dataclass, value.values())):
            for name, entry in value.items():
                yield from settings_faults(entry, f"{key}.{name}.")
        else:
            yield from number_faults(key, value, setting)
    if hasattr(settings, "faults"):
        yield from settings.faults(prefix)


def number_faults(key: str, value: Any, setting: Field) -> Iterator[str]:
    """The fault of a setting's value, if it is or contains a number out of bounds."""
    bounds: Bounds | None = setting.metadata.get("bounds")
    if bounds is None or value is None:
        return
    if bounds.count is not None and len(value) != bounds.count:
        yield f"{key}={override_value(value)}: must be {bounds.count} numbers.{example(key, setting)}"
    elif bad := [number for number in _numbers(value) if not bounds.allow(number)]:
        yield f"{key}={override_value(value)}: {bounds.rule(bad[0])}.{example(key, setting)}"


def _numbers(value: Any) -> list[float]:
    """The numbers in a value; for a dictionary, both its keys and its values."""
    if isinstance(value, Mapping):
        return [*value.keys(), *value.values()]
    return list(value) if isinstance(value, list | tuple) else [value]


def example(key: str, setting: Field) -> str:
    """` Set <key>=<default>, for example.`, or an empty string if the setting has no default."""
    default = setting.default if setting.default_factory is MISSING else setting.default_factory()
    return "" if default in (MISSING, NO_DEFAULT) else f" Set {key}={override_value(default)}, for example."


def override_value(value: Any) -> str:
    """A value as users write it on the command line.

    >>> override_value([0.9, 0.95]), override_value(None), override_value({8200: 65536})
    ('[0.9,0.95]', 'null', '{8200:65536}')
    >>> print(override_value("a line\\n"))
    a line\\n
    """
    if isinstance(value, list | tuple):
        return f"[{','.join(map(override_value, value))}]"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{key}:{item}' for key, item in value.items())}}}"
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else str(value).replace("\n", "\\n")
