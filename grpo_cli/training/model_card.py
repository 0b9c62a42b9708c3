"""The README.md of an exported model: how it was trained, its results, and how to repeat the run."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from grpo_cli.choices import DType
from grpo_cli.config.compose import EXPORTED, flat_settings
from grpo_cli.config.examples import typed_mix
from grpo_cli.config.train import TrainConfig
from grpo_cli.evaluation.cards import card_text, fact_table, markdown_table, prompt_section
from grpo_cli.evaluation.provenance import versions
from grpo_cli.reward.terms import typed_terms

SETTINGS = EXPORTED


def model_card(command: str, trained: Any, step: int, evaluations: Iterable[Mapping[str, Any]], dtype: DType) -> str:
    """The model's README.md, as the Hub shows it; `trained` holds the settings of the run of `command`."""
    model, optimizer, lora = trained.model, trained.optimizer, trained.model.lora
    kind = KINDS[command]
    from_hub = trained.data.path is None and _is_hub_id(trained.data.source)
    metadata = ModelCardData(
        library_name="transformers",
        pipeline_tag=kind.pipeline_tag,
        tags=["r1zero", *kind.tags],
        base_model=model.path if _is_hub_id(model.path) else None,
        datasets=[trained.data.source] if from_hub else None,
    )
    revision = f", revision {model.revision}" if model.revision else ""
    facts = {
        "base model": f"{_shown(model.path)}{revision}",
        "data": _data(trained.data),
        **kind.facts(trained, step),
        "optimizer": f"AdamW, learning rate {optimizer.lr:g}, {optimizer.schedule.value}",
        "adapters": f"rank {lora.rank}, alpha {lora.alpha:g}, merged into the weights" if lora.rank else "",
        "weights": f"trained in {trained.cluster.dtype.value}, written in {dtype.value}",
        "written by": ", ".join(f"{name} {versions()[name]}" for name in ("r1zero", "transformers", "torch")),
    }
    sections = [
        f"# {model.name}, trained with r1zero",
        f"{_shown(model.path)} after {step} steps of {kind.method}.",
        fact_table(facts),
        *_results(list(evaluations)),
        *kind.sections(trained),
        f"## Repeat the run\n\n`{SETTINGS}` holds every setting of the run. In this folder:",
        f'```\nr1zero {command} --config-path "$PWD" --config-name {Path(SETTINGS).stem} run.dir=again\n```',
    ]
    return card_text(metadata, sections)


def _rl_facts(trained: TrainConfig, step: int) -> dict[str, str]:
    rollout = trained.rollout
    support = f", top_p {rollout.top_p:g}, top_k {rollout.largest_support}" if rollout.largest_support else ""
    return {
        "steps": f"{step} of {trained.steps}, seed {trained.seed}",
        "rollouts": f"{rollout.prompts_per_step} prompts per step, groups of {rollout.group_size}, temperature "
        f"{rollout.temperature:g}{support}, at most {rollout.longest_sequence - rollout.max_prompt_tokens} tokens",
        "reward": ", ".join(f"{name} {term.weight:g}" for name, term in typed_terms(trained.reward.terms).items()),
    }


def _rl_sections(trained: TrainConfig) -> list[str]:
    algorithm = {key: value for key, value in flat_settings(trained.algorithm).items() if value and value != "none"}
    return [
        prompt_section(trained.template),
        "## Algorithm\n\nSettings that are 0, empty or not set are left out.",
        fact_table({key: str(value) for key, value in algorithm.items()}, "algorithm."),
    ]


def _supervised_facts(trained: Any, step: int) -> dict[str, str]:
    mix = typed_mix(getattr(trained.data, "mix", {}))
    return {
        "mixed with": ", ".join(f"{_data(source)} (weight {source.weight:g})" for source in mix.values()),
        "steps": f"{step}, {trained.epochs:g} epochs in batches of {trained.batch_size}, seed {trained.seed}",
    }


@dataclass(frozen=True)
class Kind:
    """What the cards of one command's models say."""

    method: str
    pipeline_tag: str  # the Hub's name for the task
    tags: tuple[str, ...]
    facts: Callable[[Any, int], dict[str, str]]  # from the settings and the step
    sections: Callable[[Any], list[str]]  # from the settings


KINDS = {
    "train": Kind(
        "reinforcement learning with verifiable rewards",
        "text-generation",
        ("reinforcement-learning", "reasoning"),
        _rl_facts,
        _rl_sections,
    ),
    "sft": Kind(
        "supervised fine-tuning on demonstrations",
        "text-generation",
        ("sft", "reasoning"),
        _supervised_facts,
        lambda trained: [prompt_section(trained.template)],
    ),
    "reward-model": Kind(
        "training on preferences between two responses",
        "text-classification",
        ("reward-model",),
        _supervised_facts,
        lambda trained: [],
    ),
}


def _data(data: Any) -> str:
    if data.path is not None:
        return f"the file {_shown(data.path)}"
    parts = [data.source, data.subset, data.file, f"split {data.split}", data.revision and f"revision {data.revision}"]
    return ", ".join(part for part in parts if part)


def _results(evaluations: Sequence[Mapping[str, Any]]) -> list[str]:
    """A table of accuracies, one column per evaluation."""
    rows = []
    for name in evaluations[-1] if evaluations else ():
        match = re.fullmatch("eval/([^/]+)/(avg|greedy|pair_accuracy)", name)
        if not match:
            continue
        benchmark, metric = match.groups()
        row = {"accuracy": f"{benchmark}, greedy" if metric == "greedy" else benchmark}
        for evaluation in evaluations:
            heading = f"after {evaluation['step']} steps" if evaluation["step"] else "before"
            row[heading] = f"{evaluation[name]:.3f}" if name in evaluation else ""
        rows.append(row)
    return ["## Results", markdown_table(rows)] if rows else []


def _shown(path: str) -> str:
    """A Hub id or a built-in name unchanged; for a folder or file only its name, without the path."""
    return path if path.startswith("builtin:") or _is_hub_id(path) else Path(path).expanduser().resolve().name


def _is_hub_id(path: str | None) -> bool:
    if path is None or re.fullmatch(r"[\w.-]+/[\w.-]+", path) is None:
        return False
    return not Path(path).expanduser().exists()
