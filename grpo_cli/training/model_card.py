"""The README.md of an exported model: what it is made of, what it can do, and how to repeat it."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from grpo_cli.choices import DType
from grpo_cli.config.compose import EXPORTED, flat_settings
from grpo_cli.config.examples import typed_mix
from grpo_cli.config.train import TrainConfig
from grpo_cli.evaluation.cards import markdown_table, shown_prompt
from grpo_cli.evaluation.provenance import versions
from grpo_cli.reward.terms import typed_terms

SETTINGS = EXPORTED


def model_card(command: str, trained: Any, step: int, evaluations: Iterable[Mapping[str, Any]], dtype: DType) -> str:
    """The model's README.md, as the hub shows it; `trained` holds the settings of the run of `command`."""
    model, optimizer, lora = trained.model, trained.optimizer, trained.model.lora
    kind = KINDS[command]
    sources = {"base_model": model.path} if _is_hub_id(model.path) else {}
    if trained.data.path is None and _is_hub_id(trained.data.source):
        sources["datasets"] = [trained.data.source]
    front = {"library_name": "transformers", "pipeline_tag": kind.task, "tags": ["r1zero", *kind.tags]} | sources
    revision = f", revision {model.revision}" if model.revision else ""
    run = {
        "base model": f"{_shown(model.path)}{revision}",
        "data": _data(trained.data),
        **kind.rows(trained, step),
        "optimizer": f"AdamW, learning rate {optimizer.lr:g}, {optimizer.schedule.value}",
        "adapters": f"rank {lora.rank}, alpha {lora.alpha:g}, merged here" if lora.rank else "",
        "weights": f"trained in {trained.cluster.dtype.value}, written in {dtype.value}",
        "written by": ", ".join(f"{name} {versions()[name]}" for name in ("r1zero", "transformers", "torch")),
    }
    parts = [
        f"---\n{OmegaConf.to_yaml(front)}---",
        f"# {model.name}, trained with r1zero",
        f"{_shown(model.path)} after {step} steps of {kind.method}.",
        markdown_table(("", ""), [row for row in run.items() if row[1]]),
        *_results(list(evaluations)),
        *kind.sections(trained),
        f"## To repeat it\n\n`{SETTINGS}` holds every setting of the run. In this folder:",
        f'```\nr1zero {command} --config-path "$PWD" --config-name {Path(SETTINGS).stem} run.dir=again\n```',
    ]
    return "\n\n".join(parts) + "\n"


def _rl_rows(trained: TrainConfig, step: int) -> dict[str, str]:
    rollout = trained.rollout
    return {
        "steps": f"{step} of {trained.steps}, seed {trained.seed}",
        "rollouts": f"{rollout.prompts_per_step} prompts a step, groups of {rollout.group_size}, temperature "
        f"{rollout.temperature:g}, at most {rollout.longest_sequence - rollout.max_prompt_tokens} tokens",
        "reward": ", ".join(f"{name} {term.weight:g}" for name, term in typed_terms(trained.reward.terms).items()),
    }


def _rl_sections(trained: TrainConfig) -> list[str]:
    algorithm = {key: value for key, value in flat_settings(trained.algorithm).items() if value and value != "none"}
    return [
        f"## Prompt\n\n{shown_prompt(trained.template)}",
        "## Algorithm\n\nWhat is 0, empty or not set is left out.",
        markdown_table(("algorithm.", ""), [(key, str(value)) for key, value in algorithm.items()]),
    ]


def _supervised_rows(trained: Any, step: int) -> dict[str, str]:
    mix = typed_mix(getattr(trained.data, "mix", {}))
    mixed = [f"{_data(other)} (weight {other.weight:g})" for other in mix.values()]
    return {
        "mixed with": ", ".join(mixed),
        "steps": f"{step}, {trained.epochs:g} epochs in batches of {trained.batch_size}, seed {trained.seed}",
    }


@dataclass(frozen=True)
class Kind:
    """What a card says of the models of one command."""

    method: str
    task: str  # the hub's word for it
    tags: tuple[str, ...]
    rows: Callable[[Any, int], dict[str, str]]  # of the table, by settings and step
    sections: Callable[[Any], list[str]]


KINDS = {
    "train": Kind(
        "reinforcement learning on rewards that a program checks",
        "text-generation",
        ("reinforcement-learning", "reasoning"),
        _rl_rows,
        _rl_sections,
    ),
    "sft": Kind(
        "supervised fine-tuning on demonstrations",
        "text-generation",
        ("sft", "reasoning"),
        _supervised_rows,
        lambda trained: [f"## Prompt\n\n{shown_prompt(trained.template)}"],
    ),
    "reward-model": Kind(
        "training on preferences between two responses",
        "text-classification",
        ("reward-model",),
        _supervised_rows,
        lambda trained: [],
    ),
}


def _data(data: Any) -> str:
    if data.path is not None:
        return f"the file {_shown(data.path)}"
    parts = [data.source, data.subset, data.file, f"split {data.split}", data.revision and f"revision {data.revision}"]
    return ", ".join(part for part in parts if part)


def _results(evaluations: list[Mapping[str, Any]]) -> list[str]:
    """The accuracies of each evaluation, a column each."""
    if not evaluations:
        return []
    names = [name for name in evaluations[-1] if re.fullmatch("eval/[^/]+/(avg|greedy|pair_accuracy)", name)]
    rows = []
    for name in names:
        _, benchmark, measure = name.split("/")
        label = f"{benchmark}, greedy" if measure == "greedy" else benchmark
        rows.append((label, *(f"{row[name]:.3f}" if name in row else "" for row in evaluations)))
    header = ("accuracy", *(f"after {row['step']} steps" if row["step"] else "before" for row in evaluations))
    return ["## Results", markdown_table(header, rows)]


def _shown(path: str) -> str:
    """A hub id or a built-in name as it is, of a folder or file its name alone."""
    return path if path.startswith("builtin:") or _is_hub_id(path) else Path(path).expanduser().resolve().name


def _is_hub_id(path: str | None) -> bool:
    is_one = path is not None and re.fullmatch(r"[\w.-]+/[\w.-]+", path) is not None
    return is_one and not Path(path).expanduser().exists()
