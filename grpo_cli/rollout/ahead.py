"""The first draw of the next step, sampled while this step is trained (`rollout.max_staleness=1`).

Which weights sample a response depends on the settings and never on timing. Step t is sampled with the weights after
step t - 2; the first step of a run, and refills of dynamic sampling, with the newest ones.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import astuple
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from grpo_cli.config.train import TrainConfig
from grpo_cli.data.sampler import EpochSampler
from grpo_cli.ranks import rank
from grpo_cli.reward.reward import Reward
from grpo_cli.rollout.collect import Draw, Engine, sample_draw
from grpo_cli.types import Completion, Prompt, Request, Sampling

FOLDER = "ahead"  # in a checkpoint, next to the policy's state


class Ahead:
    """Samples ahead, in a thread. Its completions are part of a checkpoint, so a resumed run does not sample again."""

    def __init__(self, engine: Engine, reward: Reward, sampler: EpochSampler, config: TrainConfig) -> None:
        self._engine = engine
        self._sample = (reward, sampler, config)
        self._thread = ThreadPoolExecutor(1, "rollout-ahead")
        self._started: Future[Draw] | None = None
        self._sampled: dict[tuple[Request, Sampling], Completion] = {}

    def start(self, sampling: Sampling, step: int) -> None:
        """Start to sample the first draw of `step`, which has to be the next step."""
        _, sampler, config = self._sample
        self._sampled = {}
        prompts = sampler.peek(config.rollout.prompts_per_step)
        self._started = self._thread.submit(self._draw, prompts, sampling, step)

    def wait(self) -> None:
        """Wait until all that was started is sampled and scored: only then can the engines get new weights."""
        if self._started is not None:
            self._started.result()

    def first_draw(self, prompts: Sequence[Prompt], sampling: Sampling, step: int) -> Draw:
        """The first draw of `step`: what was started, what a checkpoint had, or else sampled now."""
        started, self._started = self._started, None
        return started.result() if started else self._draw(prompts, sampling, step)

    def _draw(self, prompts: Sequence[Prompt], sampling: Sampling, step: int) -> Draw:
        return sample_draw(self, *self._sample, prompts, sampling, step=step)

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[tuple[int, Completion]]:
        """As `RolloutEngine.generate`. Completions that a checkpoint had are not sampled again."""
        loaded, self._sampled = self._sampled, {}
        found = [loaded.get((request, sampling)) for request in requests]
        missing = [index for index, completion in enumerate(found) if completion is None]
        sampled = self._engine.generate([requests[index] for index in missing], sampling)
        known = ((index, completion) for index, completion in enumerate(found) if completion is not None)
        for index, completion in chain(known, ((missing[place], completion) for place, completion in sampled)):
            self._sampled[requests[index], sampling] = completion
            yield index, completion

    def save(self, folder: Path) -> None:
        """Write what this rank has sampled ahead."""
        folder.mkdir(exist_ok=True)
        rows = [(astuple(r), astuple(s), astuple(c)) for (r, s), c in self._sampled.items()]
        torch.save(rows if self._started else [], folder / f"rank_{rank():05d}.pt")

    def load(self, folder: Path) -> None:
        """Load what all ranks had sampled: after a change of the ranks, another one may need it."""
        for file in sorted(folder.glob("rank_*.pt")):
            for request, sampling, completion in torch.load(file, weights_only=True):
                self._sampled[Request(*request), Sampling(*sampling)] = Completion(*completion)


class LearnerAndAhead:
    """What a checkpoint of a run that samples ahead contains: what it learns, and what it has sampled."""

    def __init__(self, learner: Any, ahead: Ahead) -> None:
        self._learner = learner
        self._ahead = ahead

    def save(self, folder: Path) -> None:
        self._learner.save(folder)
        self._ahead.save(folder.with_name(FOLDER))

    def load(self, folder: Path) -> bool:
        """Load what `save` wrote. Returns whether anything had to be resharded."""
        self._ahead.load(folder.with_name(FOLDER))
        return self._learner.load(folder)
