"""The benchmarks run; how long they take is nobody's business here."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SMALL = """
import json, sys
from workload import Workload

if __name__ == "__main__":
    import {module}
    {module}.WORKLOADS = {{"small": Workload("small", prompts=2, group_size=2, mean=4, longest=8)}}
    {extra}
    print(json.dumps({module}.measure(1)))
"""


def measured(module: str, extra: str = "pass"):
    text = SMALL.format(module=module, extra=extra)
    done = subprocess.run([sys.executable, "-c", text], cwd=BENCHMARKS, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_step_is_compared_with_the_fewest_calls():
    figures = measured("bench_floor", "bench_floor.SETS = 1")["small"]
    assert figures["ratio"] == pytest.approx(figures["r1zero"] / figures["floor"])  # of one round


def test_the_phases_of_a_step_add_up():
    figures = measured("bench_step")
    assert set(figures) == {"built-in", "small"}
    for of_workload in figures.values():
        shares = {name: share for name, share in of_workload.items() if name.startswith("share/")}
        assert sum(shares.values()) == pytest.approx(1)
        assert all(shares[f"share/{phase}"] > 0 for phase in ("rollout", "forward", "backward", "optimizer", "sync"))


@pytest.mark.skipif(find_spec("trl") is None, reason="needs the extra `bench`")
def test_trl_does_the_same_work():
    seconds = "{'r1zero': 2, 'r1zero, two ranks': 1, 'TRL, transformers': 4, 'TRL, vLLM, two ranks': 3}"
    figures = measured("bench_trl", f"bench_trl.until_right = lambda seed: {seconds}")
    ratio = figures["small"]["TRL, vLLM"] / figures["small"]["r1zero"]
    assert figures["small"]["TRL, vLLM / r1zero"] == pytest.approx(ratio)
    assert figures["built-in"]["TRL, transformers / r1zero"] == 2
    assert figures["built-in"]["TRL, vLLM, two ranks / r1zero"] == 3  # r1zero on two ranks
