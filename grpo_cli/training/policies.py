"""The policy of each command that trains one, from the command's settings."""

from dataclasses import replace

from grpo_cli.choices import SamplerCorrection, Surrogate, Weighting
from grpo_cli.config.algorithm import AlgorithmConfig
from grpo_cli.config.supervised import SFTTask
from grpo_cli.config.train import TrainConfig
from grpo_cli.model import BaseModel, load_second_model
from grpo_cli.training.network import check_family
from grpo_cli.training.policy import Policy

# Every response token of a batch counts the same: the loss is minus their mean log-likelihood.
LIKELIHOOD = AlgorithmConfig(surrogate=Surrogate.none, weighting=Weighting.token_mean)


def load_teacher(model: BaseModel, config: TrainConfig) -> BaseModel | None:
    """The model of algorithm.reference.path; None if there is none, or without a KL term."""
    path = config.algorithm.reference.path
    if path is None or config.algorithm.beta == 0:
        return None
    teacher = load_second_model("algorithm.reference.path", path, model, config.rollout.longest_sequence)
    check_family(teacher, config.cluster)
    return teacher


def rl_policy(model: BaseModel, config: TrainConfig, teacher: BaseModel | None = None) -> Policy:
    """The policy of `r1zero train`."""
    return Policy(
        model,
        corrected(config.algorithm, config.rollout.max_staleness),
        config.optimizer,
        config.cluster,
        config.model.lora,
        teacher=teacher,
        temperature=config.rollout.temperature,
        num_updates=config.steps,
        seed=config.seed,
    )


def corrected(algorithm: AlgorithmConfig, max_staleness: int) -> AlgorithmConfig:
    """`algorithm`, with the importance weights of earlier weights' responses unless it sets how they are corrected."""
    correction = algorithm.sampler_correction
    if max_staleness == 0 or correction.method != SamplerCorrection.auto:
        return algorithm
    return replace(algorithm, sampler_correction=replace(correction, method=SamplerCorrection.token_truncate))


def sft_policy(model: BaseModel, config: SFTTask, steps: int) -> Policy:
    """The policy of `r1zero sft`, whose objective is the likelihood of the given responses."""
    return Policy(
        model,
        LIKELIHOOD,
        config.optimizer,
        config.cluster,
        config.model.lora,
        temperature=1.0,
        num_updates=steps,
        seed=config.seed,
    )
