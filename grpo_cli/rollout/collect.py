"""Groups of responses, each scored as soon as it is done."""

import hashlib
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from grpo_cli.config.train import TrainConfig
from grpo_cli.data.sampler import EpochSampler
from grpo_cli.metrics.metrics import Tally, rollout_tally
from grpo_cli.ranks import gather, rank, world_size
from grpo_cli.reward.reward import Reward
from grpo_cli.sharing import assign_owners
from grpo_cli.types import Completion, Prompt, Request, Sampling, Score, ScoredGroup, Verdict

if TYPE_CHECKING:
    from grpo_cli.rollout.vllm_engine import RolloutEngine


@dataclass(frozen=True)
class Sampled:
    """Groups in the order of their prompts, and the seconds they took.

    `reward_s` is only the time that scoring went on after the last response was done.
    """

    groups: tuple[ScoredGroup, ...]
    generation_s: float
    reward_s: float


@dataclass(frozen=True)
class Rollout:
    """This rank's share of an iteration's groups."""

    groups: tuple[ScoredGroup, ...]
    positions: tuple[int, ...]  # of each group among those of all ranks: the same on any number of ranks
    discarded: tuple[ScoredGroup, ...]  # drawn, and replaced because they agreed
    generation_s: float
    reward_s: float

    def tally(self) -> Tally:
        """What was sampled and how it was judged, and the seconds of the slowest rank."""
        tally = rollout_tally(self.groups + self.discarded)
        tally.sum("group/discarded", len(self.discarded))
        tally.max("time/rollout", self.generation_s)
        tally.max("time/reward", self.reward_s)
        return tally


def collect_rollout(
    engine: "RolloutEngine",
    reward: Reward,
    sampler: EpochSampler,
    sampling: Sampling,
    config: TrainConfig,
    *,
    step: int,
) -> Rollout:
    """Draw `rollout.prompts_per_step` prompts over all ranks, and sample and score a group for each.

    With dynamic sampling (DAPO, arXiv:2503.14476), groups whose responses are all right or all wrong are replaced
    by those of fresh prompts, in at most `max_refills` rounds; if they do not suffice, the first of the agreeing
    groups stay, so that an iteration always has the same number.
    """
    wanted = config.rollout.prompts_per_step
    agreeing_last = config.algorithm.dynamic_sampling.max_refills > 0
    mine: dict[int, ScoredGroup] = {}
    agreeing: list[bool] = []  # over all ranks, in the order drawn
    generation_s = reward_s = 0.0
    for _ in range(1 + config.algorithm.dynamic_sampling.max_refills):
        num_drawn = len(agreeing)
        prompts = sampler.next(wanted - agreeing.count(False) if agreeing_last else wanted)
        taken = _share(prompts, sampler)
        places = [num_drawn + i for i in taken]
        sampled = collect_and_score(
            engine,
            reward,
            [prompts[i] for i in taken],
            sampling,
            group_size=config.rollout.group_size,
            # By its place, not its id: a small data set may give a prompt twice in a step.
            seeds=[(config.seed, step, place) for place in places],
            step=step,
        )
        drawn = dict(zip(places, sampled.groups, strict=True))
        mine |= drawn
        generation_s += sampled.generation_s
        reward_s += sampled.reward_s
        facts = {i: (_agrees(group), _mean_length(group)) for i, group in drawn.items()}
        for i, (agrees, length) in sorted(pair for of_rank in gather(facts) for pair in of_rank.items()):
            agreeing.append(agrees)
            sampler.record_length(prompts[i - num_drawn], length)
        if agreeing.count(False) >= wanted:
            break
    order = sorted(range(len(agreeing)), key=lambda i: (agreeing[i] and agreeing_last, i))
    positions = {i: position for position, i in enumerate(sorted(order[:wanted]))}
    return Rollout(
        groups=tuple(group for i, group in mine.items() if i in positions),
        positions=tuple(positions[i] for i in mine if i in positions),
        discarded=tuple(group for i, group in mine.items() if i not in positions),
        generation_s=generation_s,
        reward_s=reward_s,
    )


def _share(prompts: Sequence[Prompt], sampler: EpochSampler) -> list[int]:
    """Which prompts this rank samples, rising: by the lengths of their last responses where all are known, else in
    turn. A sample does not depend on it.
    """
    in_turn = [range(first, len(prompts), world_size()) for first in range(world_size())]
    lengths = [sampler.expected_length(prompt) for prompt in prompts]
    if None in lengths:
        return list(in_turn[rank()])
    owners = assign_owners([[lengths[i] for i in of_rank] for of_rank in in_turn])
    pairs = (
        (i, owner)
        for of_rank, given in zip(in_turn, owners, strict=True)
        for i, owner in zip(of_rank, given, strict=True)
    )
    return sorted(i for i, owner in pairs if owner == rank())


def _mean_length(group: ScoredGroup) -> float:
    return fmean(len(completion.token_ids) for completion in group.completions)


def _agrees(group: ScoredGroup) -> bool:
    """All right or all wrong; where no rule can tell, of the same reward."""
    if group.scores[0].verdict is Verdict.unjudged:
        return len({score.total for score in group.scores}) == 1
    return len({score.verdict is Verdict.correct for score in group.scores}) == 1


def collect_and_score(
    engine: "RolloutEngine",
    reward: Reward,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    *,
    group_size: int,
    seeds: Sequence[tuple[int | str, ...]],
    step: int,
) -> Sampled:
    """Sample `group_size` responses a prompt. `seeds` tells the prompts apart, as (run seed, step, place) does: with
    the sample's number it makes each response's seed, so that no response depends on what is sampled beside it.
    `step` tells which terms of the reward count.
    """
    started = time.perf_counter()
    requests = [
        Request(prompt.token_ids, sample_seed(*seed, sample))
        for prompt, seed in zip(prompts, seeds, strict=True)
        for sample in range(group_size)
    ]
    done: dict[int, tuple[Completion, Future[Score]]] = {}
    for index, completion in engine.generate(requests, sampling):
        problem = prompts[index // group_size].problem
        score = reward.submit(problem, completion, step=step, max_new_tokens=sampling.max_new_tokens)
        done[index] = (completion, score)
    generated = time.perf_counter()
    groups = tuple(
        ScoredGroup(
            prompt,
            completions=tuple(completion for completion, _ in members),
            scores=tuple(score.result() for _, score in members),
        )
        for first, prompt in enumerate(prompts)
        for members in [[done[first * group_size + sample] for sample in range(group_size)]]
    )
    return Sampled(groups, generated - started, time.perf_counter() - generated)


def sample_seed(*parts: int | str) -> int:
    """A seed for one response: a hash, since neighbouring numbers would make neighbouring requests collide.

    >>> sample_seed(0, 1, "a", 0) == sample_seed(0, 1, "a", 0) != sample_seed(0, 1, "a", 1)
    True
    """
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1  # torch takes 63 bits
