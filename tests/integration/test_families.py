"""Every family trains correctly, or is rejected before anything is loaded. docs/families.md has the results."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from families import FAMILIES, UNSUPPORTED

SCRIPT = Path(__file__).parents[1] / "families.py"


@pytest.fixture(scope="module")
def try_family():
    command = [sys.executable, SCRIPT, "serve"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, **pipes, text=True) as server:

        def run(name: str) -> dict:
            print(name, file=server.stdin, flush=True)
            for line in server.stdout:
                if line.startswith("{"):
                    return json.loads(line)
            pytest.fail("the server of families ended")

        yield run
        server.stdin.close()


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in UNSUPPORTED])
def test_a_family_trains_with_the_results_of_its_own_forward_pass(name, try_family):
    outcome = try_family(name)
    assert outcome["error"] is None
    assert outcome["sampler"] < 1e-4
    assert outcome["sft_loss"] < 1e-5
    assert outcome["reloaded"] < 1e-4


@pytest.mark.parametrize("name", sorted(UNSUPPORTED))
def test_a_family_that_cannot_be_trained_is_rejected_with_the_reason(name, try_family):
    outcome = try_family(name)
    assert outcome["error"].startswith("ConfigError: ")
    assert f"a {name} model" in outcome["error"]
