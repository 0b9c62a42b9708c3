"""Every family trains right, or is refused before anything is loaded. The figures are those of docs/families.md."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from families import FAMILIES, REFUSED

SCRIPT = Path(__file__).parents[1] / "families.py"


@pytest.fixture(scope="module")
def try_family():
    command = [sys.executable, SCRIPT, "serve"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, **pipes, text=True) as server:

        def tried(name: str) -> dict:
            print(name, file=server.stdin, flush=True)
            for line in server.stdout:
                if line.startswith("{"):
                    return json.loads(line)
            pytest.fail("the server of families ended")

        yield tried
        server.stdin.close()


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in REFUSED])
def test_a_family_trains_as_its_own_forward_pass_says(name, try_family):
    seen = try_family(name)
    assert seen["error"] is None
    assert seen["sampler"] < 1e-4
    assert seen["sft_loss"] < 1e-5
    assert seen["reloaded"] < 1e-4


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_family_that_cannot_be_trained_is_refused_with_the_reason(name, try_family):
    seen = try_family(name)
    assert seen["error"].startswith("ConfigError: ")
    assert f"a {name} model" in seen["error"]
