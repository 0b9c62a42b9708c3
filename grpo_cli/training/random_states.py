"""The states of a rank's random generators as JSON, so that reading them cannot run code."""

import base64
import json
import random
from pathlib import Path
from typing import Any

import numpy
import torch


def save_random_states(folder: Path, rank: int) -> None:
    name, keys, *others = numpy.random.get_state(legacy=True)
    states = {
        "python": random.getstate(),
        "numpy": [name, numpy.asarray(keys).tolist(), *others],
        "torch": _text(torch.get_rng_state()),
        "cuda": _text(torch.cuda.get_rng_state()) if torch.cuda.is_available() else None,
    }
    (folder / f"rank_{rank:05d}.json").write_text(json.dumps(states), encoding="utf-8")


def load_random_states(folder: Path, rank: int) -> None:
    """Restore the generators. If this rank did not exist when they were saved, they stay unchanged."""
    file = folder / f"rank_{rank:05d}.json"
    if file.is_file():
        states = json.loads(file.read_text(encoding="utf-8"))
        states["torch"], states["cuda"] = _tensor(states["torch"]), states["cuda"] and _tensor(states["cuda"])
    elif file.with_suffix(".pt").is_file():  # written by earlier versions
        with torch.serialization.safe_globals(_NUMPY_TYPES):
            states = torch.load(file.with_suffix(".pt"), weights_only=True)
    else:
        return
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    numpy.random.set_state(tuple(states["numpy"]))
    torch.set_rng_state(states["torch"])
    if states["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


_NUMPY_TYPES: list[Any] = [
    (numpy.zeros(0).__reduce__()[0], "numpy._core.multiarray._reconstruct"),
    (numpy.zeros(0).__reduce__()[0], "numpy.core.multiarray._reconstruct"),
    numpy.ndarray,
    numpy.dtype,
    type(numpy.dtype("uint32")),
]


def _text(state: torch.Tensor) -> str:
    return base64.b64encode(state.numpy().tobytes()).decode()


def _tensor(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)
