"""Supervised fine-tuning: the log-likelihood of given responses, as an objective of the policy.

Cold start and distillation (DeepSeek-R1, arXiv:2501.12948, sections 2.3.1 and 2.4).
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TextIO

import torch
from rich.console import Console

from grpo_cli.config.supervised import SFTTask
from grpo_cli.config.template import TemplateConfig
from grpo_cli.data.benchmarks import load_benchmark
from grpo_cli.data.demonstrations import Demonstration, demonstration_token_ids, load_demonstrations
from grpo_cli.data.templates import render
from grpo_cli.errors import DataError
from grpo_cli.evaluation.live import LiveEvaluation
from grpo_cli.metrics.metrics import Tally
from grpo_cli.model import BaseModel, load_base_model
from grpo_cli.progress import stage
from grpo_cli.ranks import rank, world_size
from grpo_cli.reward.reward import Reward
from grpo_cli.rollout.vllm_engine import RolloutEngine
from grpo_cli.screen import Screen
from grpo_cli.training.batch import TrainingSequence, weighted_minibatch
from grpo_cli.training.engine import init_distributed
from grpo_cli.training.loop import of_all_ranks, say
from grpo_cli.training.mismatch import mismatch_limit
from grpo_cli.training.network import check_family
from grpo_cli.training.policies import LIKELIHOOD, sft_policy
from grpo_cli.training.policy import Policy
from grpo_cli.training.supervised import fit, num_steps, short_enough
from grpo_cli.training.weight_sync import check_sampler, sync_weights
from grpo_cli.types import Prompt, Sampling


def sft(config: SFTTask, terminal: TextIO) -> None:
    """Run `config` on this rank. Rank 0 writes metrics and results; every rank its part of checkpoints."""
    init_distributed(config.cluster)
    console = Screen(file=terminal, quiet=rank() != 0)
    with stage(console, f"loading {config.model.name} and the demonstrations"):
        model = load_base_model(config.model)
        check_family(model, config.cluster)
        demonstrations = load_demonstrations(config.data, config.seed)
        train, heldout = (
            _examples(split, config.template, model, config.data.max_tokens, console)
            for split in (demonstrations.train, demonstrations.heldout)
        )
    limit = min(config.data.max_tokens, model.max_model_len)
    steps = num_steps(config.epochs, len(train), config.batch_size)
    with ExitStack() as stack:
        run_benchmarks = _benchmarks(stack, config, model, console)
        with stage(console, "building DeepSpeed"):
            policy = sft_policy(model, config, steps)
        if policy.note:
            say(console, policy.note)

        def update(batch: Sequence[TrainingSequence]) -> Tally:
            advantages, selected = torch.ones(len(batch)), torch.ones(len(batch), dtype=torch.bool)
            return policy.update([weighted_minibatch(batch, advantages, selected, LIKELIHOOD, limit)])

        def evaluate() -> Mapping[str, float]:
            tally = Tally()
            tally.mean("eval/heldout/loss", *policy.negative_log_likelihood(heldout[rank() :: world_size()]))
            return of_all_ranks(tally).compute() | run_benchmarks(policy)

        fit(config, "sft", policy, train, steps, update=update, evaluate=evaluate, console=console)


def _examples(
    demonstrations: Sequence[Demonstration],
    template: TemplateConfig,
    model: BaseModel,
    max_tokens: int,
    console: Console,
) -> list[TrainingSequence]:
    """The demonstrations that are short enough, for training. Reports how many others there are."""
    tokenizer = model.tokenizer
    token_ids = demonstration_token_ids(demonstrations, template, tokenizer, end=(tokenizer.eos_token_id,))
    if tokenizer.pad_token_id not in (None, tokenizer.eos_token_id) and (
        unknown := [
            demonstration.response
            for demonstration, (_, response) in zip(demonstrations, token_ids, strict=True)
            if tokenizer.pad_token_id in response
        ]
    ):
        raise DataError(
            f"{len(unknown)} of {len(demonstrations)} responses have words that the model's tokenizer does not know: "
            f"{unknown[0][:100]!r}. Use demonstrations in the model's vocabulary, or another model."
        )
    examples = [TrainingSequence(prompt, response, advantage=1.0) for prompt, response in token_ids]
    return short_enough(
        examples, lambda example: example.length, "demonstrations", max_tokens, model.max_model_len, console
    )


def _benchmarks(
    stack: ExitStack, config: SFTTask, model: BaseModel, console: Console
) -> Callable[[Policy], dict[str, float]]:
    """The function that runs the benchmarks with a policy; called on all ranks. vLLM sleeps between its calls."""
    if not config.benchmark:
        return lambda policy: {}
    prompts: dict[str, list[Prompt]] = {
        name: render(load_benchmark(name, benchmark), config.template, model.tokenizer)
        for name, benchmark in config.benchmark.items()
    }
    longest = max(len(prompt.token_ids) for of_benchmark in prompts.values() for prompt in of_benchmark)
    max_model_len = min(model.max_model_len, longest + config.eval.max_new_tokens)
    reward = stack.enter_context(
        Reward(config.reward, config.template, config.eval.max_new_tokens, config.cluster.device)
    )
    with stage(console, "starting vLLM"):
        engine = RolloutEngine(replace(model, max_model_len=max_model_len), config.cluster, for_training=True)
    engine.sleep()
    check_prompts = next(iter(prompts.values()))
    live = LiveEvaluation(engine, reward, [], prompts, config, max_model_len, console)
    sampling = Sampling(1.0, 1.0, config.eval.max_new_tokens, tuple(config.template.stop))

    def run(policy: Policy) -> dict[str, float]:
        with engine.awake():
            sync_weights(policy, engine)
            checked = check_sampler(policy, engine, check_prompts, mismatch_limit(config.cluster.dtype))
            return {**checked, **live(sampling).metrics}

    return run
