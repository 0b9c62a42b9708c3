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
    """

    def __init__(self, items: Sequence[Item], seed: int) -> None:
        assert items, "a sampler needs items"
        self._items = items
        self._seed = seed
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

    def state_dict(self) -> dict[str, Any]:
        """The position, and what it is a position in, as plain JSON values."""
        return {"epoch": self._epoch, "position": self._position, **self._identity}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken.

        Raises CheckpointError where it is a position in other items, or of another seed.
        """
        for key, own in self._identity.items():
            if state[key] != own:
                raise CheckpointError(
                    f"The checkpoint belongs to other data: its {key} is {state[key]}, and this run's is "
                    f"{own}. Resume with the data, the template and the seed of the run that wrote it."
                )
        self._start_epoch(state["epoch"])
        self._position = state["position"]

    def _start_epoch(self, epoch: int) -> None:
        self._epoch, self._position = epoch, 0
        self._order = list(range(len(self._items)))
        random.Random(f"{self._seed}/{epoch}").shuffle(self._order)


def _fingerprint(items: Sequence[Any]) -> str:
    digest = hashlib.sha256()
    for item in items:
        digest.update(repr(item).encode())
    return digest.hexdigest()
