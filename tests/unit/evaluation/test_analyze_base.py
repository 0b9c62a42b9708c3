"""`r1zero analyze` on a rank, without an engine."""

import io
import json

import pytest

from grpo_cli.errors import ConfigError
from grpo_cli.evaluation import analyze_base
from grpo_cli.evaluation.samples import SampleStore


@pytest.fixture
def config(compose_as, tmp_path):
    """Three problems, two responses each, under two templates; the judge finds a 4 in an answer."""
    rows = [{"id": f"p{n}", "problem": f"{n} + {n}?", "answer": f"{2 * n}"} for n in range(1, 4)]
    (tmp_path / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return compose_as(
        "analyze",
        *("data=file", f"data.path={tmp_path}/problems.jsonl", "eval.n=2", "analyze.group_sizes=[2]", "logger=none"),
        *("+template@templates.r1=r1", "+template@templates.none=none", "analyze.judge=builtin:random"),
        f"run.dir={tmp_path}/run",
    )


@pytest.fixture
def asked(monkeypatch) -> list[list[str]]:
    """The texts given to the judge, one list per call."""
    calls = []

    def judge(samples, problems):
        assert {sample.id for sample in samples} <= {problem.id for problem in problems}
        calls.append([sample.text for sample in samples])
        return ["4" in sample.text for sample in samples]

    monkeypatch.setattr(analyze_base, "load_judge", lambda path, cluster, console: judge)
    return calls


@pytest.mark.usefixtures("one_rank")
def test_the_judges_replies_to_the_stored_samples_are_counted(config, asked, sample, tmp_path):
    texts = {"r1": ["4", "4", "no", "4", "no", "no"], "none": ["no", "no", "no", "no", "no", "4"]}
    folder = tmp_path / "run/analyze"
    folder.mkdir(parents=True)
    for series in analyze_base._all_series(config):
        asked_for = [(problem.id, number) for problem in series.problems for number in range(2)]
        responses = zip(asked_for, texts[series.name], strict=True)
        stored = [sample(id, number, text=text) for (id, number), text in responses]
        # In reverse order, and with one more sample than asked for, from an earlier start with eval.n=3.
        SampleStore(folder, series.name).append([sample("p1", 2, text="4"), *reversed(stored)], rank=0)

    analyze_base.judge(config, io.StringIO())

    assert asked == list(texts.values())
    found = json.loads((tmp_path / "run/analyze.json").read_text())["templates"]
    assert {name: metrics["answering"] for name, metrics in found.items()} == {"r1": 3 / 6, "none": 1 / 6}
    assert found["r1"]["num_samples"] == 6


@pytest.mark.usefixtures("one_rank")
def test_a_missing_judge_is_reported_before_anything_is_sampled(config, tmp_path, monkeypatch):
    (tmp_path / "judge").mkdir()
    (tmp_path / "judge/config.json").write_text("{}")
    config.analyze.judge = str(tmp_path / "judge")
    monkeypatch.setattr(analyze_base, "complete", lambda *_: pytest.fail("samples were made"))
    with pytest.raises(ConfigError, match="holds no weights"):
        analyze_base.analyze(config, io.StringIO())
