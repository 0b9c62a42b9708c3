"""The bounds of a number, declared next to its setting, and the check of all settings.

    lr: float = number(1e-6, at_least=0, at_most=1)

No number may be nan or infinite. A group of settings may have rules between its fields: a method `faults(key)` that
yields a sentence for each fault, where `key` is the group's own key with a dot at its end.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from typing import Any

from omegaconf import MISSING as NO_DEFAULT


@dataclass(frozen=True)
class Bounds:
    """What a finite number must be."""

    at_least: float = -math.inf
    above: float = -math.inf
    at_most: float = math.inf
    below: float = math.inf
    count: int | None = None  # of the numbers in a list
    note: str = ""  # why, or what the bound itself means

    def allow(self, value: float) -> bool:
        # nan is in no interval, and these, open where nothing is declared, leave out the infinities.
        return self.at_least <= value <= self.at_most and self.above < value < self.below

    def rule(self, value: float) -> str:
        """What `value` must be, in words.

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
    """The field of a number, or of a list, tuple or dictionary of them, with the bounds of each."""
    metadata = {"bounds": Bounds(**bounds)}
    if isinstance(default, list | dict):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


def settings_faults(settings: Any, prefix: str = "") -> Iterator[str]:
    """Every fault of a typed configuration: numbers out of bounds, and what the rules of each group (`faults`) find.

    `prefix` is the key of the settings themselves, with a dot at its end.
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
    """The fault of a setting's value, if it is a number that its bounds forbid, or holds one."""
    bounds: Bounds | None = setting.metadata.get("bounds")
    if bounds is None or value is None:
        return
    if bounds.count is not None and len(value) != bounds.count:
        yield f"{key}={written(value)}: must be {bounds.count} numbers.{_advice(key, setting)}"
    elif bad := [some for some in _numbers(value) if not bounds.allow(some)]:
        yield f"{key}={written(value)}: {bounds.rule(bad[0])}.{_advice(key, setting)}"


def _numbers(value: Any) -> list[float]:
    """Those that a value holds; of a dictionary the keys too."""
    if isinstance(value, Mapping):
        return [*value.keys(), *value.values()]
    return list(value) if isinstance(value, list | tuple) else [value]


def _advice(key: str, setting: Field) -> str:
    default = setting.default if setting.default_factory is MISSING else setting.default_factory()
    return "" if default in (MISSING, NO_DEFAULT) else f" Set {key}={written(default)}, for example."


def written(value: Any) -> str:
    """A value as it is written on the command line."""
    if isinstance(value, list | tuple):
        return f"[{','.join(map(written, value))}]"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{key}:{some}' for key, some in value.items())}}}"
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else str(value)
