"""Supervised fine-tuning: the log-likelihood of given responses, as an objective of the policy.

Cold start and distillation (DeepSeek-R1, arXiv:2501.12948, sections 2.3.1 and 2.4).
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TextIO

import torch
from rich.console import Console

from grpo_cli.choices import Surrogate, Weighting
from grpo_cli.config.algorithm import AlgorithmConfig
from grpo_cli.config.sampling import RolloutConfig
from grpo_cli.config.supervised import SFTTask
from grpo_cli.config.template import TemplateConfig
from grpo_cli.config.train import TrainConfig
from grpo_cli.data.benchmarks import load_benchmark
from grpo_cli.data.demonstrations import Demonstration, load_demonstrations
from grpo_cli.data.templates import render
from grpo_cli.errors import DataError
from grpo_cli.evaluation.live import LiveEvaluation
from grpo_cli.metrics.metrics import Tally
from grpo_cli.model import BaseModel, load_base_model
from grpo_cli.ranks import rank, world_size
from grpo_cli.reward.reward import Reward
from grpo_cli.rollout.vllm_engine import RolloutEngine
from grpo_cli.screen import Screen
from grpo_cli.training.batch import TrainingSequence, weighted_minibatch
from grpo_cli.training.engine import init_distributed
from grpo_cli.training.loop import merged, say
from grpo_cli.training.network import check_family
from grpo_cli.training.policy import Policy
from grpo_cli.training.supervised import fit, num_steps, short_enough
from grpo_cli.training.weight_sync import check_sampler, sync_weights
from grpo_cli.types import Problem, Prompt, Sampling

# Every response token of a batch counts the same: what is minimised is minus their mean log-likelihood.
LIKELIHOOD = AlgorithmConfig(surrogate=Surrogate.none, weighting=Weighting.token_mean)


def sft(config: SFTTask, terminal: TextIO) -> None:
    """Run all of `config` on this rank. Rank 0 writes metrics and results; every rank its checkpoints."""
    init_distributed(config.cluster)
    console = Screen(file=terminal, quiet=rank() != 0)
    engines = "vLLM and DeepSpeed" if config.benchmark else "DeepSpeed"
    say(console, f"{config.run.dir}: loading {config.model.name}, {engines}")
    model = load_base_model(config.model)
    check_family(model, config.cluster)
    demonstrations = load_demonstrations(config.data, config.seed)
    limit = min(config.data.max_tokens, model.max_model_len)
    train, heldout = (
        _examples(some, config.template, model, limit, console)
        for some in (demonstrations.train, demonstrations.heldout)
    )
    steps = num_steps(config.epochs, len(train), config.batch_size)
    with ExitStack() as stack:
        ask = _benchmarks(stack, config, model)
        policy = Policy(model, as_policy(config, steps))
        if policy.note:
            say(console, policy.note)

        def update(batch: Sequence[TrainingSequence]) -> Tally:
            every, all_selected = torch.ones(len(batch)), torch.ones(len(batch), dtype=torch.bool)
            return policy.update([weighted_minibatch(batch, every, all_selected, LIKELIHOOD, limit)])

        def evaluate() -> Mapping[str, float]:
            tally = Tally()
            tally.mean("eval/heldout/loss", *policy.negative_log_likelihood(heldout[rank() :: world_size()]))
            return merged(tally) | ask(policy)

        fit(config, "sft", policy, train, steps, update=update, evaluate=evaluate, console=console)


def as_policy(config: SFTTask, steps: int) -> TrainConfig:
    """The settings of a policy whose objective is the likelihood."""
    return TrainConfig(
        seed=config.seed,
        steps=steps,
        model=config.model,
        algorithm=LIKELIHOOD,
        rollout=RolloutConfig(temperature=1.0),
        optimizer=config.optimizer,
        cluster=config.cluster,
    )


def _examples(
    demonstrations: Sequence[Demonstration], template: TemplateConfig, model: BaseModel, limit: int, console: Console
) -> list[TrainingSequence]:
    """Each demonstration as prompt and response; what is longer than `limit` tokens is left out, and counted aloud.

    A response ends as one that is sampled does: with the end token, or with a string that the template stops at.
    """
    tokenizer = model.tokenizer
    prompts = render([Problem("", d.problem, "") for d in demonstrations], template, tokenizer)
    texts = [d.response.removeprefix(template.response_prefix) for d in demonstrations]
    responses = tokenizer(texts, add_special_tokens=False, return_attention_mask=False)["input_ids"]
    end = (tokenizer.eos_token_id,)
    examples = [
        TrainingSequence(
            prompt.token_ids,
            tuple(token_ids) + (() if text.endswith(tuple(template.stop)) else end),
            advantage=1.0,
        )
        for prompt, text, token_ids in zip(prompts, texts, responses, strict=True)
    ]
    if tokenizer.pad_token_id not in (None, tokenizer.eos_token_id) and (
        unread := [text for text, ids in zip(texts, responses, strict=True) if tokenizer.pad_token_id in ids]
    ):
        raise DataError(
            f"{len(unread)} of {len(texts)} responses have words that the model's tokenizer does not know: "
            f"{unread[0][:100]!r}. Give demonstrations in the words of the model, or another model."
        )
    return short_enough(examples, lambda example: example.length, limit, "demonstrations", console)


def _benchmarks(stack: ExitStack, config: SFTTask, model: BaseModel) -> Callable[[Policy], Mapping[str, float]]:
    """What measures a policy on the benchmarks through vLLM, which sleeps meanwhile; called on all ranks."""
    if not config.benchmark:
        return lambda policy: {}
    prompts: dict[str, list[Prompt]] = {
        name: render(load_benchmark(name, benchmark), config.template, model.tokenizer)
        for name, benchmark in config.benchmark.items()
    }
    longest = max(len(prompt.token_ids) for some in prompts.values() for prompt in some)
    max_model_len = min(model.max_model_len, longest + config.eval.max_new_tokens)
    reward = stack.enter_context(
        Reward(config.reward, config.template, config.eval.max_new_tokens, config.cluster.device)
    )
    engine = RolloutEngine(replace(model, max_model_len=max_model_len), config.cluster, for_training=True)
    engine.sleep()
    some_prompts = next(iter(prompts.values()))
    live = LiveEvaluation(engine, reward, [], prompts, config, max_model_len)
    sampling = Sampling(1.0, 1.0, config.eval.max_new_tokens, tuple(config.template.stop))

    def ask(policy: Policy) -> Mapping[str, float]:
        with engine.awake():
            sync_weights(policy, engine)
            return check_sampler(policy, engine, some_prompts, config) | live(sampling)

    return ask
