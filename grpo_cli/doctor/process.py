"""Run a probe in a process of its own, so that a crash, a hang or too little memory there is only a finding."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile

SEEN = "seen: "  # begins the line in which a probe says what it has seen
PROBE = (sys.executable, "-P", "-m", "grpo_cli.doctor.probe")


class ProbeError(Exception):
    """How a probe ended that did not succeed."""


def run_probe(name: str, limit_s: float) -> str:
    """What the probe has seen. Raises ProbeError where it fails, crashes, or has not ended in `limit_s` seconds."""
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        # A file, not a pipe: a process that the probe leaves behind would hold the pipe open.
        process = subprocess.Popen([*PROBE, name], stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            status = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise ProbeError(f"not done in {limit_s:g} s") from None
        finally:
            _kill_group(process)
        output.seek(0)
        lines = [line for line in output.read().splitlines() if line.strip()]
    if status < 0:
        cause = ", as a process is that needs more memory than there is" if status == -signal.SIGKILL else ""
        raise ProbeError(f"ended by {signal.Signals(-status).name}{cause}")
    told = [line for line in lines if line.startswith(SEEN)]
    if status or not told:
        raise ProbeError(lines[-1] if lines else f"exit status {status} without a word")
    return told[-1].removeprefix(SEEN)


def _kill_group(process: subprocess.Popen) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
