"""Whether a value has the type of its setting, as OmegaConf converts it; otherwise the rule in plain words."""

from collections.abc import Iterator
from dataclasses import Field, fields, is_dataclass, make_dataclass
from enum import EnumType
from types import NoneType, UnionType
from typing import Any, get_args, get_origin

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from grpo_cli.bounds import example, override_value
from grpo_cli.nearest import did_you_mean

WORDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", NoneType: "null"}


def type_faults(key: str, value: Any, hint: Any, setting: Field | None = None) -> Iterator[str]:
    """The fault of a value that cannot become the type `hint`; `setting` gives an example of a right one.

    >>> list(type_faults("steps", "three", int)), list(type_faults("steps", "3", int))
    (['steps=three: must be a whole number.'], [])
    """
    try:
        OmegaConf.structured(make_dataclass("Holder", [("value", hint)])).value = value
    except OverflowError:
        yield f"{key}={override_value(value)[:20]}...: must be finite."
    except OmegaConfBaseException:
        kinds, advice = (hint, *get_args(hint)), ""
        if choices := [name for kind in kinds if isinstance(kind, EnumType) for name in kind.__members__]:
            advice = did_you_mean(str(value), choices)
        elif int in kinds and isinstance(value, float) and value.is_integer():
            advice = f" Set {key}={value:.0f}."
        elif setting is not None:
            advice = example(key, setting)
        yield f"{key}={override_value(value)}: " + (_group_rule(key, hint) or f"must be {_words(hint)}.{advice}")


def _group_rule(key: str, hint: Any) -> str | None:
    kinds = [hint] if get_origin(hint) is dict else [hint, *get_args(hint)]
    group = next((kind for kind in kinds if is_dataclass(kind)), None)
    if group is None:
        return None
    return f"{key} is a group of settings. Set them one by one, as in {key}.{fields(group)[0].name}=..."


def _words(hint: Any) -> str:
    inner = get_args(hint)
    if isinstance(hint, UnionType):
        return " or ".join(_words(kind) for kind in inner)
    if get_origin(hint) is dict:
        return "a dictionary, as in {name:value}"
    if get_origin(hint) in (list, tuple):
        return f"a list in brackets, each item {_words(inner[0])}"
    if isinstance(hint, EnumType):
        return f"one of {', '.join(hint.__members__)}"
    return WORDS.get(hint, "a value")
