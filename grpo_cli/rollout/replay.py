"""The rollout of a training step: new samples or, with `replay=<run folder>`, those that another run has stored."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from grpo_cli.config.train import TrainConfig
from grpo_cli.data.sampler import EpochSampler
from grpo_cli.errors import DataError
from grpo_cli.files import disk_faults
from grpo_cli.ranks import gather, rank, world_size
from grpo_cli.reward.reward import Reward
from grpo_cli.rollout.collect import Engine, Rollout, collect_rollout
from grpo_cli.runs.stored_steps import StoredGroup, read_completions, read_groups, replay_file, write_step
from grpo_cli.types import Prompt, Sampling, ScoredGroup

if TYPE_CHECKING:
    from grpo_cli.rollout.in_flight import InFlight


def step_rollout(
    engine: Engine,
    reward: Reward,
    sampler: EpochSampler,
    sampling: Sampling,
    config: TrainConfig,
    *,
    step: int,
    in_flight: "InFlight | None" = None,
) -> Rollout:
    """This rank's share of a step's groups, sampled or replayed. With `logger.replayable`, they are also stored.

    Some of them may be `in_flight` already.
    """
    if config.replay is None:
        rollout = collect_rollout(engine, reward, sampler, sampling, config, step=step, in_flight=in_flight)
    else:
        rollout = _replayed(replay_file(Path(config.replay), step), reward, sampler, sampling, step)
    if config.logger.replayable:
        _store(rollout, config, step)
    return rollout


def _store(rollout: Rollout, config: TrainConfig, step: int) -> None:
    places = [*rollout.positions, *[None] * len(rollout.discarded)]
    mine = [
        (StoredGroup(group.prompt.problem.id, group.prompt.token_ids, rank(), position), group.completions)
        for group, position in zip(rollout.groups + rollout.discarded, places, strict=True)
    ]
    of_ranks = gather(mine)
    if rank() == 0:
        file = replay_file(Path(config.run.dir), step)
        with disk_faults(file):
            write_step(file, config, [group for of_rank in of_ranks for group in of_rank])


def _replayed(file: Path, reward: Reward, sampler: EpochSampler, sampling: Sampling, step: int) -> Rollout:
    """The stored groups, scored again. Of the sampler only the position changes, so that epochs are counted."""
    started = time.perf_counter()
    (_, groups), completions = read_groups(file), read_completions(file)
    sampler.next(len(groups))
    mine = _share(groups)
    prompts = _prompts([groups[i] for i in mine], sampler, file)
    read = time.perf_counter()
    futures = [
        [reward.submit(prompt.problem, c, step=step, max_new_tokens=sampling.max_new_tokens) for c in completions[i]]
        for i, prompt in zip(mine, prompts, strict=True)
    ]
    scored = {
        i: ScoredGroup(prompt, completions[i], tuple(score.result() for score in scores))
        for i, prompt, scores in zip(mine, prompts, futures, strict=True)
    }
    return Rollout(
        groups=tuple(scored[i] for i in mine if groups[i].position is not None),
        positions=tuple(position for i in mine if (position := groups[i].position) is not None),
        discarded=tuple(scored[i] for i in mine if groups[i].position is None),
        generation_s=read - started,
        reward_s=time.perf_counter() - read,
    )


def _share(groups: Sequence[StoredGroup]) -> list[int]:
    """The indices of this rank's groups.

    With as many ranks as before, those that it sampled, so that the update adds up numbers in the same order.
    """
    if world_size() == 1 + max(group.rank for group in groups):
        return [i for i, group in enumerate(groups) if group.rank == rank()]
    in_order = sorted(range(len(groups)), key=lambda i: (groups[i].position is None, groups[i].position or 0))
    return in_order[rank() :: world_size()]


def _prompts(groups: Sequence[StoredGroup], sampler: EpochSampler, file: Path) -> list[Prompt]:
    wanted = {group.problem for group in groups}
    known = {prompt.problem.id: prompt for prompt in sampler.items if prompt.problem.id in wanted}
    for group in groups:
        if group.problem not in known or known[group.problem].token_ids != group.prompt_ids:
            raise DataError(
                f"{file}: the prompt of the problem {group.problem!r} is not one of this run's training prompts. Use "
                "the data, the template and the tokenizer of the run to replay."
            )
    return [known[group.problem] for group in groups]
