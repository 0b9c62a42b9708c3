"""docs/metrics.md explains every metric that a step writes."""

import re
from pathlib import Path

from grpo_cli.metrics.metrics import rollout_tally
from grpo_cli.metrics.performance import performance
from grpo_cli.types import Completion, Problem, Prompt, Score, ScoredGroup, Verdict

PAGE = (Path(__file__).parents[3] / "docs/metrics.md").read_text(encoding="utf-8")
EXPLAINED = set(re.findall(r"`([\w./@<>]+)`", PAGE))
FILES = Path(__file__).parents[3] / "grpo_cli"


def test_every_metric_of_a_rollout_and_of_its_speed_is_explained():
    completions = tuple(Completion((1, 2), (-0.1, -0.2), "wait", False) for _ in range(2))
    scores = tuple(Score(1.0, {"<name>": 1.0}, verdict, None) for verdict in (Verdict.correct, Verdict.wrong))
    group = ScoredGroup(Prompt(Problem("a", "1+1?", "2"), "1+1?", (3,)), completions, scores)
    row = rollout_tally([group]).compute()
    speed = performance(
        row | {"time/step": 2.0, "time/rollout": 1.0, "time/update": 0.5, "perf/trained_tokens": 6.0},
    )
    assert len(speed) > 20
    assert set(speed) - EXPLAINED == set()


def test_every_metric_that_the_trainer_names_is_explained():
    named = {
        name
        for file in (FILES / "training").glob("*.py")
        for name in re.findall(r'"((?:policy|critic|sampler|group|reward)/\w+)"', file.read_text(encoding="utf-8"))
    }
    assert len(named) > 12
    assert named - EXPLAINED == set()
