"""Collects groups of responses, and scores each response as soon as it is complete."""

import hashlib
import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Protocol

from grpo_cli.config.train import TrainConfig
from grpo_cli.data.sampler import EpochSampler
from grpo_cli.metrics.metrics import Tally, rollout_tally
from grpo_cli.ranks import gather
from grpo_cli.reward.reward import Reward
from grpo_cli.rollout.share import share
from grpo_cli.types import Completion, Prompt, Request, Sampling, Score, ScoredGroup, Verdict

if TYPE_CHECKING:
    from grpo_cli.rollout.in_flight import InFlight
    from grpo_cli.rollout.partial import WaitingGroup


class Engine(Protocol):
    """What samples: vLLM in this process, or in other ranks."""

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[tuple[int, Completion]]:
        """Yield (index of the request, its completion) as soon as each is complete, in any order."""


@dataclass(frozen=True)
class Draw:
    """This rank's groups of some prompts, and the seconds that they took.

    `reward_s` is only the time for scoring after the last response was complete.
    """

    groups: dict[int, ScoredGroup]  # by the prompt's place among all that the step draws
    prompts: Sequence[Prompt]  # of the groups of all ranks
    generation_s: float
    reward_s: float
    waiting: "tuple[WaitingGroup, ...]" = ()  # sampled in part, for a later step


@dataclass(frozen=True)
class Rollout:
    """This rank's share of a step's groups."""

    groups: tuple[ScoredGroup, ...]
    positions: tuple[int, ...]  # of each group among those of all ranks; the same for any number of ranks
    discarded: tuple[ScoredGroup, ...]  # sampled, but replaced because all their responses agree
    generation_s: float
    reward_s: float

    def tally(self) -> Tally:
        """The metrics of samples and verdicts, and the seconds of the slowest rank."""
        tally = rollout_tally(self.groups + self.discarded)
        tally.sum("group/discarded", len(self.discarded))
        tally.max("time/rollout", self.generation_s)
        tally.max("time/reward", self.reward_s)
        return tally


def collect_rollout(
    engine: Engine,
    reward: Reward,
    sampler: EpochSampler,
    sampling: Sampling,
    config: TrainConfig,
    *,
    step: int,
    in_flight: "InFlight | None" = None,
) -> Rollout:
    """Draw `rollout.prompts_per_step` prompts over all ranks, and sample and score a group for each.

    With dynamic sampling (DAPO, arXiv:2503.14476), groups whose responses are all right or all wrong are replaced
    by groups of new prompts, in at most `max_refills` rounds. If these are too few, the first of the agreeing groups
    are used, so that every step has the same number of groups. The first draw may be `in_flight` already.
    """
    num_wanted = config.rollout.prompts_per_step
    agreeing_last = config.algorithm.dynamic_sampling.max_refills > 0
    mine: dict[int, ScoredGroup] = {}
    agreeing: list[bool] = []  # for the groups of all ranks, in the order in which they were drawn
    generation_s = reward_s = 0.0
    for _ in range(1 + config.algorithm.dynamic_sampling.max_refills):
        num_drawn = len(agreeing)
        if in_flight and num_drawn == 0:
            draw = in_flight.first_draw(sampling, step)
        else:
            prompts = sampler.next(num_wanted - agreeing.count(False) if agreeing_last else num_wanted)
            draw = sample_draw(engine, reward, sampler, config, prompts, sampling, step=step, num_drawn=num_drawn)
        mine |= draw.groups
        generation_s += draw.generation_s
        reward_s += draw.reward_s
        facts = {i: (_agrees(group), _mean_length(group), _pass_rate(group)) for i, group in draw.groups.items()}
        for i, (agrees, length, rate) in sorted(pair for of_rank in gather(facts) for pair in of_rank.items()):
            agreeing.append(agrees)
            sampler.record(draw.prompts[i - num_drawn], length, rate)
        if agreeing.count(False) >= num_wanted:
            break
    order = sorted(range(len(agreeing)), key=lambda i: (agreeing[i] and agreeing_last, i))
    positions = {i: position for position, i in enumerate(sorted(order[:num_wanted]))}
    return Rollout(
        groups=tuple(group for i, group in mine.items() if i in positions),
        positions=tuple(positions[i] for i in mine if i in positions),
        discarded=tuple(group for i, group in mine.items() if i not in positions),
        generation_s=generation_s,
        reward_s=reward_s,
    )


def sample_draw(
    engine: Engine,
    reward: Reward,
    sampler: EpochSampler,
    config: TrainConfig,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    *,
    step: int,
    num_drawn: int = 0,
) -> Draw:
    """Sample and score `rollout.group_size` responses to each prompt of this rank's share of `prompts`.

    `num_drawn` prompts of this step were drawn before. Each response has a seed from its prompt's place and its own
    number, so that no response depends on the others in the batch. `step` decides which reward terms are active.
    """
    started = time.perf_counter()
    indices = share(prompts, sampler)
    members = [(i, sample) for i in indices for sample in range(config.rollout.group_size)]
    # From the place, not the prompt's id: a small data set may give a prompt twice in a step.
    seeds = [sample_seed(config.seed, step, num_drawn + i, sample) for i, sample in members]
    requests = [Request(prompts[i].token_ids, seed) for (i, _), seed in zip(members, seeds, strict=True)]
    done: dict[tuple[int, int], tuple[Completion, Future[Score]]] = {}
    for index, completion in engine.generate(requests, sampling):
        problem = prompts[members[index][0]].problem
        score = reward.submit(problem, completion, step=step, max_new_tokens=sampling.max_new_tokens)
        done[members[index]] = (completion, score)
    generated = time.perf_counter()
    groups = {}
    for i in indices:
        completions, scores = zip(*(done[i, sample] for sample in range(config.rollout.group_size)), strict=True)
        groups[num_drawn + i] = ScoredGroup(prompts[i], completions, tuple(score.result() for score in scores))
    return Draw(groups, prompts, generated - started, time.perf_counter() - generated)


def _mean_length(group: ScoredGroup) -> float:
    return fmean(len(completion.token_ids) for completion in group.completions)


def _agrees(group: ScoredGroup) -> bool:
    """Whether all responses are right or all are wrong; if no rule can judge them, whether all rewards are equal."""
    if group.scores[0].verdict is Verdict.unjudged:
        return len({score.total for score in group.scores if not math.isnan(score.total)}) <= 1
    return len({score.verdict is Verdict.correct for score in group.scores}) == 1


def _pass_rate(group: ScoredGroup) -> float | None:
    """The share of right responses; None if no rule can judge them."""
    if group.scores[0].verdict is Verdict.unjudged:
        return None
    return fmean(score.verdict is Verdict.correct for score in group.scores)


def sample_seed(*parts: int | str) -> int:
    """A seed for one response: a hash, because vLLM may use consecutive seeds for one request.

    >>> sample_seed(0, 1, "a", 0) == sample_seed(0, 1, "a", 0) != sample_seed(0, 1, "a", 1)
    True
    """
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1  # torch accepts 63 bits
