"""What is known before anything is loaded is said before anything is loaded: torch is not imported here."""

import os
from collections.abc import Collection, Iterator
from itertools import count
from pathlib import Path
from typing import Any

from grpo_cli.bounds import override_value
from grpo_cli.choices import Device
from grpo_cli.config.cluster import ClusterConfig
from grpo_cli.config.compose import to_typed
from grpo_cli.config.machine import check_machine
from grpo_cli.config.model import ModelConfig
from grpo_cli.config.reward import RewardConfig
from grpo_cli.config.tracker import check_tracker
from grpo_cli.config.train import TrainConfig
from grpo_cli.data.file_tokenizer import local_tokenizer
from grpo_cli.data.templates import render
from grpo_cli.errors import ConfigError, SetupError
from grpo_cli.hardware import num_gpus
from grpo_cli.model_files import check_model, check_same_tokens
from grpo_cli.reward.functions import load_function
from grpo_cli.reward.terms import FunctionTerm, ModelTerm, typed_terms
from grpo_cli.runs.resume import frozen_settings
from grpo_cli.types import Problem


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


def check_replay(config: TrainConfig, problems: Collection[Problem]) -> None:
    """Raise ConfigError if the run to replay has too few stored steps, or not of these problems as this run asks them.

    Tokens are only compared if the tokenizers are files on this machine. Raises DataError if a file is damaged.
    """
    if config.replay is None:
        return
    from grpo_cli.runs.stored_steps import read_groups, replay_file, sampling_settings  # imports numpy

    run_dir, settings = Path(config.replay), sampling_settings(config)
    model = to_typed(frozen_settings(run_dir, "train"), "train").model
    num_stored = next(step for step in count() if not replay_file(run_dir, step + 1).is_file())
    if num_stored < config.steps:
        otherwise = "Train it again, in another run.dir, with logger.replayable=true."
        fix = f"Set steps={num_stored} or less." if num_stored else otherwise
        raise ConfigError(f"replay={run_dir}: steps={config.steps}, and the run has {num_stored} stored steps. {fix}")
    asked: dict[str, tuple[int, ...]] = {}
    for step in range(1, config.steps + 1):
        stored, groups = read_groups(replay_file(run_dir, step))
        asked |= {group.problem: group.prompt_ids for group in groups}
        if changed := {key: value for key, value in stored.items() if settings.get(key, value) != value}:
            raise ConfigError(
                f"replay={run_dir}: the responses of step {step} were sampled with other settings. Set "
                f"{' '.join(f'{key}={override_value(value)}' for key, value in changed.items())}."
            )
    known = {problem.id: problem for problem in problems}
    if unknown := sorted(asked.keys() - known.keys()):
        raise ConfigError(
            f"replay={run_dir}: {len(unknown)} of its {len(asked)} problems, such as {unknown[0]!r}, are not among the "
            "problems that this run trains on. Use its seed and its data.* settings."
        )
    before, now = local_tokenizer(model), local_tokenizer(config.model)
    if before and now and before.get_vocab() != now.get_vocab():
        raise ConfigError(
            f"replay={run_dir}: its responses are tokens of {model.path}, and model.path={config.model.path} has "
            "others. Choose a model with the same tokenizer."
        )
    for prompt in render([known[id] for id in asked], config.template, now) if now else ():
        if prompt.token_ids != asked[prompt.problem.id]:
            raise ConfigError(
                f"replay={run_dir}: the prompt of the problem {prompt.problem.id!r} was another one. Use the run's "
                "template and data."
            )
