"""Python imports this at its start where tests/chaos is on PYTHONPATH: it lets a rank be killed in a chosen phase.

CHAOS_PHASE names the phase, CHAOS_VISITS how often it is to be entered before, CHAOS_DELAY_S how long after that the
kill comes, CHAOS_VICTIM who gets it (`rank` or `launcher`), CHAOS_LOG a file that is told where it struck.
"""

import os
import signal
import sys
import threading
import time

# Where a phase is: the end of a file's path, and a function in it.
PHASES = {
    "generation": ("rollout/collect.py", "collect_rollout"),
    "update": ("training/policy.py", "update"),
    "sync": ("training/weight_sync.py", "sync_weights"),
    "checkpoint": ("training/checkpoint.py", "_write"),
    "dropping": ("training/checkpoint.py", "_drop_old"),
    "evaluation": ("evaluation/live.py", "__call__"),
    "logging": ("metrics/loggers.py", "log"),
    "export": ("training/export.py", "export"),
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


def strike(thread: int) -> None:
    phase = os.environ["CHAOS_PHASE"]
    visits, was_in = int(os.environ["CHAOS_VISITS"]), False
    while phase != "start-up" and visits >= 0:
        now_in = is_in(phase, thread)
        visits -= now_in and not was_in
        was_in = now_in
        time.sleep(0.002)
    time.sleep(float(os.environ["CHAOS_DELAY_S"]))
    own = [f for f in frames(thread) if "/grpo_cli/" in f.f_code.co_filename]
    place = f"{own[0].f_code.co_filename.partition('/grpo_cli/')[2]}:{own[0].f_lineno}" if own else "imports"
    with open(os.environ["CHAOS_LOG"], "a") as log:
        log.write(f"{phase} of the {os.environ['CHAOS_VICTIM']}: {place}\n")
    os.kill(os.getppid() if os.environ["CHAOS_VICTIM"] == "launcher" else os.getpid(), signal.SIGKILL)


if "CHAOS_PHASE" in os.environ and "grpo_cli.launch.worker" in sys.orig_argv:
    threading.Thread(target=strike, args=[threading.get_ident()], daemon=True).start()
