"""The benchmarks run. No test looks at times."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SMALL = """
import json, sys
from dataclasses import replace
from workload import REALISTIC, Workload

if __name__ == "__main__":
    import {module}
    few = dict(prompts=2, group_size=2, mean=4, longest=8)
    workloads = {{"small": Workload("small", **few), "real": replace(REALISTIC, **few)}}
    {module}.WORKLOADS = {{{name!r}: workloads[{name!r}]}}
    {extra}
    print(json.dumps({module}.measure(1)))
"""
# Runners that do no work.
FAKES = """
import os, time
from pathlib import Path
from relay import on_ranks

SECOND_RANK = Path(__file__).with_name("second_rank")  # process id of a rank whose first rank is killed

def runs(turns, *_):
    while True:
        turns.wait({"accuracy": 1.0})

def raises(turns, *_):
    raise ModuleNotFoundError("No module named 'trl'")

def is_killed(turns, *_):
    on_ranks(2, turns, _is_killed)

def _is_killed(turns):
    if turns is None:
        SECOND_RANK.write_text(str(os.getpid()))
        time.sleep(60)
    while not SECOND_RANK.exists():
        time.sleep(0.01)
    turns.wait()
    os.kill(os.getpid(), 9)

def trl(turns, model, workload, generation, defaults, ranks):
    (runs if generation == "transformers" else raises if defaults else is_killed)(turns)
"""


def printed(code: str, folder: Path | None = None):
    """The last line that the code prints, parsed as JSON. With a folder, the code can import `fakes` from it."""
    if folder:
        (folder / "fakes.py").write_text(FAKES)
        code = f"import sys; sys.path.append({str(folder)!r})\n{code}"
    done = subprocess.run([sys.executable, "-c", code], cwd=BENCHMARKS, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def measured(module: str, workload: str, extra: str = "pass"):
    return printed(SMALL.format(module=module, name=workload, extra=extra))


def test_the_floor_ratio_is_r1zero_over_the_fewest_calls():
    for figures in measured("bench_floor", "small", "bench_floor.SETS = 1").values():
        assert figures["ratio"] == pytest.approx(figures["r1zero"] / figures["floor"])  # from one round


LOSS = """
import json
import bench_floor
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM
from grpo_cli.training.attention import PACKED_ATTENTION

shape = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2, "num_key_value_heads": 1}
config = Qwen2Config(vocab_size=11, num_hidden_layers=1, **shape)
policy = Qwen2ForCausalLM._from_config(config, attn_implementation=PACKED_ATTENTION)
sequences = [torch.tensor([1, 2, 3, 4, 5]), torch.tensor([6, 7, 8, 9])]
calls = []
policy.lm_head.register_forward_hook(lambda _, inputs, __: calls.append(len(inputs[0])))

def loss_gradient_and_calls(part_logits):
    bench_floor.PART_LOGITS = part_logits
    calls.clear()
    policy.zero_grad()
    loss = bench_floor._loss(policy, sequences, 2)
    loss.backward()
    return loss.item(), policy.lm_head.weight.grad.flatten().tolist(), list(calls)

print(json.dumps([loss_gradient_and_calls(1000), loss_gradient_and_calls(22)]))
"""


def test_the_floor_computes_many_logits_in_parts():
    # 3 and 2 response tokens; with a vocabulary of 11, 22 logits are 2 tokens
    (loss, gradient, calls), (loss_of_parts, gradient_of_parts, calls_of_parts) = printed(LOSS)
    assert calls == [5]
    assert sorted(calls_of_parts) == [1, 1, 2, 2, 2, 2]  # again in the backward pass
    assert loss_of_parts == pytest.approx(loss)
    assert gradient_of_parts == pytest.approx(gradient, abs=1e-6)


def test_the_phases_of_a_step_add_up():
    figures = measured("bench_step", "small")
    assert set(figures) == {"built-in", "small"}
    for of_workload in figures.values():
        shares = {name: share for name, share in of_workload.items() if name.startswith("share/")}
        assert sum(shares.values()) == pytest.approx(1)
        assert all(shares[f"share/{phase}"] > 0 for phase in ("rollout", "forward", "backward", "optimizer", "sync"))


PAIRS = """
import json
import bench_trl, relay

class Runner:
    # A step of TRL takes 12 s; one of r1zero takes 1 s in the first pair, 2 s in the second, and so on.
    now, most, pairs = 0, 0, 0

    def __init__(self, *arguments):
        Runner.now, Runner.most = Runner.now + 1, max(Runner.most, Runner.now + 1)
        ours = bench_trl.r1zero in arguments
        Runner.pairs += ours
        self.seconds = Runner.pairs if ours else 12

    def step(self):
        return self.seconds, {"accuracy": 1.0}

    def close(self):
        Runner.now -= 1

relay.Runner = Runner
bench_trl.synthetic = lambda *_: []
bench_trl.WORKLOADS = {"equal": bench_trl.WORKLOADS["equal"]}
print(json.dumps([Runner.most, bench_trl.measure(1)["equal"], Runner.most]))
"""


def test_trl_and_r1zero_run_in_pairs_and_never_more_than_two_at_once():
    _, figures, most = printed(PAIRS)
    assert most == 2
    ratios = {name: value for name, value in figures.items() if name.endswith("/ r1zero")}
    assert list(ratios.values()) == [12, 6, 4, 3, 2.4]  # each from its own pair
    assert figures["r1zero"] == 2  # the median of 1, 2 and 3
    assert figures["r1zero, two ranks"] == 4.5


DYING = """
import json
from pathlib import Path
import bench_trl, fakes

def is_alive(pid):
    try:
        return "State:\\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False

if __name__ == "__main__":
    bench_trl.r1zero, bench_trl.trl, bench_trl.trl_until = fakes.runs, fakes.trl, fakes.raises
    bench_trl.synthetic = lambda *_: []
    bench_trl.WORKLOADS = {"equal": bench_trl.WORKLOADS["equal"]}
    figures = bench_trl.measure(1)
    print(bench_trl.report(figures))
    print(json.dumps([figures, is_alive(int(fakes.SECOND_RANK.read_text()))]))
"""


def test_a_runner_that_dies_is_reported_and_the_others_still_run(tmp_path):
    figures, second_rank_is_alive = printed(DYING, tmp_path)
    equal = figures["equal"]
    assert "No module named 'trl'" in equal["TRL, vLLM, as it comes"]
    assert "killed by SIGKILL" in equal["TRL, vLLM"]
    assert "killed by SIGKILL" in equal["TRL, vLLM, two ranks"]
    for ours, theirs in (("r1zero", "TRL, transformers"), ("r1zero, two ranks", "TRL, transformers, two ranks")):
        assert equal[f"{theirs} / r1zero"] == pytest.approx(equal[theirs] / equal[ours])
    assert "No module named 'trl'" in figures["built-in"]["TRL, vLLM"]
    assert not second_rank_is_alive


FAILING = """
import json
import {module}
import fakes

if __name__ == "__main__":
    {module}.r1zero = fakes.raises
    {module}.synthetic = lambda *_: []
    {extra}
    print(json.dumps({module}.report({module}.measure(1))))
"""


@pytest.mark.parametrize(
    ("module", "extra", "failures"),
    [
        ("bench_step", "pass", 4),
        ("bench_floor", "pass", 3),
        ("bench_scaling", "bench_scaling._draw = lambda _: None", 18),
    ],
)
def test_a_workload_that_fails_is_reported_and_the_others_still_run(tmp_path, module, extra, failures):
    report = printed(FAILING.format(module=module, extra=extra), tmp_path)
    assert report.count("failed: ModuleNotFoundError: No module named 'trl'") == failures


RUN = """
import json, sys
from pathlib import Path
from types import SimpleNamespace
import run

def fails(rounds):
    raise MemoryError("none left")

run.RESULTS = Path({folder!r})
run.BENCHMARKS = {{
    "first": ("First", SimpleNamespace(measure=fails)),
    "second": ("Second", SimpleNamespace(measure=lambda rounds: 1, report=lambda figures: f"figure {{figures}}")),
}}
sys.argv = ["run.py"]
try:
    run.main()
except SystemExit as end:
    print(json.dumps(str(end)))
"""


def test_a_benchmark_that_fails_is_written_to_the_results_and_the_others_still_run(tmp_path):
    assert printed(RUN.format(folder=str(tmp_path))) == "failed: first"
    (written,) = tmp_path.glob("*.md")
    assert "It failed: MemoryError: none left" in written.read_text()
    assert "figure 1" in written.read_text()


TOKENS = """
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from transformers import AutoTokenizer
from workload import REALISTIC, problems, write_model

with TemporaryDirectory() as folder:
    write_model(Path(folder) / "model", REALISTIC)
    tokenizer = AutoTokenizer.from_pretrained(Path(folder) / "model")
    lengths = {len(ids) for ids in tokenizer(problems(REALISTIC)).input_ids}
    print(json.dumps([len(tokenizer), sorted(lengths)]))
"""


def test_the_realistic_workload_has_a_real_vocabulary_and_prompts_of_a_few_hundred_tokens():
    num_ids, lengths = printed(TOKENS)
    assert num_ids in (151_669, 151_936)  # Qwen3's tokenizer, or the byte-level one if it is missing
    assert lengths == [256]


@pytest.mark.skipif(find_spec("trl") is None, reason="needs the extra `bench`")
@pytest.mark.parametrize(
    ("workload", "runners"),
    [
        ("small", ["TRL, transformers", "TRL, vLLM", "TRL, vLLM, two ranks"]),
        ("real", ["TRL, transformers", "TRL, vLLM, as it comes"]),
    ],
)
def test_trl_does_the_same_work(workload, runners):
    figures = measured(
        "bench_trl",
        workload,
        f"bench_trl.THEIRS = {{name: bench_trl.THEIRS[name] for name in {runners}}};"
        "bench_trl.seconds_until_right = lambda _, *pair: [dict.fromkeys(pair, 1.0)]",
    )
    assert set(runners) < set(figures[workload])
    assert all(isinstance(value, float) for value in figures[workload].values()), figures  # text says what failed
