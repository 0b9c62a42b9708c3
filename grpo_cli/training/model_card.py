"""The README.md of an exported model: what it is made of, what it can do, and how to repeat it."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from grpo_cli.config.compose import flat_settings
from grpo_cli.config.reward_terms import typed_terms
from grpo_cli.config.schema import DataConfig, DType, TemplateConfig, TrainConfig
from grpo_cli.evaluation.provenance import versions

SETTINGS = "r1zero_config.yaml"  # those of the run, beside its model


def model_card(trained: TrainConfig, step: int, evaluations: Iterable[Mapping[str, Any]], dtype: DType) -> str:
    """The model's README.md, as the hub shows it."""
    model, rollout, optimizer, lora = trained.model, trained.rollout, trained.optimizer, trained.model.lora
    sources = {"base_model": model.path} if _is_hub_id(model.path) else {}
    if trained.data.path is None and _is_hub_id(trained.data.source):
        sources["datasets"] = [trained.data.source]
    tags = ["r1zero", "reinforcement-learning", "reasoning"]
    front = {"library_name": "transformers", "pipeline_tag": "text-generation", "tags": tags} | sources
    revision = f", revision {model.revision}" if model.revision else ""
    terms = ", ".join(f"{name} {term.weight:g}" for name, term in typed_terms(trained.reward.terms).items())
    run = {
        "base model": f"{_shown(model.path)}{revision}",
        "data": _data(trained.data),
        "steps": f"{step} of {trained.steps}, seed {trained.seed}",
        "rollouts": f"{rollout.prompts_per_step} prompts a step, groups of {rollout.group_size}, temperature "
        f"{rollout.temperature:g}, at most {rollout.longest_sequence - rollout.max_prompt_tokens} tokens",
        "reward": terms,
        "optimizer": f"AdamW, learning rate {optimizer.lr:g}, {optimizer.schedule.value}",
        "adapters": f"rank {lora.rank}, alpha {lora.alpha:g}, merged here" if lora.rank else "",
        "weights": f"trained in {trained.cluster.dtype.value}, written in {dtype.value}",
        "written by": ", ".join(f"{name} {versions()[name]}" for name in ("r1zero", "transformers", "torch")),
    }
    algorithm = {
        key: value
        for key, value in flat_settings(OmegaConf.structured(trained.algorithm)).items()
        if value and value != "none"
    }
    parts = [
        f"---\n{OmegaConf.to_yaml(front)}---",
        f"# {model.name}, trained with r1zero",
        f"{_shown(model.path)} after {step} steps of reinforcement learning on rewards that a program checks.",
        _table(("", ""), [row for row in run.items() if row[1]]),
        *_results(list(evaluations)),
        f"## Prompt\n\n{_prompt(trained.template)}",
        "## Algorithm\n\nWhat is 0, empty or not set is left out.",
        _table(("algorithm.", ""), [(key, str(value)) for key, value in algorithm.items()]),
        f"## To repeat it\n\n`{SETTINGS}` holds every setting of the run. In this folder:",
        f'```\nr1zero train --config-path "$PWD" --config-name {Path(SETTINGS).stem} run.dir=again\n```',
    ]
    return "\n\n".join(parts) + "\n"


def _data(data: DataConfig) -> str:
    if data.path is not None:
        return f"the file {_shown(data.path)}"
    parts = [data.source, data.subset, data.file, f"split {data.split}", data.revision and f"revision {data.revision}"]
    return ", ".join(part for part in parts if part)


def _results(evaluations: list[Mapping[str, Any]]) -> list[str]:
    """The accuracies of each evaluation, a column each."""
    if not evaluations:
        return []
    names = [name for name in evaluations[-1] if re.fullmatch("eval/[^/]+/(avg|greedy)", name)]
    rows = []
    for name in names:
        _, benchmark, measure = name.split("/")
        label = f"{benchmark}, greedy" if measure == "greedy" else benchmark
        rows.append((label, *(f"{row[name]:.3f}" if name in row else "" for row in evaluations)))
    header = ("accuracy", *(f"after {row['step']} steps" if row["step"] else "before" for row in evaluations))
    return ["## Results", _table(header, rows)]


def _prompt(template: TemplateConfig) -> str:
    """The template as it is, and what belongs to it."""
    ticks = "`" * (max([2, *(len(run) for run in re.findall("`+", template.text))]) + 1)
    notes = ["A problem stands in the place of `{problem}`."]
    if template.chat:
        notes.append("It is the user's turn in the tokenizer's chat template.")
    if template.response_prefix:
        notes.append(f"The response begins with `{template.response_prefix}`.")
    if template.stop:
        notes.append(f"It ended at {' or '.join(f'`{stop}`' for stop in template.stop)}.")
    return f"{ticks}\n{template.text}\n{ticks}\n\n{' '.join(notes)}"


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _shown(path: str) -> str:
    """A hub id or a built-in name as it is, of a folder or file its name alone."""
    return path if path.startswith("builtin:") or _is_hub_id(path) else Path(path).expanduser().resolve().name


def _is_hub_id(path: str | None) -> bool:
    is_one = path is not None and re.fullmatch(r"[\w.-]+/[\w.-]+", path) is not None
    return is_one and not Path(path).expanduser().exists()
