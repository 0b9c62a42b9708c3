"""Kill a rank or its launcher in a chosen phase. Python imports this at its start if tests/chaos is on PYTHONPATH.

CHAOS_PHASE: the phase. CHAOS_VISITS: how many of its occurrences to skip. CHAOS_DELAY_S: seconds from the start of the
phase to the kill. CHAOS_VICTIM: `rank` or `launcher`. CHAOS_LOG: a file to which the place of the kill is appended.
CHAOS_ONCE: if set, only the first process is killed that gets there.
"""

import os
import signal
import sys
import threading
import time

# The function of each phase: the end of its file's path, and its name.
PHASES = {
    "generation": ("rollout/collect.py", "collect_rollout"),
    "update": ("training/policy.py", "update"),
    "sync": ("training/weight_sync.py", "sync_weights"),
    "checkpoint": ("training/checkpoint.py", "_write"),
    "dropping": ("training/checkpoint.py", "_drop_old"),
    "evaluation": ("evaluation/live.py", "__call__"),
    "logging": ("metrics/loggers.py", "log"),
    "export": ("training/export.py", "export"),
    "serving": ("rollout/remote_engine.py", "_generate"),
    "receiving": ("link.py", "received_weights"),
}


def frames(thread: int) -> list:
    frame, stack = sys._current_frames().get(thread), []
    while frame is not None:
        stack.append(frame)
        frame = frame.f_back
    return stack


def is_in(phase: str, thread: int) -> bool:
    file, function = PHASES[phase]
    return any(f.f_code.co_name == function and f.f_code.co_filename.endswith(file) for f in frames(thread))


def kill(thread: int) -> None:
    phase = os.environ["CHAOS_PHASE"]
    visits, was_in = int(os.environ["CHAOS_VISITS"]), False
    while phase != "start-up" and visits >= 0:
        now_in = is_in(phase, thread)
        visits -= now_in and not was_in
        was_in = now_in
        time.sleep(0.002)
    time.sleep(float(os.environ["CHAOS_DELAY_S"]))
    ours = [f for f in frames(thread) if "/grpo_cli/" in f.f_code.co_filename]
    place = f"{ours[0].f_code.co_filename.partition('/grpo_cli/')[2]}:{ours[0].f_lineno}" if ours else "imports"
    with open(os.environ["CHAOS_LOG"], "x" if "CHAOS_ONCE" in os.environ else "a") as log:
        log.write(f"{phase} of the {os.environ['CHAOS_VICTIM']}: {place}\n")
    os.kill(os.getppid() if os.environ["CHAOS_VICTIM"] == "launcher" else os.getpid(), signal.SIGKILL)


if "CHAOS_PHASE" in os.environ and "grpo_cli.launch.worker" in sys.orig_argv:
    threading.Thread(target=kill, args=[threading.get_ident()], daemon=True).start()
