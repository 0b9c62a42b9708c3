"""The terms of a reward. Each is one class with its options and its value.

`reward.terms` is a dictionary from a term's name to its options. A new class with a `name` in this folder becomes a
built-in term; a term with any other name needs the option `function`.
"""

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, get_type_hints

from omegaconf import OmegaConf

from grpo_cli.bounds import number_faults
from grpo_cli.errors import ConfigError
from grpo_cli.nearest import did_you_mean
from grpo_cli.reward.terms.accuracy import AccuracyTerm
from grpo_cli.reward.terms.background import FunctionTerm, ModelTerm
from grpo_cli.reward.terms.code import CodeTerm
from grpo_cli.reward.terms.term import Response, Term
from grpo_cli.value_types import type_faults

__all__ = ["BUILT_IN", "AccuracyTerm", "CodeTerm", "FunctionTerm", "ModelTerm", "Response", "Term", "typed_terms"]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
BUILT_IN: dict[str, type[Term]] = {kind.name: kind for kind in Term.__subclasses__() if kind.name}


def typed_terms(terms: Mapping[str, Any]) -> dict[str, Term]:
    """Returns each term's options as an object of its class, in the given order.

    Raises ConfigError with all faults: unknown terms, misspelled or missing options, wrong types, values out of range.
    """
    faults: list[str] = []
    typed = {name: _typed_term(name, options, faults) for name, options in terms.items()}
    if faults:
        raise ConfigError("\n".join(faults))
    return {name: term for name, term in typed.items() if term is not None}


def _typed_term(name: str, options: Any, faults: list[str]) -> Term | None:
    key = f"reward.terms.{name}"
    if not isinstance(options, Mapping):
        faults.append(f"{key}={options}: must be a dictionary of options. Set {key}.weight={options}, for example.")
        return None
    kind = FunctionTerm if "function" in options else BUILT_IN.get(name)
    if kind is None:
        faults.append(
            f"{key}: there is no such term.{did_you_mean(name, BUILT_IN)} Built-in terms are {', '.join(BUILT_IN)}; "
            f"a term of your own needs {key}.function=my_rewards.py:my_reward."
        )
        return None
    if kind is FunctionTerm and name in BUILT_IN:
        faults.append(f"{key}.function: {name} is a built-in term. Give your own term another name.")
        return None
    num_faults = len(faults)
    known, hints = {field.name: field for field in fields(kind)}, get_type_hints(kind)
    typed = OmegaConf.structured(kind)
    OmegaConf.set_readonly(typed, False)
    for option, value in options.items():
        if option not in known:
            faults.append(
                f"{key}.{option}: there is no such option.{did_you_mean(option, known)} "
                f"{name} takes {', '.join(known)}."
            )
            continue
        if wrong := list(type_faults(f"{key}.{option}", value, hints[option], known[option])):
            faults += wrong
            continue
        typed[option] = value
        faults += number_faults(f"{key}.{option}", typed[option], known[option])
    faults += [f"{key}.{option} is not set." for option in known if OmegaConf.is_missing(typed, option)]
    if len(faults) > num_faults:
        return None
    term: Any = OmegaConf.to_object(typed)
    faults += term.faults(f"{key}.")
    return term
