"""Reads and checks a claim: a YAML file that says what is run and measured, and what would confirm or refute it."""

import inspect
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from omegaconf import MISSING, OmegaConf

from grpo_cli.config.compose import conf_dir
from grpo_cli.config.grammar import escaped
from grpo_cli.config.known import file_faults
from grpo_cli.errors import ConfigError
from grpo_cli.nearest import did_you_mean
from grpo_cli.pipeline.stages import DIR
from grpo_cli.science.statistics import MOMENTS, STATISTICS
from grpo_cli.secret import mapped

SEED = "${seed}"
FOLDER = Path("runs/science")
FEWEST = 8  # confirmation seeds: with fewer, one seed that disagrees already decides the sign test


@dataclass
class Seeds:
    """Which seeds serve what."""

    development: list[int] = MISSING
    """Seeds on which the recipe and the limits were chosen."""
    confirmation: list[int] = MISSING
    """Seeds for the verdict. The recipe and the limits must be fixed before the first of them is run."""


@dataclass
class Limits:
    """What confirms and what refutes. The statistic has one value per seed, above 0 if the claim holds in it."""

    confirmed_from: float = MISSING
    """Confirmed if the median is at least this, and the sign test finds the values above 0."""
    refuted_to: float = MISSING
    """Refuted if the median is at most this, and the sign test finds the values below 0."""
    level: float = 0.05
    """Largest p-value of the exact sign test, which is one-sided."""


@dataclass
class Claim:
    """A claim and the experiment that tests it, fixed before the verdict is known."""

    claim: str = MISSING
    """The claim in one sentence."""
    source: str = MISSING
    """Where it was made."""
    scope: str = MISSING
    """What this experiment covers of the claim, and what it leaves out."""
    runs: dict[str, str] = MISSING
    """The arms: a name and an r1zero command line with ${seed} for each. ${dir}/<arm>_${seed}/model is the model of an
    earlier arm."""
    seeds: Seeds = field(default_factory=Seeds)
    statistic: str = MISSING
    """A function of grpo_cli/science/statistics.py, which gives one value per seed."""
    options: dict[str, Any] = field(default_factory=dict)
    """The arguments of the statistic."""
    limits: Limits = field(default_factory=Limits)
    curves: list[str] = field(default_factory=list)
    """Metrics whose curves are shown, besides those that the statistic needs."""
    at_once: int = 1
    """Runs at the same time, if the machine has so many cores."""
    minutes: float = MISSING
    """Expected minutes for the confirmation seeds on two cores."""
    by_default: bool = True
    """Whether `r1zero science` runs this claim if none is named; the `minutes` of those are an hour at most."""
    name: str = ""
    """The name of the file; it is not written in it."""

    def role(self, seed: int) -> str:
        """What a seed serves: development, confirmation or other."""
        roles = {"development": self.seeds.development, "confirmation": self.seeds.confirmation}
        return next((role for role, seeds in roles.items() if seed in seeds), "other")

    def command(self, arm: str, seed: int) -> str:
        """The command line that repeats one run; it may use the models and data of other arms."""
        return f"r1zero {self.runs[arm].strip()}".replace(SEED, str(seed)).replace(DIR, f"{FOLDER}/{self.name}")

    def faults(self) -> Iterator[str]:
        """What is wrong with the claim, and what to change."""
        for arm, line in self.runs.items():
            if not re.fullmatch(r"[a-z][a-z0-9_]*", arm):
                yield f"runs.{arm}: the name has small letters, digits and _. Rename it."
            if SEED not in line:
                yield f"runs.{arm}: all seeds would run the same command. Add seed={SEED}."
        if self.at_once < 1:
            yield f"at_once={self.at_once}: use 1 or more."
        if not self.runs:
            yield "runs: is empty. Add at least one arm, such as rl: train seed=${seed}."
        confirmation = self.seeds.confirmation
        if both := set(self.seeds.development) & set(confirmation):
            yield (
                f"seeds: {sorted(both)} serve both development and confirmation. A verdict needs seeds that no choice "
                "was made on: replace them in seeds.confirmation."
            )
        if len(set(confirmation)) < FEWEST:
            yield f"seeds.confirmation: {len(set(confirmation))} different seeds are too few. Give at least {FEWEST}."
        yield from self._limit_faults()
        yield from self._statistic_faults()

    def _limit_faults(self) -> Iterator[str]:
        limits = self.limits
        if limits.confirmed_from <= 0 or limits.refuted_to > 0:
            yield (
                f"limits: confirmed_from={limits.confirmed_from:g} must be above 0, and refuted_to="
                f"{limits.refuted_to:g} at most 0, since the sign test compares the values with 0."
            )
        if not 0 < limits.level < 1:
            yield f"limits.level={limits.level:g} is not a p-value. Use 0.05, for example."

    def _statistic_faults(self) -> Iterator[str]:
        if self.statistic not in STATISTICS:
            near = did_you_mean(self.statistic, STATISTICS)
            yield f"statistic={self.statistic}: there is none of that name.{near} Use one of {', '.join(STATISTICS)}."
            return
        try:
            inspect.signature(STATISTICS[self.statistic]).bind({}, **self.options)
        except TypeError as error:
            yield f"options: {error}. See {self.statistic} in grpo_cli/science/statistics.py."
        named = [("pairs", arm) for pair in self.options.get("pairs", []) for arm in pair]
        named += [(key, self.options[key]) for key in ("arm", "first", "second") if key in self.options]
        for key, arm in named:
            if arm not in self.runs:
                yield f"options.{key}={arm}: there is no such arm. Use one of {', '.join(self.runs)}."
        if self.options.get("over", MOMENTS[0]) not in MOMENTS:
            yield f"options.over={self.options['over']}: use one of {', '.join(MOMENTS)}."


def claim_files() -> dict[str, Path]:
    """The claims that are part of r1zero, by name."""
    return {file.stem: file for file in sorted((conf_dir() / "science").glob("*.yaml"))}


def read_claim(name: str) -> Claim:
    """The claim of a file, given by its name in conf/science/ or its path.

    Raises ConfigError if there is no such file, or with all errors in it.
    """
    known = claim_files()
    file = known.get(name, Path(name).expanduser())
    if not file.is_file():
        raise ConfigError(
            f"{name}: there is no such claim or file.{did_you_mean(name, known)} There are: {', '.join(known)}."
        )
    try:
        content: Any = OmegaConf.to_container(OmegaConf.create(file.read_text(encoding="utf-8-sig")))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not YAML: {error}") from error
    _reject(file, [f"{fault} See docs/science.md." for fault in file_faults(content, Claim)])
    merged = OmegaConf.merge(OmegaConf.structured(Claim), mapped(content, escaped), {"name": file.stem})
    _reject(file, [f"{key} must be set. See docs/science.md." for key in sorted(OmegaConf.missing_keys(merged))])
    claim: Any = OmegaConf.to_object(merged)
    _reject(file, claim.faults())
    return claim


def _reject(file: Path, faults: Iterable[str]) -> None:
    """Raise one ConfigError with the faults, a line each, if there are any."""
    if lines := [f"{file}: {fault}" for fault in faults]:
        raise ConfigError("\n".join(lines))
