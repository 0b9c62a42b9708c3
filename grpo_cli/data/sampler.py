"""The order in which data are trained on: new in each epoch, and taken up again where it was left."""

import hashlib
import random
from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

from grpo_cli.errors import CheckpointError

Item = TypeVar("Item")


class EpochSampler(Generic[Item]):
    """Prompts, or other items, without end: each epoch is a permutation of its own, given by `seed` and the epoch's
    number. Items are told apart by their repr.

    It also remembers how long the responses to a prompt were the last time, by which ranks share prompts.
    """

    def __init__(self, items: Sequence[Item], seed: int) -> None:
        assert items, "a sampler needs items"
        self._items = items
        self._seed = seed
        self._places = {id(item): place for place, item in enumerate(items)}
        self._lengths: dict[int, float] = {}  # by the place of the item
        self._identity = {"seed": seed, "num_items": len(items), "fingerprint": _fingerprint(items)}
        self._start_epoch(0)

    def next(self, count: int) -> list[Item]:
        """The next `count` items, going over the epoch's end into the next one."""
        taken: list[Item] = []
        while len(taken) < count:
            if self._position == len(self._order):
                self._start_epoch(self._epoch + 1)
            part = self._order[self._position : self._position + count - len(taken)]
            taken += [self._items[i] for i in part]
            self._position += len(part)
        return taken

    def record_length(self, item: Item, length: float) -> None:
        """Remember how long the responses to one of the items were, in tokens on average."""
        self._lengths[self._places[id(item)]] = length

    def expected_length(self, item: Item) -> float | None:
        """What was recorded last; None of an item that has not had its turn."""
        return self._lengths.get(self._places[id(item)])

    def state_dict(self) -> dict[str, Any]:
        """The position, and what it is a position in, as plain JSON values."""
        lengths = [[place, length] for place, length in sorted(self._lengths.items())]
        return {"epoch": self._epoch, "position": self._position, "lengths": lengths, **self._identity}

    def load_state_dict(self, state: Mapping[str, Any], *, may_differ: bool = False) -> bool:
        """Go on where `state` was taken, and say whether that could be.

        Where it is a position in other items, and those `may_differ`, they are begun from the first epoch. Raises
        CheckpointError where they may not, or the seed is another.
        """
        for key, own in self._identity.items():
            if state[key] != own:
                if may_differ and key != "seed":
                    self._start_epoch(0)
                    self._lengths = {}
                    return False
                raise CheckpointError(
                    f"The checkpoint belongs to other data: its {key} is {state[key]}, and this run's is "
                    f"{own}. Resume with the data, the template and the seed of the run that wrote it."
                )
        self._start_epoch(state["epoch"])
        self._position = state["position"]
        self._lengths = dict(map(tuple, state.get("lengths", ())))
        return True

    def _start_epoch(self, epoch: int) -> None:
        self._epoch, self._position = epoch, 0
        self._order = list(range(len(self._items)))
        random.Random(f"{self._seed}/{epoch}").shuffle(self._order)


def _fingerprint(items: Sequence[Any]) -> str:
    digest = hashlib.sha256()
    for item in items:
        digest.update(repr(item).encode())
    return digest.hexdigest()
