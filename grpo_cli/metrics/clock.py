"""Measures the time of a step and of its phases."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Wall-clock seconds: `time/<phase>` of each phase of a step, and `time/step` of the whole step."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._phases: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.add(name, time.perf_counter() - started)

    def add(self, name: str, seconds: float) -> None:
        self._phases[f"time/{name}"] = self._phases.get(f"time/{name}", 0.0) + seconds

    def times(self) -> dict[str, float]:
        return {**self._phases, "time/step": time.perf_counter() - self._started}
