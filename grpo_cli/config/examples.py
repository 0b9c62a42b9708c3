"""`data.*` of the commands that learn from given examples: demonstrations for `sft`, pairs for `reward-model`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from omegaconf import OmegaConf

from grpo_cli.bounds import number, settings_faults
from grpo_cli.config.data import RowsConfig
from grpo_cli.config.known import known_settings, wrong_values
from grpo_cli.errors import ConfigError

NUM_HELDOUT = 64  # unless num_heldout is set or the data set is small


@dataclass
class DemonstrationColumnsConfig:
    """The columns of a data set of demonstrations; a dot goes into a nested column."""

    problem: str = "problem"
    """The problem's text."""
    response: str = "response"
    """The response to learn."""
    messages: str = "messages"
    """A conversation of one question and one reply, for data without the column `problem`."""


@dataclass
class DemonstrationsConfig(RowsConfig):
    """Problems with the responses to learn."""

    columns: DemonstrationColumnsConfig = field(default_factory=DemonstrationColumnsConfig)
    weight: float = number(1.0, above=0)
    """Repeats in an epoch; 0.5 uses a random half of the rows."""

    def faults(self, key: str) -> Iterator[str]:
        if self.path is None and self.source is None:
            yield f"{key}path is not set. Give a file that `r1zero sample` wrote, as in {key}path=traces.jsonl."
        yield from super().faults(key)


@dataclass
class SFTDataConfig(DemonstrationsConfig):
    """The demonstrations of `r1zero sft`."""

    name: str = "demonstrations"
    """The data set's name in tables and plots."""
    mix: dict[str, Any] = field(default_factory=dict)
    """More data sets, each with its own path, columns and weight: data.mix.<name>.path=..."""
    num_heldout: int | None = number(None, at_least=1)
    """Problems kept out of training, on which the loss is measured; if not set, 64, or a tenth of a small data set."""
    max_tokens: int = number(4096, at_least=2)
    """Longest example, prompt and response together, in tokens; longer ones are left out and counted."""

    def faults(self, key: str) -> Iterator[str]:
        yield from super().faults(key)
        try:
            mix = typed_mix(self.mix)
        except ConfigError as error:
            yield str(error)
            return
        for name, other in mix.items():
            yield from settings_faults(other, f"{key}mix.{name}.")


@dataclass
class PreferenceColumnsConfig:
    """The columns of a data set of preferences; a dot goes into a nested column, as in `chosen.1.content`."""

    problem: str = "problem"
    """The problem's text."""
    chosen: str = "chosen"
    """The better response."""
    rejected: str = "rejected"
    """The worse response."""


@dataclass
class PreferencesConfig(RowsConfig):
    """Pairs of responses to a problem, one better than the other."""

    name: str = "preferences"
    """The data set's name in tables and plots."""
    columns: PreferenceColumnsConfig = field(default_factory=PreferenceColumnsConfig)
    num_heldout: int | None = number(None, at_least=1)
    """Problems kept out of training, on whose pairs the accuracy is measured; if not set, 64, or a tenth of a small
    data set."""
    max_tokens: int = number(4096, at_least=2)
    """Longest text, problem and response together, in tokens; longer pairs are left out and counted."""

    def faults(self, key: str) -> Iterator[str]:
        if self.path is None and self.source is None:
            yield f"{key}path is not set. Give a file that `r1zero sample` wrote, as in {key}path=runs/.../pairs.jsonl."
        yield from super().faults(key)


def typed_mix(mix: Mapping[str, Any]) -> dict[str, DemonstrationsConfig]:
    """The data sets of `data.mix`, each with all its settings. Raises ConfigError for an unknown or wrong setting."""
    typed: dict[str, Any] = {}
    for name, options in mix.items():
        key = f"data.mix.{name}"
        if not isinstance(options, Mapping):
            raise ConfigError(f"{key}={options}: is a data set. Give its settings, as in {key}.path=traces.jsonl.")
        known = list(known_settings(DemonstrationsConfig, f"{key}."))
        wrong = (wrong_values(f"{key}.{option}", value, known) for option, value in options.items())
        if faults := [fault for faults in wrong for fault in faults]:
            raise ConfigError("\n".join(faults))
        typed[name] = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(DemonstrationsConfig), options))
    return typed
