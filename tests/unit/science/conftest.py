"""A small claim with a fake of r1zero that writes metrics instead of training."""

import json
import sys
from pathlib import Path

import pytest

from grpo_cli.commands import science
from grpo_cli.science import experiment

CLAIM = """\
# A claim for tests.
claim: Wide is better than narrow.
source: nowhere
scope: nothing
runs:
  wide: train steps=3 seed=${seed}
  narrow: train steps=4 seed=${seed}
statistic: paired_gap
options: {metric: eval/heldout/avg, first: wide, second: narrow}
limits: {confirmed_from: 0.1, refuted_to: -0.1}
seeds:
  development: [0, 1]
  confirmation: [10, 11, 12, 13, 14, 15, 16, 17]
minutes: 1
"""
# Adds a line to log.txt, and fails if do.json says so. The last accuracy is the number in do.json, otherwise 0.7 in
# `wide` and 0.5 in `narrow`.
FAKE = """\
import json, sys
from pathlib import Path

settings = dict(argument.split("=", 1) for argument in sys.argv[2:])
folder = Path(settings["run.dir"])
folder.mkdir(exist_ok=True)
with (folder.parent / "log.txt").open("a") as log:
    log.write(f"{folder.name}\\n")
do = folder.parent / "do.json"
what = json.loads(do.read_text()).get(folder.name) if do.exists() else None
if what == "fail":
    sys.exit(3)
last = what or (0.7 if folder.name.startswith("wide") else 0.5)
if sys.argv[1] == "sample":
    sys.exit()
(folder / "config.yaml").write_text("rollout: {group_size: 4}\\n")
rows = [{"step": 0, "eval/heldout/avg": 0.1}, {"step": 1}, {"step": 2, "eval/heldout/avg": last}]
(folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\\n" for row in rows))
"""


class Case:
    """A claim's file, the folder of its runs, and a way to start it."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "mine.yaml"
        self.file.write_text(CLAIM)
        self.folder = folder / experiment.FOLDER / "mine"
        (folder / "fake.py").write_text(FAKE)
        self.runner = [sys.executable, "-I", "-S", str(folder / "fake.py")]

    def start(self, *arguments: str) -> None:
        science.main([str(self.file), *arguments], self.runner)

    def change(self, old: str, new: str) -> None:
        assert old in self.file.read_text()
        self.file.write_text(self.file.read_text().replace(old, new))

    def let(self, **what: str | float) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "do.json").write_text(json.dumps(what))

    def started(self) -> list[str]:
        return (self.folder / "log.txt").read_text().splitlines()


@pytest.fixture
def case(tmp_path, monkeypatch) -> Case:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(experiment, "check_stages", lambda *_, **__: None)  # takes seconds and is tested elsewhere
    return Case(tmp_path)
