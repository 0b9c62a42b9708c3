"""Starting ranks that only generate again when they die (`rollout.restart_engines`)."""

import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from grpo_cli.launch.rank_errors import error_file, is_ours
from grpo_cli.launch.requests import print_if_open

MAX_RESTARTS = 5  # of each rank: if it dies more often, there is a cause that a restart does not remove


class Restarts:
    """Starts the ranks from `num_needed` on again, while the others run."""

    def __init__(
        self, num_needed: int, processes: Mapping[int, subprocess.Popen], start: Callable[[int], None], logs: Path
    ) -> None:
        self.needed = range(num_needed)
        self._processes = processes
        self._start = start
        self._logs = logs
        self._counts: Counter[int] = Counter()

    def start_dead(self) -> None:
        """Start each rank again that has died, unless its error is one of r1zero's, which a restart would repeat."""
        for rank in sorted(self._processes.keys() - set(self.needed)):
            code = self._processes[rank].poll()
            if not code or self._counts[rank] == MAX_RESTARTS or is_ours(self._logs, rank):
                continue
            if any(self._processes[needed].poll() is not None for needed in self.needed):
                continue  # it only lost its connections
            self._counts[rank] += 1
            error_file(self._logs, rank).unlink(missing_ok=True)
            print_if_open(
                f"\nRank {rank}, which generates, {how_it_ended(code)}. It is started again "
                f"({self._counts[rank]} of at most {MAX_RESTARTS} times). Its log: {self._logs}/rank_{rank}.log"
            )
            self._start(rank)


def how_it_ended(code: int) -> str:
    """What a process with this exit code did, as a part of a sentence."""
    if code >= 0:
        return f"exited with code {code}"
    cause = ", as Linux does when memory runs out" if code == -signal.SIGKILL else ""
    return f"was killed by {signal.Signals(-code).name}{cause}"
