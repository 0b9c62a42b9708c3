"""Responses in flight, with `rollout.max_staleness` above 0: sampled before the step that trains on them.

With `cluster.rollout_ranks`, the first draw of the next step is sampled while this step is trained. With
`rollout.oversample`, long responses are continued over several steps (see partial.py). Both are part of a checkpoint.

Which weights sample a token depends on the settings and never on timing. With ranks that only generate, step t is
sampled with the weights after step t - 2; the first step of a run, refills of dynamic sampling, and runs without such
ranks sample with the newest ones.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from grpo_cli.config.train import TrainConfig
from grpo_cli.data.sampler import EpochSampler
from grpo_cli.ranks import EXCHANGE_TIMEOUT, rank, world_size
from grpo_cli.reward.reward import Reward
from grpo_cli.rollout.collect import Draw, Engine, sample_draw
from grpo_cli.rollout.partial import WaitingGroup, sample_partial
from grpo_cli.runs.stored_steps import sampling_settings
from grpo_cli.types import Completion, Prompt, Request, Sampling

FOLDER = "in_flight"  # in a checkpoint, next to the policy's state
PLAIN_DATA = [Completion, Request]  # what its files contain, besides Python's own types


class InFlight:
    """Samples ahead in a thread, and keeps the groups that wait for a later step."""

    def __init__(self, engine: Engine, reward: Reward, sampler: EpochSampler, config: TrainConfig) -> None:
        self._engine = engine
        self._sample = (reward, sampler, config)
        self._thread = ThreadPoolExecutor(1, "rollout-ahead")
        self._started: Future[Draw] | None = None
        self._sampled: dict[Request, Completion] = {}  # by the draw that has started
        self._loaded: dict[Request, Completion] = {}  # the same, from a checkpoint
        self._age = 0  # of what is being sampled, in updates
        self._waiting: tuple[WaitingGroup, ...] = ()
        self._num_waiting = 0  # over all ranks
        # The thread talks to other ranks while the update does, so over a separate group.
        self._exchange = dist.new_group(backend="gloo", timeout=EXCHANGE_TIMEOUT) if dist.is_initialized() else None

    def start(self, sampling: Sampling, step: int) -> None:
        """Start to sample the first draw of `step`, which has to be the next one, if other ranks generate."""
        _, sampler, config = self._sample
        if config.cluster.rollout_ranks > 0:
            self._age = 1
            self._sampled = {}
            self._started = self._thread.submit(self._draw, sampler.peek(self._num_new), sampling, step)

    def wait(self) -> None:
        """Wait until all that was started is sampled and scored: only then can the engines get new weights."""
        if self._started is not None:
            self._started.result()

    def first_draw(self, sampling: Sampling, step: int) -> Draw:
        """The first draw of `step`: what was started, what a checkpoint had, or else sampled now."""
        prompts = self._sample[1].next(self._num_new)
        started, self._started = self._started, None
        if started:
            draw = started.result()
        else:
            self._age, self._sampled = 0, {}
            draw = self._draw(prompts, sampling, step)
        self._num_waiting += len(prompts) - len(draw.prompts)
        self._waiting, self._loaded = draw.waiting, {}
        return draw

    @property
    def _num_new(self) -> int:
        """How many prompts the next draw takes from the data."""
        rollout = self._sample[2].rollout
        return max(0, rollout.prompts_per_step + rollout.oversample - self._num_waiting)

    def _draw(self, prompts: Sequence[Prompt], sampling: Sampling, step: int) -> Draw:
        if self._sample[2].rollout.oversample == 0 and self._num_waiting == 0:
            return sample_draw(self, *self._sample, prompts, sampling, step=step)
        return sample_partial(
            self, *self._sample, prompts, sampling, step=step, waiting=self._waiting, exchange=self._exchange
        )

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[tuple[int, Completion]]:
        """As `RolloutEngine.generate`, with the ages of tokens. What a checkpoint had is not sampled again."""
        found = [self._loaded.get(request) for request in requests]
        missing = [index for index, completion in enumerate(found) if completion is None]
        sampled = self._engine.generate([requests[index] for index in missing], sampling)
        known = ((index, completion) for index, completion in enumerate(found) if completion is not None)
        new = ((missing[place], self._with_ages(requests[missing[place]], c)) for place, c in sampled)
        for index, completion in chain(known, new):
            if self._age:  # only what is sampled ahead is needed again
                self._sampled[requests[index]] = completion
            yield index, completion

    def _with_ages(self, request: Request, completion: Completion) -> Completion:
        before, earlier = (len(request.prefix.token_ids), request.prefix.ages) if request.prefix else (0, ())
        return replace(completion, ages=(*earlier, (len(completion.token_ids) - before, self._age)))

    def save(self, folder: Path) -> None:
        """Write what this rank has in flight."""
        _, sampler, config = self._sample
        folder.mkdir(exist_ok=True)
        waiting = [
            (group.step, group.index, sampler.place(group.prompt), group.prompt.token_ids, group.responses)
            for group in self._waiting
        ]
        sampled = list(self._sampled.items()) if self._started else []
        state = {"settings": sampling_settings(config), "waiting": waiting, "sampled": sampled}
        torch.save(state, folder / f"rank_{rank():05d}.pt")

    def load(self, folder: Path) -> None:
        """Load what all ranks had in flight: after a change of the ranks, another one may need it.

        What was sampled with other settings is sampled again, and prompts that this run's data does not have are
        dropped.
        """
        _, sampler, config = self._sample
        with torch.serialization.safe_globals(PLAIN_DATA):
            states = [torch.load(file, weights_only=True) for file in sorted(folder.glob("rank_*.pt"))]
        groups_of_ranks: list[list[WaitingGroup]] = []
        for state in states:
            is_same = state["settings"] == sampling_settings(config)
            groups_of_ranks.append([])
            for step, index, place, token_ids, responses in state["waiting"]:
                if place < len(sampler.items) and sampler.items[place].token_ids == token_ids:
                    kept = responses if is_same else (None,) * config.rollout.group_size
                    groups_of_ranks[-1].append(WaitingGroup(step, index, sampler.items[place], kept))
            self._loaded |= state["sampled"] if is_same else {}
        self._num_waiting = sum(map(len, groups_of_ranks))
        if len(states) == world_size():  # so that the update adds up numbers in the same order
            self._waiting = tuple(groups_of_ranks[rank()])
        else:
            groups = sorted((group for of_rank in groups_of_ranks for group in of_rank), key=lambda group: group.key)
            self._waiting = tuple(groups[rank() :: world_size()])


class LearnerAndRollouts:
    """What a checkpoint of a run with `rollout.max_staleness` contains: what it learns, and its responses in flight."""

    def __init__(self, learner: Any, in_flight: InFlight) -> None:
        self._learner = learner
        self._in_flight = in_flight

    def save(self, folder: Path) -> None:
        self._learner.save(folder)
        self._in_flight.save(folder.with_name(FOLDER))

    def load(self, folder: Path) -> bool:
        """Load what `save` wrote. Returns whether anything had to be resharded."""
        self._in_flight.load(folder.with_name(FOLDER))
        return self._learner.load(folder)
