"""r1zero's training loop as a program of a relay: unchanged, except that each step waits for its turn."""

import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial, wraps
from itertools import cycle
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from relay import Turns, on_ranks, peak_gib
from workload import Workload, write_model, write_problems

# Two processes with one thread each, which divide the responses but no state.
TWO_RANKS = ["cluster=cpu_2rank", "cluster.zero_stage=0"]


@dataclass(frozen=True)
class Forced:
    """Lengths that no setting of r1zero controls: those of a step's responses, rank by rank. Empty: no fixed lengths.

    If `first` is given, the first step has these lengths, to warm up with less work.
    """

    lengths: Sequence[int] = ()
    first: Sequence[int] = ()


_turns: Turns | None = None  # only the first rank waits for turns
_forced = Forced()


def r1zero(turns: Turns, overrides: Sequence[str], forced: Forced = _forced, ranks: int = 1) -> None:
    """Run `r1zero train` with `overrides`. Reports the metrics of each step, its parts, and `peak_gib`."""
    from grpo_cli.runs.folder import run_folder_lock

    run_dir = Path(tempfile.mkdtemp(prefix="r1zero_bench_"))
    with run_folder_lock(run_dir, composed(overrides, run_dir), lambda: None) as config_file:
        on_ranks(ranks, turns, _rank, config_file, forced)


def composed(overrides: Sequence[str], run_dir: Path):
    """The validated configuration of `r1zero train` with `overrides`."""
    from hydra import compose, initialize_config_dir

    from grpo_cli.config.commands import check_settings
    from grpo_cli.config.compose import conf_dir, register_schemas, to_typed

    register_schemas()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = to_typed(compose("train", [f"run.dir={run_dir}", *overrides]), "train")
    check_settings(config)
    return config


def _rank(turns: Turns | None, config_file: Path, forced: Forced) -> None:
    global _turns, _forced
    _turns, _forced = turns, forced

    from grpo_cli.launch import worker

    worker.LOOPS["train"] = "r1zero_loop:train_in_turns"
    worker.main("train", config_file)


def train_in_turns(config, terminal) -> None:
    """The training loop with a clock that waits for a turn before each step."""
    from grpo_cli.metrics.clock import Clock
    from grpo_cli.ranks import rank
    from grpo_cli.rollout import vllm_engine
    from grpo_cli.training import grpo

    metrics = Path(config.run.dir) / "metrics.jsonl"
    parts = _timed_parts()
    num_steps = 0

    class WaitingClock(Clock):
        def __init__(self) -> None:
            nonlocal num_steps
            if _turns:
                row = metrics.read_text().splitlines()[-1]
                _turns.wait(json.loads(row) | parts.take() | {"peak_gib": peak_gib()})
            num_steps += 1
            super().__init__()

    class ForcedEngine(vllm_engine.RolloutEngine):
        """A response that is continued has its length as its text. Its next segments have to know it."""

        _lengths: Iterator[int] | None = None

        def generate(self, requests, sampling):
            lengths = _forced.first if _forced.first and num_steps <= 1 else _forced.lengths
            if not config.rollout.oversample:
                self._lengths = iter(lengths[rank() * len(requests) :])
            elif self._lengths is None:  # each step draws other lengths
                self._lengths = cycle([*lengths[rank() * len(lengths) // 2 :], *lengths])
            if not lengths:
                yield from super().generate(requests, sampling)
                return
            self._forced = [
                int(r.prefix.text) if r.prefix else next(self._lengths, sampling.max_new_tokens) for r in requests
            ]
            self._asked = iter(self._forced)
            for index, response in super().generate(requests, sampling):
                length = self._forced[index]
                yield index, replace(response, text=f"{length}", truncated=len(response.token_ids) < length)

        def _params(self, request, *others):  # called for each request in order
            params = super()._params(request, *others)
            if _forced.lengths:
                known = len(request.prefix.token_ids) if request.prefix else 0
                params.ignore_eos, params.stop_token_ids = True, []
                params.max_tokens = min(params.max_tokens, next(self._asked) - known)
            return params

    grpo.Clock = WaitingClock
    grpo.RolloutEngine = vllm_engine.RolloutEngine = ForcedEngine
    grpo.train(config, terminal)


class Parts:
    """The seconds in each part of a step, `part/<name>`, summed until `take` is called.

    On a GPU they are measured between two CUDA events, which are read only after the step. Synchronising after each
    part would add launch times that a normal run hides behind the GPU's work.
    """

    def __init__(self) -> None:
        self._seconds: Counter[str] = Counter()
        self._events: list[tuple[str, Any, Any]] = []

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        import torch

        if torch.cuda.is_available():
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            self._events.append((f"part/{name}", start, end))
            start.record()
            try:
                yield
            finally:
                end.record()
            return
        started = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[f"part/{name}"] += time.perf_counter() - started

    def take(self) -> dict[str, float]:
        """The seconds since the last call; waits for the GPU."""
        for name, start, end in self._events:
            end.synchronize()
            self._seconds[name] += start.elapsed_time(end) / 1000
        seconds = dict(self._seconds)
        self._events.clear()
        self._seconds.clear()
        return seconds


def _timed_parts() -> Parts:
    """The parts of all later steps: `engine_...` are calls through DeepSpeed, `torch_...` torch's work within them."""
    import torch

    from grpo_cli.rollout.vllm_engine import RolloutEngine
    from grpo_cli.training.engine import Engine
    from grpo_cli.training.logprobs import TokenLogprobs

    parts = Parts()

    def time_calls(owner, method: str, name: Callable[[], str]) -> None:
        function = getattr(owner, method)

        @wraps(function)
        def timed(*arguments, **options):
            with parts.part(name()):
                return function(*arguments, **options)

        setattr(owner, method, timed)

    time_calls(Engine, "__call__", lambda: "engine_forward" if torch.is_grad_enabled() else "engine_logprobs")
    time_calls(TokenLogprobs, "forward", lambda: "torch_forward" if torch.is_grad_enabled() else "torch_logprobs")
    time_calls(Engine, "backward", lambda: "engine_backward")
    time_calls(torch.Tensor, "backward", lambda: "torch_backward")
    time_calls(Engine, "step", lambda: "engine_step")
    time_calls(torch.optim.AdamW, "step", lambda: "torch_step")
    time_calls(torch.nn.utils, "clip_grad_norm_", lambda: "torch_step")
    time_calls(Engine, "reload", lambda: "swap")
    time_calls(RolloutEngine, "sleep", lambda: "swap")
    time_calls(RolloutEngine, "wake", lambda: "swap")
    return parts


def phases(seconds: float, report: Mapping[str, float]) -> dict[str, float]:
    """The seconds of a step by phase. `deepspeed` is DeepSpeed's time in addition to torch's work; `swap` is the time
    in which vLLM and the trainer make room for each other on a GPU.
    """
    part = Counter({name.removeprefix("part/"): s for name, s in report.items() if name.startswith("part/")})
    works = ("logprobs", "forward", "backward", "step")
    shares = {
        "rollout": report["time/rollout"],
        "reward": report["time/reward"],
        "logprobs": part["torch_logprobs"],
        "forward": part["torch_forward"],
        "backward": part["torch_backward"],
        "optimizer": part["torch_step"],
        "sync": report["time/sync"],
        "swap": part["swap"],
        "deepspeed": sum(part[f"engine_{work}"] - part[f"torch_{work}"] for work in works),
    }
    return shares | {"other": seconds - sum(shares.values())}


def synthetic(workload: Workload, folder: Path, *, device: str = "cpu", **shape: int) -> list[str]:
    """The overrides that train the workload's model on its prompts. Writes both to `folder` if they do not exist."""
    model, data = folder / "model", folder / "problems.jsonl"
    if not data.exists():
        with ProcessPoolExecutor(1, get_context("spawn")) as writer:  # frees the memory of its imports at the end
            writer.submit(partial(write_model, device=device, **shape), model, workload).result()
        write_problems(data, workload)
    return [
        "model=file",
        f"model.path={model}",
        "template=none",
        "data=file",
        f"data.path={data}",
        "data.num_heldout=1",
        "~reward.terms.accuracy",
        "~reward.terms.format",
        "+reward.terms.surprise={function: workload:reward, weight: 1.0}",
        f"rollout.prompts_per_step={workload.prompts}",
        f"rollout.group_size={workload.group_size}",
        f"rollout.max_prompt_tokens={workload.prompt_tokens}",
        f"rollout.max_new_tokens={workload.longest}",
        "eval.max_new_tokens=1",
        "eval.every_steps=0",
        "checkpoint.every_steps=0",
        "logger=none",
        "steps=1000000",
    ]
