"""Running claims with a small fake of r1zero: what runs, what is resumed, and what is reported."""

import json

import pytest

from grpo_cli.commands import science
from grpo_cli.errors import ConfigError, TrainingError
from grpo_cli.pipeline.run import read_progress
from grpo_cli.science import experiment

DEV = ["wide_0", "narrow_0", "wide_1", "narrow_1"]


def facts(case, capsys) -> dict:
    capsys.readouterr()
    case.start("--json")
    (claim,) = json.loads(capsys.readouterr().out)
    return claim


def test_each_arm_runs_with_each_seed_in_a_folder_and_resumes_what_it_saved(case):
    case.start("seeds=dev")
    assert case.started() == DEV
    words = read_progress(case.folder)["wide_1"]["words"]
    folder = case.folder / "wide_1"
    assert words == ["train", "logger.group=mine", "steps=3", "seed=1", f"run.dir={folder}", "resume=auto"]


def test_finished_runs_do_not_run_again_and_new_seeds_are_added(case):
    case.start("seeds=dev")
    case.start("seeds=dev")
    case.start("seeds=1,5")
    assert case.started() == [*DEV, "wide_5", "narrow_5"]


@pytest.mark.parametrize("name", DEV)
def test_a_run_that_failed_is_the_first_to_run_again(case, name):
    case.let(**{name: "fail"})
    with pytest.raises(
        TrainingError, match=f"(?s){name} ended with exit status 3.*r1zero science .*mine.yaml seeds=dev"
    ):
        case.start("seeds=dev")
    place = DEV.index(name)
    assert case.started() == DEV[: place + 1]
    case.let()
    case.start("seeds=dev")
    assert case.started() == [*DEV[: place + 1], *DEV[place:]]


def test_a_claim_that_changed_after_its_first_run_is_not_continued(case):
    case.start("seeds=0")
    case.change("steps=3", "steps=9")
    with pytest.raises(
        ConfigError, match=r"(?s)wide_0 was started with other settings: steps=3 then, steps=9 now.*remove"
    ):
        case.start("seeds=0")


def test_the_verdict_comes_from_the_confirmation_seeds_alone(case, capsys):
    case.let(wide_0=0.1, wide_1=0.2)
    case.start("seeds=dev")
    assert facts(case, capsys)["verdict"] == "no verdict yet"
    case.start()
    found = facts(case, capsys)
    assert found["verdict"] == "confirmed"
    confirmation, development = found["sets"]
    assert (confirmation["role"], confirmation["num_seeds"]) == ("confirmation", 8)
    assert confirmation["median"] == pytest.approx(0.2)  # 0.7 - 0.5
    assert [value for _, value in development["values"]] == pytest.approx([-0.4, -0.3])
    assert found["runs"][0] == {"arm": "wide", "line": "r1zero train steps=3 seed=10"}


def test_a_claim_that_does_not_hold_is_reported_so(case, capsys):
    case.let(**{f"wide_{seed}": 0.2 for seed in range(10, 18)})
    case.start()
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("| mine") and "-0.300" in line and "| refuted" in line for line in lines)


def test_a_seed_counts_once_all_arms_are_done(case, capsys):
    case.let(narrow_1="fail")
    with pytest.raises(TrainingError):
        case.start("seeds=dev")
    (development,) = facts(case, capsys)["sets"]
    assert [seed for seed, _ in development["values"]] == [0]
    assert "mine" in (case.folder.parent / "report.html").read_text()  # written although a run failed


def test_an_arm_can_use_what_an_earlier_arm_of_its_seed_left(case, capsys):
    case.change(
        "narrow: train", "traces: sample seed=${seed}\n  narrow: train data.path=${dir}/traces_${seed}/traces.jsonl"
    )
    case.start("seeds=dev")
    assert f"data.path={case.folder}/traces_1/traces.jsonl" in read_progress(case.folder)["narrow_1"]["words"]
    found = facts(case, capsys)
    assert found["runs"][2]["line"] == (
        "r1zero train data.path=runs/science/mine/traces_10/traces.jsonl steps=4 seed=10"
    )
    # Sampling leaves no metrics, so it has no curve.
    assert {arm for curve in found["curves"] for arm, *_ in curve["runs"]} == {"wide", "narrow"}


def test_more_curves_can_be_shown_than_the_statistic_needs(case, capsys):
    case.change("minutes: 1", "minutes: 1\ncurves: [eval/heldout/length]")
    case.start("seeds=0")
    assert [curve["metric"] for curve in facts(case, capsys)["curves"]] == ["eval/heldout/avg", "eval/heldout/length"]


@pytest.mark.parametrize(("cores", "at_once"), [(8, 2), (1, 1), (None, 1)])
def test_runs_at_the_same_time_need_a_core_each(case, monkeypatch, cores, at_once):
    case.change("minutes: 1", "minutes: 1\nat_once: 2")
    found = []
    monkeypatch.setattr(experiment, "run_stages", lambda *arguments: found.append(arguments[-1]))
    monkeypatch.setattr(experiment.os, "cpu_count", lambda: cores)
    case.start("seeds=0")
    assert found == [at_once]


def test_a_report_runs_nothing(case):
    case.start("--report")
    assert not case.folder.exists()
    assert (case.folder.parent / "report.html").is_file()


def test_a_claim_outside_the_default_set_runs_only_if_it_is_named_and_is_reported_all_the_same(
    case, capsys, monkeypatch
):
    case.change("minutes: 1", "minutes: 1\nby_default: false")
    monkeypatch.setattr(science, "claim_files", lambda: {str(case.file): case.file})
    science.main(["seeds=0"], case.runner)
    assert not case.folder.exists()
    science.main([str(case.file), "seeds=0"], case.runner)
    assert case.started() == ["wide_0", "narrow_0"]
    capsys.readouterr()
    science.main(["--json"], case.runner)
    assert [claim["name"] for claim in json.loads(capsys.readouterr().out)] == ["mine"]


@pytest.mark.parametrize("setting", ["seeds=", "seeds=all", "seeds=1,", "seeds=-1", "steps=3"])
def test_a_setting_that_is_no_choice_of_seeds_is_rejected(case, setting):
    with pytest.raises(ConfigError, match=f"{setting}: "):
        case.start(setting)
