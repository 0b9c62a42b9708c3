"""The terms a reward is made of, with the options of each.

`reward.terms` is a dictionary from a term's name to its options. A built-in term is known by its name; any other
name needs `function`, the user's own.
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, fields
from enum import StrEnum
from typing import Any

from grpo_cli.choices import CodeScoring, Language, Marker, Sandbox, ScoredPrompts
from grpo_cli.config.bounds import number, number_faults
from grpo_cli.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class TermConfig:
    """What every term has; the sum of weight times value is the reward.

    A term counts from the training step `from_step` to `to_step`, both inclusive; outside of them it is not worked out.
    """

    weight: float = number(1.0)
    from_step: int = number(0, at_least=0)
    to_step: int = number(0, at_least=0)  # 0: no end

    def counts_at(self, step: int | None) -> bool:
        """Whether the term counts at a step; without one, as in an evaluation, only a term that always counts does.

        >>> late = TermConfig(from_step=1301, to_step=1700)
        >>> [late.counts_at(step) for step in (1300, 1301, 1700, 1701, None)]
        [False, True, True, False, False]
        """
        if step is None:
            return not (self.from_step or self.to_step)
        return self.from_step <= step <= (self.to_step or step)


@dataclass(frozen=True, kw_only=True)
class AccuracyTerm(TermConfig):
    """1 for a correct answer, else 0; also 0 for a truncated response."""

    marker: Marker = Marker.template


@dataclass(frozen=True, kw_only=True)
class FormatTerm(TermConfig):
    """1 for one think block and one answer block and nothing else, else 0."""


@dataclass(frozen=True, kw_only=True)
class TagCountTerm(TermConfig):
    """A quarter for each of the four tags that occurs exactly once."""


@dataclass(frozen=True, kw_only=True)
class LanguageTerm(TermConfig):
    """The share of the reasoning's letters that are in the language's script (DeepSeek-R1, stage 2)."""

    language: Language = Language.en


@dataclass(frozen=True, kw_only=True)
class OverlongTerm(TermConfig):
    """0 up to `max_new_tokens - cache_tokens`, then falling to -1 at `max_new_tokens` (DAPO, eq. 13).

    DAPO adds it to an accuracy of +-1: next to one of 0 or 1, a weight of 0.5 means the same.
    """

    cache_tokens: int = number(0, at_least=0)  # 0: a fifth of max_new_tokens, DAPO's 4,096 of 20,480


@dataclass(frozen=True, kw_only=True)
class LengthPenaltyTerm(TermConfig):
    """Minus the response's tokens over `max_new_tokens`."""


@dataclass(frozen=True, kw_only=True)
class CosineLengthTerm(TermConfig):
    """From `short` to `long` along half a cosine of the length; for correct and wrong answers apart (open-r1)."""

    short_correct: float = number(1.0)
    long_correct: float = number(0.5)
    short_wrong: float = number(-1.0)
    long_wrong: float = number(-0.5)


@dataclass(frozen=True, kw_only=True)
class RepetitionTerm(TermConfig):
    """Minus the share of word n-grams that repeat an earlier one (open-r1)."""

    ngram_size: int = number(3, at_least=1)


@dataclass(frozen=True, kw_only=True)
class CodeTerm(TermConfig):
    """How many of the problem's unit tests the response's program passes."""

    scoring: CodeScoring = CodeScoring.all
    sandbox: Sandbox = Sandbox.bwrap
    timeout_s: float = number(10.0, at_least=0.1, at_most=86400)  # for one response, all tests together
    memory_mib: int = number(512, at_least=64, at_most=2**20)


@dataclass(frozen=True, kw_only=True)
class ModelTerm(TermConfig):
    """The score of a reward model: a Hugging Face sequence classifier with one output."""

    path: str  # a hub id or a folder
    on: ScoredPrompts = ScoredPrompts.general
    device: str = "auto"  # or a name of torch's, such as cpu; auto: as cluster.device, there the rank's own GPU
    batch_size: int = number(8, at_least=1)
    max_tokens: int = number(4096, at_least=1)


@dataclass(frozen=True, kw_only=True)
class FunctionTerm(TermConfig):
    """A user's own: a function of (completion, problem) that returns a float.

    With `batch`, of (completions, problems), two lists of those that wait, that returns a list of floats.
    """

    function: str  # my_package.my_module:my_reward
    batch: bool = False


BUILT_IN: dict[str, type[TermConfig]] = {
    "accuracy": AccuracyTerm,
    "format": FormatTerm,
    "tag_count": TagCountTerm,
    "language": LanguageTerm,
    "overlong": OverlongTerm,
    "length_penalty": LengthPenaltyTerm,
    "cosine_length": CosineLengthTerm,
    "repetition": RepetitionTerm,
    "code": CodeTerm,
    "model": ModelTerm,
}


def typed_terms(terms: Mapping[str, Any]) -> dict[str, TermConfig]:
    """Each term's options as its dataclass, in the order given.

    Raises ConfigError with all faults: unknown terms, misspelt or missing options, wrong types and ranges.
    """
    faults: list[str] = []
    typed = {name: _typed_term(name, options, faults) for name, options in terms.items()}
    if faults:
        raise ConfigError("\n".join(faults))
    return typed


def _typed_term(name: str, options: Any, faults: list[str]) -> TermConfig | None:
    key = f"reward.terms.{name}"
    if not isinstance(options, Mapping):
        faults.append(f"{key}={options}: must be a dictionary of options. Set {key}.weight={options}, for example.")
        return None
    kind = FunctionTerm if "function" in options else BUILT_IN.get(name)
    if kind is None:
        known = ", ".join(BUILT_IN)
        faults.append(
            f"{key}: there is no such term.{_nearest(name, BUILT_IN)} Built in are {known}; "
            f"a term of your own needs {key}.function=my_package.my_module:my_reward."
        )
        return None
    if kind is FunctionTerm and name in BUILT_IN:
        faults.append(f"{key}.function: {name} is built in. Give a term of your own another name.")
        return None
    typed_options = {f.name: f for f in fields(kind)}
    for option in options.keys() - typed_options.keys():
        faults.append(
            f"{key}.{option}: there is no such option.{_nearest(option, typed_options)} "
            f"{name} takes {', '.join(typed_options)}."
        )
    values = {}
    for option, expected in typed_options.items():
        if option in options:
            values[option] = _typed_value(f"{key}.{option}", options[option], expected, faults)
        elif expected.default is MISSING:
            faults.append(f"{key}.{option} is not set.")
            return None
    term = kind(**values)
    if term.to_step and (term.from_step or 0) > term.to_step:
        faults.append(
            f"{key}.to_step={term.to_step} is before {key}.from_step={term.from_step}. Set {key}.to_step=0: no end."
        )
    return term


def _typed_value(key: str, value: Any, expected: Field, faults: list[str]) -> Any:
    """`value` in the option's type; None where that is a fault."""
    kind = expected.type
    if issubclass(kind, StrEnum):
        if value in list(kind):
            return kind(value)
        faults.append(f"{key}={value}: must be one of {', '.join(kind)}.{_nearest(str(value), list(kind))}")
        return None
    if kind is float and type(value) is int:
        value = float(str(value))  # inf for one that is too large, where float(value) would raise
    if type(value) is not kind:
        faults.append(f"{key}={value}: must be of type {kind.__name__}, not {type(value).__name__}.")
        return None
    faults += number_faults(key, value, expected)
    return value


def _nearest(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" Did you mean {close[0]}?" if close else ""
