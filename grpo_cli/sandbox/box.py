"""A box: one fresh process, isolated by bubblewrap, that runs untrusted code.

The box sees this Python installation (read-only) and a private /tmp, but no network, no other process, no environment
and no file of the user. bubblewrap gives it separate namespaces; resource limits and a system call filter limit what it
can use. It is killed at its deadline and if its parent dies.
"""

import contextlib
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from grpo_cli.choices import Sandbox
from grpo_cli.errors import SetupError
from grpo_cli.sandbox import box_tests, box_worker, wire
from grpo_cli.sandbox.bwrap import MIB, bwrap_command, site_packages
from grpo_cli.sandbox.syscall_filter import syscall_filter

START_TIMEOUT_S = 60  # for an empty box on a busy machine; the tested code's time starts afterwards
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "MALLOC_ARENA_MAX": "1",  # each further arena takes 64 MiB of address space, which RLIMIT_AS counts
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",  # the same code gets the same reward every time
}


@dataclass(frozen=True)
class Limits:
    """Resource limits of one box. Its total memory is at most `max_processes * memory_mib`, plus /tmp."""

    timeout_s: float = 10.0  # wall-clock time
    memory_mib: int = 512  # address space of one process
    max_processes: int = 8  # including threads
    output_mib: int = 4  # size of a returned value or of a file


class BoxError(Exception):
    """Raised if the code in a box failed: it did not load, died, sent too much or broke the protocol."""


class BoxTimeout(BoxError):
    """Raised if the code in a box was not finished at its deadline."""


def check_sandbox(sandbox: Sandbox) -> None:
    """Start an empty box. Raises SetupError with the fix if that does not work."""
    if sandbox == Sandbox.none:
        warnings.warn(
            "sandbox=none: code that the model writes runs on this machine with your permissions. "
            "Use sandbox=bwrap, unless the machine itself is a sandbox.",
            stacklevel=2,
        )
    with Box(sandbox, Limits()) as box:
        box.wait_until_ready()


class Box:
    """A started box, as a context manager. `load` gives it its only job.

    Methods raise BoxTimeout after the deadline, BoxError if the code in the box failed, and SetupError if the box
    itself did not start.
    """

    def __init__(self, sandbox: Sandbox, limits: Limits, stdin: bytes = b"") -> None:
        self._sandbox = sandbox
        self._limits = limits
        self._deadline = time.monotonic() + START_TIMEOUT_S
        self._unread = b""
        self._info: BinaryIO | None = None  # where bubblewrap writes its child's pid
        self._is_ready = False
        # Files in memory: RLIMIT_FSIZE limits their size, and a slow writer cannot block us.
        self._stdout, self._stderr = _memory_file(), _memory_file()
        self._channel, worker_channel = socket.socketpair()
        bwrap: list[str] = []
        with contextlib.ExitStack() as child_files:  # closed here once the child has them
            fds = [child_files.enter_context(worker_channel).fileno()]
            stdin_file = child_files.enter_context(_memory_file(stdin))
            if sandbox == Sandbox.bwrap:
                info, info_fd = os.pipe()
                child_files.callback(os.close, info_fd)
                self._info = os.fdopen(info, "rb", buffering=0)
                fds += [child_files.enter_context(_memory_file(syscall_filter())).fileno(), info_fd]
                bwrap = bwrap_command(*fds[1:])
            python = [os.path.realpath(sys.executable), "-sSP", "-c", _worker_source(), str(worker_channel.fileno())]
            self._process = subprocess.Popen(
                [*bwrap, *python],
                env={**ENVIRONMENT, "PYTHONPATH": os.pathsep.join(site_packages())},
                cwd="/",
                stdin=stdin_file,
                stdout=self._stdout,
                stderr=self._stderr,
                pass_fds=fds,
                start_new_session=True,
            )

    def __enter__(self) -> "Box":
        return self

    def __exit__(self, *_: object) -> None:
        self._kill()
        for close in (self._channel.close, self._stdout.close, self._stderr.close):
            close()
        if self._info:
            self._info.close()

    def wait_until_ready(self) -> None:
        """Wait until the empty box has started."""
        if self._is_ready:
            return
        try:
            self.receive()
        except BoxError as error:
            raise SetupError(
                f"sandbox={self._sandbox}: a box does not start ({self._last_stderr_line() or error}). bubblewrap "
                "must be 0.7 or later and be allowed to create namespaces; a container may need --privileged."
            ) from error
        self._is_ready = True

    def load(self, job: str, *, timeout_s: float | None = None, **frame: Any) -> None:
        """Give the box its job (see box_worker.py) and the code in `frame`; it has `timeout_s` from now.

        Without `timeout_s`, the time limit of the box applies.
        """
        self.wait_until_ready()
        self._deadline = time.monotonic() + (self._limits.timeout_s if timeout_s is None else timeout_s)
        self.send({"job": job, "limits": self._resource_limits(), **frame})
        if job != "program":
            reply = self.receive()
            if "raised" in reply:
                raise BoxError(describe_error(reply))

    def call(self, request: dict[str, Any]) -> dict[str, Any]:
        """Returns the reply of a `solution` box to a request to call `target` with `args` and `kwargs`."""
        self.send(request)
        return self.receive()

    def finish(self) -> str:
        """Returns what a `program` printed. Raises BoxError if its exit status is not 0."""
        ended = select.poll()
        with open(os.pidfd_open(self._process.pid)) as process:
            ended.register(process, select.POLLIN)
            if not ended.poll(self._remaining_s() * 1000):
                raise BoxTimeout("out of time")
        if status := self._process.wait():
            raise BoxError(printable(self._last_stderr_line() or f"exit status {status}"))
        return _content(self._stdout)

    def send(self, frame: dict[str, Any]) -> None:
        try:
            self._channel.settimeout(self._remaining_s())
            self._channel.sendall(json.dumps(frame).encode() + b"\n")
        except TimeoutError:
            raise BoxTimeout("out of time") from None
        except OSError:
            raise BoxError("the program ended before its tests did") from None

    def receive(self) -> dict[str, Any]:
        chunks, size = [self._unread], len(self._unread)
        while b"\n" not in chunks[-1]:
            try:
                self._channel.settimeout(self._remaining_s())
                chunk = self._channel.recv(1 << 16)
            except TimeoutError:
                raise BoxTimeout("out of time") from None
            except OSError:
                chunk = b""
            if not chunk:
                raise BoxError("the program ended before its tests did")
            chunks.append(chunk)
            size += len(chunk)
            if size > self._limits.output_mib * MIB:
                raise BoxError(f"more than {self._limits.output_mib} MiB of output")
        line, _, self._unread = b"".join(chunks).partition(b"\n")
        try:
            frame = json.loads(line)
        except (ValueError, RecursionError):
            frame = None
        if not isinstance(frame, dict):
            raise BoxError("the program wrote to the judge's channel")
        return frame

    def _kill(self) -> None:
        """Kill all processes of the box and leave no zombie, even if the machine's process 1 does not reap any.

        Only process 1 of the box is killed. The kernel then kills the others, and bubblewrap, which is still alive,
        reaps process 1 and exits.
        """
        pid = self._child() if self._process.poll() is None else None
        if pid is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        else:
            with contextlib.suppress(ProcessLookupError), open(os.pidfd_open(pid)) as child:
                if self._process.poll() is None:  # bubblewrap has not reaped its child, so the pid is not reused
                    signal.pidfd_send_signal(child.fileno(), signal.SIGKILL)
        self._process.wait()

    def _child(self) -> int | None:
        """Returns the pid of bubblewrap's child; None if it has none."""
        if self._info is None:
            return None
        info, readable = b"", select.poll()
        readable.register(self._info, select.POLLIN)
        while b"}" not in info:
            if not readable.poll(START_TIMEOUT_S * 1000) or not (chunk := self._info.read(1 << 10)):
                return None
            info += chunk
        return json.loads(info)["child-pid"]

    def _remaining_s(self) -> float:
        remaining_s = self._deadline - time.monotonic()
        if remaining_s <= 0:
            raise BoxTimeout("out of time")
        return remaining_s

    def _last_stderr_line(self) -> str:
        return (_content(self._stderr).strip().splitlines() or [""])[-1]

    def _resource_limits(self) -> dict[str, int]:
        limits = {
            "AS": self._limits.memory_mib * MIB,
            "CPU": int(self._limits.timeout_s) + 1,  # seconds
            "FSIZE": self._limits.output_mib * MIB,
            "NOFILE": 64,
            "MSGQUEUE": 0,
            "CORE": 0,
        }
        if self._sandbox == Sandbox.none:  # without a sandbox, NPROC would also count the user's other processes
            return limits
        return limits | {"NPROC": self._limits.max_processes}


def describe_error(reply: dict[str, Any]) -> str:
    """Returns text such as `TypeError: ...` for a box's report of an exception."""
    names = reply["raised"]
    name = names[0] if isinstance(names, list) and names else "error"
    return printable(f"{name}: {reply['text']}" if reply.get("text") else f"{name}")


def printable(text: str) -> str:
    """Returns the first 200 characters of `text`, safe to show on a terminal."""
    return "".join(char if char.isprintable() else "?" for char in text[:200])


@functools.cache
def _worker_source() -> str:
    """Returns the worker's source, with the modules that it imports, because the box has no `grpo_cli`."""
    modules = {module.__name__: Path(str(module.__file__)).read_text(encoding="utf-8") for module in (wire, box_tests)}
    load = "sys.modules[name] = module = type(sys)(name); exec(source, vars(module))"
    worker = Path(box_worker.__file__).read_text(encoding="utf-8")
    return f"import sys\nfor name, source in {modules!r}.items(): {load}\n{worker}"


def _memory_file(content: bytes = b"") -> BinaryIO:
    file = os.fdopen(os.memfd_create("box"), "w+b", buffering=0)
    file.write(content)
    file.seek(0)
    return file


def _content(file: BinaryIO) -> str:
    size = os.fstat(file.fileno()).st_size
    return os.pread(file.fileno(), size, 0).decode(errors="replace")
