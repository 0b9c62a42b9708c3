"""The stages of gpu_check.py that need vLLM: doctor, a run, generation and sleep, and bench_gpu."""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from bench_gpu import measure_steps, peak_flops, rows_of_steps, rows_of_vllm, vllm_speed
from gpu_stage import Scale, seconds, tell
from r1zero_loop import composed, synthetic
from relay import gpu_gib, no_rank
from workload import PROMPT_TOKENS

R1ZERO = (sys.executable, "-m", "grpo_cli.cli")
REQUESTS = 512
AT_A_TIME = 256  # requests at the same time, for comparison
# vLLM's log lines about the model runner, the attention kernel, its start and its CUDA graphs.
LOG_LINES = re.compile(
    r"Using V\d Model Runner|Using \S+ attention backend|Using \S+ backend|init engine .*|Graph captur.*"
)


def doctor(scale: Scale) -> None:
    """Report the findings of `r1zero doctor`."""
    if scale.is_on_gpu:
        import vllm._C_stable_libtorch  # noqa: F401  (its kernels load)

        tell("vLLM's kernels", "load")
    quick = ["--quick"] * (not scale.is_on_gpu)
    done = subprocess.run([*R1ZERO, "doctor", "--json", *quick], capture_output=True, text=True, env=no_rank())
    if not done.stdout.strip():
        raise RuntimeError(done.stderr.strip()[-500:])
    found = json.loads(done.stdout)
    for finding in found["findings"]:
        if finding["level"] != "ok" or finding["about"] in ("packages", "vLLM", "DeepSpeed", "GPU"):
            tell(f"{finding['about']} ({finding['level']})", finding["seen"])
    if found["num_faults"]:
        faults = [f"{f['about']}: {f['seen']}" for f in found["findings"] if f["level"] == "fault"]
        raise RuntimeError("; ".join(faults))


def train(scale: Scale) -> None:
    """A short run of `r1zero train`: vLLM's model runner and kernel, and its difference from the trainer."""
    with tempfile.TemporaryDirectory(prefix="r1zero_bench_") as folder:
        run = Path(folder) / "run"
        place = "gpu_1" if scale.is_on_gpu else "cpu"
        task = ["experiment=smoke", f"cluster={place}", "steps=4", "logger=none", "algorithm.beta=0.04"]
        log_level = {"VLLM_LOGGING_LEVEL": "INFO"}
        command = [*R1ZERO, "train", *task, "cluster.offload_during_rollout=false", f"run.dir={run}"]
        ended = []
        taken = seconds(
            lambda: ended.append(subprocess.run(command, capture_output=True, text=True, env=no_rank() | log_level))
        )
        tell("four steps including the start, s", taken)
        tell("exit status", ended[0].returncode)
        for line in _vllm_log_lines(run / "logs/rank_0.log"):
            tell(f"vLLM: {line}", "yes")
        metrics = run / "metrics.jsonl"
        rows = [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.exists() else []
        differences = [row["sampler/logprob_diff_mean"] for row in rows[1:]]
        tell("log-probabilities of sampler and trainer: mean difference by step", _list(differences))
        if ended[0].returncode:
            raise RuntimeError(ended[0].stderr.strip()[-500:])


def _vllm_log_lines(log: Path) -> list[str]:
    text = log.read_text(errors="replace") if log.exists() else ""
    return list(dict.fromkeys(match.group() for match in LOG_LINES.finditer(text)))[:8]


def generation(scale: Scale) -> None:
    """Tokens per second with many requests at the same time; then the GPU memory that vLLM keeps while it sleeps."""
    from grpo_cli.model import load_base_model
    from grpo_cli.rollout.vllm_engine import RolloutEngine
    from grpo_cli.training.engine import init_distributed
    from grpo_cli.types import Request, Sampling

    class AsAsked(RolloutEngine):
        detokenizes = True

        def _params(self, *asked):
            params = super()._params(*asked)
            params.ignore_eos, params.stop_token_ids = True, []
            params.detokenize = self.detokenizes
            return params

    task = synthetic(scale.workload, scale.folder, device=scale.device, **scale.shape)
    config = composed([*task, *scale.overrides], scale.folder / "unused")
    init_distributed(config.cluster)
    model = load_base_model(config.model, config.rollout.longest_sequence)
    started = []
    tell("start of the engine, s", seconds(lambda: started.append(AsAsked(model, config.cluster, for_training=True))))
    engine = started[0]
    sampling = Sampling(temperature=1.0, top_p=1.0, max_new_tokens=scale.new_tokens)
    number = REQUESTS if scale.is_on_gpu else 8

    def generated(requests: Sequence[Request], at_a_time: int) -> None:
        for first in range(0, len(requests), at_a_time):
            completions = list(engine.generate(requests[first : first + at_a_time], sampling))
            assert all(len(completion.token_ids) == scale.new_tokens for _, completion in completions)

    def tell_speed(name: str, *, seeded: bool, at_a_time: int = number, detokenizes: bool = True) -> None:
        engine.detokenizes = detokenizes
        # Different prompts, so that none is in the prefix cache.
        prompts = [tuple((i * PROMPT_TOKENS + j) % 200 + 1 for j in range(PROMPT_TOKENS)) for i in range(number)]
        requests = [Request(prompt, seed=i if seeded else None) for i, prompt in enumerate(prompts)]
        speed = number * scale.new_tokens / seconds(lambda: generated(requests, at_a_time))
        tell(f"{number} requests of {scale.new_tokens} tokens, {name}: tokens/s", speed)

    tell_speed("to warm up", seeded=True)
    tell_speed("seeded", seeded=True)
    tell_speed("not seeded", seeded=False)
    tell_speed("seeded, not detokenised", seeded=True, detokenizes=False)
    tell_speed(f"seeded, {AT_A_TIME} at a time", seeded=True, at_a_time=min(AT_A_TIME, number // 2))
    if scale.is_on_gpu:
        torch.cuda.empty_cache()
        tell("in use on the GPU, vLLM awake, GiB", gpu_gib())
    taken = seconds(engine.sleep)
    if scale.is_on_gpu:
        torch.cuda.empty_cache()
        tell("going to sleep, s", taken)
        tell("in use on the GPU, vLLM asleep, GiB", gpu_gib())
        tell("... of it in torch's tensors, GiB", torch.cuda.memory_allocated() / 2**30)
    tell("waking up for the weights, s", seconds(engine.wake))


def bench(scale: Scale) -> None:
    """bench_gpu with one round."""
    overrides = [*synthetic(scale.workload, scale.folder, device=scale.device, **scale.shape), *scale.overrides]
    peak = peak_flops(torch.cuda.get_device_name()) if scale.is_on_gpu else None
    figures = measure_steps(1, overrides, scale.workload, scale.shape, peak)
    for label, value in rows_of_steps(figures):
        tell(label, value)
    for label, value in rows_of_vllm(figures, vllm_speed(overrides, scale.workload, scale.folder / "model")):
        tell(label, value)


def _list(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.2g}" for value in values) or "none"
