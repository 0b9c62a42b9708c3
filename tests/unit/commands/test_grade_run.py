"""`r1zero grade` on the responses that a run has kept."""

import json
import shutil

import pytest
from kept_groups import group, response

from grpo_cli.commands.grade import main
from grpo_cli.errors import CheckpointError, DataError
from grpo_cli.runs.frozen import frozen_text
from grpo_cli.runs.rollouts import Split, rollout_file, write_groups
from grpo_cli.types import Verdict

RIGHT = "so</think> <answer>1/2</answer>"


@pytest.fixture
def make_run(compose_as, tmp_path):
    """A function that makes the folder of a run with the template r1 and these groups."""

    def make(*groups, settings=("template=r1", "reward=accuracy")):
        config = compose_as("train", f"run.dir={tmp_path}", *settings)
        (tmp_path / "config.yaml").write_text(frozen_text(config), encoding="utf-8")
        for one in groups:
            write_groups(rollout_file(tmp_path, one.split, one.step), [one])
        return tmp_path

    return make


def test_responses_are_graded_as_in_the_run_and_compared(make_run, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    cases = [
        response(RIGHT, extracted="1/2", verdict=Verdict.correct),
        response(RIGHT, extracted="1/2", verdict=Verdict.wrong),  # as if the grader had been changed
        response(RIGHT, truncated=True, extracted=None, verdict=Verdict.unparsable),
        response("general", extracted=None, verdict=Verdict.unjudged),
    ]
    right = response("</think> <answer>3 - 1 - 2</answer>", verdict=Verdict.correct)
    followed = group(0, right, split=Split.heldout, problem="numbers", answer="3 1 2 = 0", grader="expression")
    run_dir = make_run(group(7, *cases, problem="half", answer="0.5"), followed)
    main([str(run_dir), f"out={run_dir / 'verdicts.jsonl'}"])
    rows = [json.loads(line) for line in (run_dir / "verdicts.jsonl").read_text().splitlines()]
    assert [(row["problem"], row["sample"], row["verdict_in_run"], row["verdict"]) for row in rows] == [
        ("numbers", 0, "correct", "correct"),
        ("half", 0, "correct", "correct"),
        ("half", 1, "wrong", "correct"),
        ("half", 2, "unparsable", "unparsable"),
    ]
    printed = capsys.readouterr().out
    assert "cut at the token limit" in next(line for line in printed.splitlines() if "half #2" in line)
    assert "numbers #0" not in printed
    assert "1 of 4 verdicts differ from the run's.\n" in printed
    assert "step 7, train, problem half, sample 1: wrong in the run, correct now" in printed


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="needs bubblewrap (apt-get install bubblewrap)")
def test_neither_the_functions_nor_the_sandbox_of_a_run_are_used(make_run, tmp_path, monkeypatch, capsys):
    (tmp_path / "mine.py").write_text("open('ran', 'w')\ndef reward(**_): return [0.0]\n")
    monkeypatch.chdir(tmp_path)
    program = f'</think>\n```python\nopen("{tmp_path}/escaped", "w")\nprint(1)\n```'
    tests = json.dumps({"inputs": [""], "outputs": ["1"]})
    own = ("++reward.terms.mine.function=mine:reward", "++reward.terms.code.sandbox=none", "data.grader=code")
    kept = group(7, response(program, verdict=Verdict.correct), answer=tests, grader="code")
    main([str(make_run(kept, settings=("reward=code", "template=r1", *own)))])
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "escaped").exists()
    assert "correct in the run, wrong now" in capsys.readouterr().out


def test_a_folder_without_a_run_or_without_groups_is_named(make_run, tmp_path):
    with pytest.raises(CheckpointError, match="holds no run"):
        main([str(tmp_path)])
    with pytest.raises(DataError, match="keeps no responses"):
        main([str(make_run())])
