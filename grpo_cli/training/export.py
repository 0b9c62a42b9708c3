"""Exports a checkpoint as a model folder for transformers and vLLM: weights, tokenizer, sampling settings, card."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    GenerationConfig,
    PreTrainedModel,
)

from grpo_cli.analysis.report import read_metrics
from grpo_cli.choices import DType
from grpo_cli.config.compose import to_typed
from grpo_cli.config.grammar import escaped
from grpo_cli.config.supervised import SFTTask
from grpo_cli.config.train import TrainConfig
from grpo_cli.errors import CheckpointError, SetupError
from grpo_cli.model import BaseModel, load_base_model
from grpo_cli.runs.frozen import public_settings, read_frozen
from grpo_cli.runs.resume import find_checkpoint, unfit_settings
from grpo_cli.secret import mapped, masked
from grpo_cli.training.checkpoint_files import check_whole
from grpo_cli.training.engine import DTYPES, consolidated_weights
from grpo_cli.training.lora import load_merged
from grpo_cli.training.model_card import SETTINGS, model_card


def model_folder(path: Path) -> Path:
    """The model folder of a checkpoint, or of a run's last checkpoint, for transformers and vLLM.

    It is `model/` in the checkpoint, and is exported there if it does not exist. Raises CheckpointError if there is no
    checkpoint.
    """
    checkpoint = find_checkpoint(path)
    folder = checkpoint / "model"
    if not folder.is_dir():
        export(checkpoint, folder)
    return folder


def export(checkpoint: Path, folder: Path, dtype: DType | None = None) -> None:
    """Write the model of a checkpoint, with adapters merged, to `folder`, which is replaced.

    Works for any ZeRO stage, without a process group and without a GPU. `dtype` is by default the one of training. The
    same checkpoint gives the same bytes. Raises CheckpointError if the checkpoint is damaged.
    """
    check_whole(checkpoint)
    state = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))
    trained = _settings(checkpoint, state["command"])
    dtype = dtype or trained.cluster.dtype
    base = load_base_model(trained.model)
    card = model_card(state["command"], trained, state["step"], _evaluations(checkpoint, state), dtype)
    weights = _weights(checkpoint, trained, base, DTYPES[dtype])
    network = _network(state["command"], base, DTYPES[dtype])
    if network.config.tie_word_embeddings:
        weights.pop("lm_head.weight", None)
    if network.can_generate():
        network.generation_config = _generation_config(base, trained)
    partial = folder.with_name(f"{folder.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        network.save_pretrained(partial, state_dict=weights)
        base.tokenizer.save_pretrained(partial)
        settings = OmegaConf.create(mapped(public_settings(trained), escaped))
        (partial / SETTINGS).write_text(OmegaConf.to_yaml(settings), encoding="utf-8")
        (partial / "README.md").write_text(masked(card), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)  # free the space that it takes
        raise SetupError(
            f"The model of {checkpoint} cannot be written to {folder}: {error}. Free some space, or export it "
            "elsewhere with `r1zero export`."
        ) from error


def _settings(checkpoint: Path, command: str) -> Any:
    file = checkpoint / "config.yaml"
    stored = read_frozen(file)
    try:
        return to_typed(stored, command)
    except OmegaConfBaseException as error:
        raise CheckpointError(
            f"{file} does not fit this version of r1zero:\n{unfit_settings(stored, command, error)}\nExport the "
            "checkpoint with the version that wrote it."
        ) from error


def _network(command: str, base: BaseModel, dtype: torch.dtype) -> PreTrainedModel:
    """The model without its weights."""
    with torch.device("meta"):
        if command == "reward-model":
            config = AutoConfig.from_pretrained(base.folder, num_labels=1, trust_remote_code=False)
            return AutoModelForSequenceClassification.from_config(config, dtype=dtype, trust_remote_code=False)
        config = AutoConfig.from_pretrained(base.folder, trust_remote_code=False)
        return AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)


def _weights(checkpoint: Path, trained: Any, base: BaseModel, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    weights = {name: weight.to(dtype) for name, weight in consolidated_weights(checkpoint / "deepspeed").items()}
    return load_merged(base.folder, weights, trained.model.lora, dtype) if trained.model.lora.rank else weights


def _generation_config(base: BaseModel, trained: TrainConfig | SFTTask) -> GenerationConfig:
    """The settings that responses were sampled with. They end at the tokenizer's and at the base model's end tokens."""
    ids = list(base.end_token_ids)
    if isinstance(trained, TrainConfig):
        temperature, top_p, top_k = trained.rollout.temperature, trained.rollout.top_p, trained.rollout.largest_support
        max_new_tokens = trained.rollout.longest_sequence - trained.rollout.max_prompt_tokens
    else:
        temperature, top_p, top_k = 1.0, 1.0, 0  # the distribution that sft trains
        max_new_tokens = trained.data.max_tokens
    return GenerationConfig(
        do_sample=True,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,  # 0 is all tokens; the default of transformers is the 50 most likely
        max_new_tokens=max_new_tokens,
        eos_token_id=ids[0] if len(ids) == 1 else ids or None,
        pad_token_id=base.tokenizer.pad_token_id,
    )


def _evaluations(checkpoint: Path, state: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of the first and the last evaluation up to the checkpoint; fewer if there were fewer."""
    log = checkpoint.parent.parent / "metrics.jsonl"
    try:
        rows = read_metrics(log) if log.is_file() else []  # a checkpoint may have been moved away from its run
    except ValueError as error:
        raise CheckpointError(
            f"{log} is damaged: {error}. Move it away; the model card will then have no results from before."
        ) from error
    rows = [row for row in rows if row["step"] < state["step"]] + [{"step": state["step"]} | state["metrics"]]
    evaluated = [row for row in rows if any(name.startswith("eval/") for name in row)]
    return [evaluated[0], evaluated[-1]] if len(evaluated) > 1 else evaluated
