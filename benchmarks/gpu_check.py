"""Checks r1zero on one Hopper GPU: `python benchmarks/gpu_check.py [stage ...]`, at most 8 minutes, no network.

Each stage is a process with a time limit. It reports figures as it measures them, so a stage that fails or runs out of
time keeps its figures, and the next one runs. The table is printed and written to results/gpu-<date>.json and .md; a
stage that is measured again on the same day replaces its figures. Without vLLM, stages that need it are left out.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import date
from importlib.util import find_spec
from pathlib import Path

import psutil
from gpu_stage import FAULT, SEEN
from results import RESULTS, gpu, machine, table

HERE = Path(__file__).parent
MINUTES = 8.0
LEAST_S = 5.0  # a stage is not started if less time is left
KEPT_LINES = 60  # of the output of a stage that fails
NO_GPU = "gpu_check needs a CUDA GPU, but torch finds none. Run it on a machine where `nvidia-smi` lists one."


@dataclass(frozen=True)
class Stage:
    title: str
    limit_s: float
    needs_vllm: bool = False


STAGES = {
    "deepspeed": Stage("DeepSpeed: one update of the built-in model, bf16, ZeRO-2", 60),
    "attention": Stage("Attention over sequences in one row", 60),
    "logprobs": Stage("Log-probabilities with a vocabulary of 151,936", 75),
    "update": Stage("An update of 1.5 B parameters", 100),
    "checkpointing": Stage("... with gradient checkpointing; moving the trainer's states", 80),
    "doctor": Stage("r1zero doctor", 100, needs_vllm=True),
    "train": Stage("r1zero train, built-in model, cluster=gpu_1", 140, needs_vllm=True),
    "generation": Stage("vLLM with 1.5 B parameters: 512 requests, sleep", 150, needs_vllm=True),
    "bench": Stage("bench_gpu, one round", 240, needs_vllm=True),
}


@dataclass(frozen=True)
class Outcome:
    """The results of a stage. If it failed, `fault` says why and `output` contains its last lines."""

    title: str
    seconds: float = 0.0
    figures: Mapping[str, float | str] = field(default_factory=dict)
    fault: str | None = None
    output: Sequence[str] = ()


def run_stage(title: str, command: Sequence[str], limit_s: float) -> Outcome:
    """The figures that the command reports (see gpu_stage.py) until it ends or is killed after `limit_s` seconds."""
    started = time.perf_counter()
    path = os.pathsep.join([str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    # A file instead of a pipe: a process that the stage leaves behind would keep the pipe open.
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=os.environ | {"PYTHONPATH": path},
        )
        try:
            status = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            _kill(process)
        seconds = time.perf_counter() - started
        output.seek(0)
        lines = [line.rstrip("\n") for line in output if line.strip()]
    figures = {}
    for line in _marked(lines, SEEN):
        figures |= json.loads(line)
    if status == 0:
        return Outcome(title, seconds, figures)
    fault = next(_marked(lines, FAULT), None) or (lines[-1] if lines else f"exit status {status}, no output")
    if status is None:
        fault = f"stopped after {limit_s:.0f} s"
    elif status < 0:
        fault = f"ended by {signal.Signals(-status).name}; its last line: {lines[-1] if lines else 'none'}"
    return Outcome(title, seconds, figures, fault, lines[-KEPT_LINES:])


def _marked(lines: Sequence[str], mark: str) -> Iterator[str]:
    return (line.removeprefix(mark) for line in lines if line.startswith(mark))


def _kill(process: subprocess.Popen) -> None:
    """Kill the process and its descendants, and wait until their memory is free. Runners of relay.py have their own
    process groups, so killing the group is not enough.
    """
    children = []
    with suppress(psutil.NoSuchProcess):
        children = psutil.Process(process.pid).children(recursive=True)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for child in children:
        with suppress(psutil.NoSuchProcess):
            child.kill()
    process.wait()
    psutil.wait_procs(children, timeout=10)


def outcomes(names: Sequence[str], minutes: float, *, tiny: bool) -> Iterator[tuple[str, Outcome]]:
    """The outcome of each stage, in the order of `names`; together they take at most `minutes`."""
    ends = time.perf_counter() + 60 * minutes
    with tempfile.TemporaryDirectory(prefix="r1zero_gpu_check_") as folder:
        for name in names:
            stage = STAGES[name]
            left = ends - time.perf_counter()
            if stage.needs_vllm and find_spec("vllm") is None:
                yield name, Outcome(stage.title, fault="left out: vLLM is not installed")
            elif left < LEAST_S:
                yield name, Outcome(stage.title, fault=f"left out: no time is left of {minutes:g} minutes")
            else:
                command = [sys.executable, str(HERE / "gpu_stage.py"), name, "--folder", folder, *["--tiny"] * tiny]
                # On a CPU, tiny stages may share the cores with other programs, so they get more time.
                yield name, run_stage(stage.title, command, min(stage.limit_s * (5 if tiny else 1), left))


def report(outcomes: Sequence[Outcome]) -> str:
    """All figures as one table in Markdown."""
    rows = []
    for outcome in outcomes:
        rows.append([f"**{outcome.title}**", f"{outcome.seconds:.0f} s" if outcome.seconds else ""])
        rows += [[label, _text(value)] for label, value in outcome.figures.items()]
        if outcome.fault is not None:
            # The end of a long message names the cause: it may be a whole traceback of another process.
            rows.append(["FAILED" if outcome.seconds else "not run", _text(outcome.fault[-500:])])
    return table(["figure", "value"], rows)


def _text(value: float | str) -> str:
    if isinstance(value, str):
        return value.replace("\n", " ")
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def write(folder: Path, card: Mapping | None, measured: Mapping[str, Outcome]) -> Path:
    """The JSON file of today, with a .md next to it."""
    file = folder / f"gpu-{date.today()}.json"
    where = {**machine(), "gpu": card}
    written = json.loads(file.read_text()) if file.exists() else {}
    if written.get("machine") != where:
        written = {"machine": where, "stages": {}}
    written["stages"] |= {name: asdict(outcome) for name, outcome in measured.items()}
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(written, indent=1) + "\n")
    packages = ", ".join(f"{name} {number}" for name, number in where["packages"].items())
    place = f"{card['name']}, {card['gib']} GiB, CUDA {card['cuda']}" if card else "CPU"
    known = [Outcome(**written["stages"][name]) for name in STAGES if name in written["stages"]]
    lines = [f"# {place}, {date.today()}", f"{where['cpu']}, Python {where['python']}, {packages}.", report(known)]
    file.with_suffix(".md").write_text("\n\n".join(lines) + "\n")
    return file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="*", metavar="stage", help=", ".join(STAGES))
    parser.add_argument("--minutes", type=float, default=MINUTES, help="for all stages together (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="folder of the two files (default: results; with --tiny none)")
    parser.add_argument("--tiny", action="store_true", help="only test that the stages run: tiny shapes, also on a CPU")
    options = parser.parse_args()
    if unknown := set(options.stages) - set(STAGES):
        parser.error(f"no such stage: {', '.join(sorted(unknown))}. Choose from {', '.join(STAGES)}.")
    card = gpu()
    if card is None and not options.tiny:
        sys.exit(NO_GPU)
    folder = options.out or (None if options.tiny else RESULTS)
    measured = {}
    for name, outcome in outcomes(options.stages or list(STAGES), options.minutes, tiny=options.tiny):
        measured[name] = outcome
        print(f"{name}: {outcome.seconds:.0f} s, {outcome.fault or 'done'}", flush=True)
        if folder:
            file = write(folder, card, measured)  # after each stage, because the next may crash the machine
    print(f"\n{report(list(measured.values()))}")
    if folder:
        print(f"\nwritten to {file} and {file.with_suffix('.md').name}")
    if any(outcome.fault and outcome.seconds for outcome in measured.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
