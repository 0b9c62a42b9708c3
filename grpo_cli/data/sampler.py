"""The order in which training visits the data: shuffled in each epoch, and continued exactly after a resume."""

import hashlib
import random
from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any, Generic, TypeVar

from grpo_cli.data.pass_rates import Curriculum
from grpo_cli.errors import CheckpointError

Item = TypeVar("Item")


class EpochSampler(Generic[Item]):
    """An endless sequence of prompts or other items. Each epoch is a permutation that depends on `seed` and the epoch
    number.

    Items that `curriculum` skips are passed over. Also stores the last mean response length of each prompt, which is
    used to balance prompts over ranks.
    """

    def __init__(self, items: Sequence[Item], seed: int, curriculum: Curriculum | None = None) -> None:
        assert items, "items must not be empty"
        self.items = items
        self._seed = seed
        self._curriculum = curriculum
        self._places = {id(item): place for place, item in enumerate(items)}
        self._lengths: dict[int, float] = {}  # by position in `items`
        self._identity = {"seed": seed, "num_items": len(items), "fingerprint": _fingerprint(items)}
        self._start_epoch(0)

    def next(self, count: int) -> list[Item]:
        """The next `count` items; continues with the next epoch at the end of one."""
        taken: list[Item] = []
        while len(taken) < count:
            if self._position == len(self._order):
                self._start_epoch(self._epoch + 1)
            place = self._order[self._position]
            self._position += 1
            if self._curriculum is None or not self._curriculum.skips(place, self._epoch):
                taken.append(self.items[place])
        return taken

    def peek(self, count: int) -> list[Item]:
        """What `next` would return, without moving on."""
        return copy(self).next(count)

    def metrics(self) -> dict[str, float]:
        """How often the data was gone through (0.25 after a quarter of the first epoch), and what share is skipped."""
        metrics = {"epoch": (self._epoch * len(self._order) + self._position) / len(self._order)}
        if self._curriculum is not None:
            metrics["curriculum/outside"] = self._curriculum.num_outside / len(self.items)
        return metrics

    def record(self, item: Item, length: float, pass_rate: float | None = None) -> None:
        """Store the mean length of the responses to an item, in tokens, and the share of them that is right."""
        place = self.place(item)
        self._lengths[place] = length
        if self._curriculum is not None and pass_rate is not None:
            self._curriculum.record(place, pass_rate, self._epoch)

    def place(self, item: Item) -> int:
        """The index of an item of `items`."""
        return self._places[id(item)]

    def expected_length(self, item: Item) -> float | None:
        """The last recorded length, or None if none was recorded yet."""
        return self._lengths.get(self.place(item))

    def state_dict(self) -> dict[str, Any]:
        """The position, and the identity of the data that it refers to, as plain JSON values."""
        lengths = [[place, length] for place, length in sorted(self._lengths.items())]
        state = {"epoch": self._epoch, "position": self._position, "lengths": lengths, **self._identity}
        return state if self._curriculum is None else {**state, "curriculum": self._curriculum.state()}

    def load_state_dict(self, state: Mapping[str, Any], *, may_differ: bool = False) -> bool:
        """Continue from `state`; returns whether that was possible.

        If `state` belongs to other items and they `may_differ`, starts at the first epoch and returns False. Raises
        CheckpointError if they may not, or if the seed differs.
        """
        for key, current in self._identity.items():
            if state[key] != current:
                if may_differ and key != "seed":
                    self._start_epoch(0)
                    self._lengths = {}
                    return False
                raise CheckpointError(
                    f"The checkpoint belongs to other data: its {key} is {state[key]}, but this run's is {current}. "
                    "Resume with the data, template and seed of the run that wrote it."
                )
        self._start_epoch(state["epoch"])
        self._position = state["position"]
        self._lengths = dict(map(tuple, state.get("lengths", ())))
        if self._curriculum is not None:
            self._curriculum.load_state(state.get("curriculum", ()))
        return True

    def _start_epoch(self, epoch: int) -> None:
        self._epoch, self._position = epoch, 0
        self._order = list(range(len(self.items)))
        random.Random(f"{self._seed}/{epoch}").shuffle(self._order)


def _fingerprint(items: Sequence[Any]) -> str:
    digest = hashlib.sha256()
    for item in items:
        digest.update(repr(item).encode())
    return digest.hexdigest()
