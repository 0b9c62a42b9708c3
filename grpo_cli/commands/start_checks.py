"""What is known before anything is loaded is said before anything is loaded: torch is not imported here."""

import os
from collections.abc import Iterator
from typing import Any

from grpo_cli.choices import Device
from grpo_cli.config.cluster import ClusterConfig
from grpo_cli.config.machine import check_machine
from grpo_cli.config.model import ModelConfig
from grpo_cli.config.reward import RewardConfig
from grpo_cli.config.tracker import check_tracker
from grpo_cli.config.train import TrainConfig
from grpo_cli.data.file_tokenizer import local_tokenizer
from grpo_cli.errors import ConfigError, SetupError
from grpo_cli.hardware import num_gpus
from grpo_cli.model_files import check_model, check_same_tokens
from grpo_cli.reward.functions import load_function
from grpo_cli.reward.terms import FunctionTerm, ModelTerm, typed_terms


def check_start(config: Any, *, loads_model: bool = True) -> None:
    """Raise what would stop the ranks of a command while they load: its machine, tracker, model and reward functions.

    Not `loads_model`: the command neither needs vLLM nor a model.
    """
    check_tracker(config.logger)
    if loads_model:
        check_machine(config.cluster)
        check_gpus(config.cluster)
        templates = list(getattr(config, "templates", {}).values()) or [config.template]
        ask_hub = config.cluster.slurm is None  # the machine that submits may not reach the Hub although the nodes do
        needed_len = config.rollout.longest_sequence if hasattr(config, "rollout") else None
        check_model(config.model, templates, needed_len, ask_hub=ask_hub)
        for key, path, same_tokens in _other_models(config):
            other = ModelConfig(name=key, path=path)
            check_model(other, needed_len=needed_len if same_tokens else None, key=key, ask_hub=ask_hub)
            if same_tokens:
                _check_tokens(key, other, config.model)
    if hasattr(config, "reward"):
        import_functions(config.reward)


def _other_models(config: Any) -> Iterator[tuple[str, str, bool]]:
    """The setting, path or Hub id of a command's other models, and whether they get the token ids of config.model."""
    if isinstance(config, TrainConfig):
        if (teacher := config.algorithm.reference.path) is not None:
            yield "algorithm.reference.path", teacher, True
        if config.critic is not None and config.critic.path is not None:
            yield "critic.path", config.critic.path, True
    if hasattr(config, "reward"):
        for name, term in typed_terms(config.reward.terms).items():
            if isinstance(term, ModelTerm):
                yield f"reward.terms.{name}.path", term.path, False
    if hasattr(config, "analyze") and config.analyze.judge is not None:
        yield "analyze.judge", config.analyze.judge, False


def _check_tokens(key: str, other: ModelConfig, model: ModelConfig) -> None:
    """Raise ConfigError if two models have different tokens; only if both tokenizers are files on this machine."""
    found, needed = local_tokenizer(other), local_tokenizer(model)
    if found and needed:
        check_same_tokens(key, other.path, found.get_vocab(), needed.get_vocab())


def check_gpus(cluster: ClusterConfig) -> None:
    """Raise SetupError if the ranks are to use GPUs of this machine, and it has too few."""
    if cluster.device != Device.cuda or cluster.slurm is not None or (found := num_gpus()) >= cluster.ranks:
        return
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    seen = f" (CUDA_VISIBLE_DEVICES={visible})" if visible is not None else ""
    if not found:
        raise SetupError(
            f"cluster.device=cuda: CUDA finds no GPU on this machine{seen}. `r1zero doctor` says why; to run without a "
            "GPU, install the CPU build and set cluster=cpu."
        )
    raise ConfigError(
        f"cluster.ranks={cluster.ranks}: each rank uses one GPU, and CUDA finds {found} on this machine{seen}. Set "
        f"cluster.ranks={found}, or choose another cluster."
    )


def import_functions(reward: RewardConfig) -> None:
    """Raise ConfigError if a reward function of the user cannot be imported."""
    for name, term in typed_terms(reward.terms).items():
        if isinstance(term, FunctionTerm):
            load_function(name, term)
