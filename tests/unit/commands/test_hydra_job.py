"""Sweeps with the real Hydra; the jobs only write a result."""

import json
import re
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from grpo_cli import cli
from grpo_cli.commands import train
from grpo_cli.commands.hydra_job import MAX_NAME, Sweep, folder_name
from grpo_cli.config import machine
from grpo_cli.launch import local


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """Run a sweep in `<tmp_path>/sw`. Returns the exit status and the run folders in which training started.

    A job with beta=0.5 fails in training; the others reach an accuracy of epsilon.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "")  # restored after the test
    monkeypatch.setattr(Sweep, "folder", None)
    trained = []

    def launch(loop, config_file, *_):
        config = OmegaConf.load(config_file)
        trained.append(config_file.parent.name)
        assert (loop, config.resume.run) == ("train", "auto")
        if config.algorithm.beta == 0.5:
            raise ValueError("beta is half")
        result = {"step": config.steps, "eval/heldout/avg": config.algorithm.epsilon}
        (config_file.parent / "result.json").write_text(json.dumps(result))

    def run(*overrides):
        trained.clear()
        arguments = ["train", "-m", "algorithm.num_minibatches=4", "hydra.sweep.dir=sw", *overrides]
        monkeypatch.setattr(sys, "argv", ["r1zero", *arguments])
        try:
            cli.main()
        except SystemExit as end:
            return end.code, list(trained)
        return 0, list(trained)

    monkeypatch.setattr(local, "launch", launch)
    monkeypatch.setattr(machine, "installed_vllm", lambda: ("", None))  # even if the installed build is for GPUs
    return run


def folders(sweep: str = "sw") -> list[str]:
    return sorted(path.name for path in Path(sweep).iterdir() if path.is_dir())


def test_a_jobs_folder_is_named_by_its_swept_settings(sweep):
    assert sweep("algorithm.epsilon=0.1,0.2", "algorithm.beta=0,0.04", "steps=3")[0] == 0
    assert folders() == [
        "0_epsilon-0.1_beta-0",
        "1_epsilon-0.1_beta-0.04",
        "2_epsilon-0.2_beta-0",
        "3_epsilon-0.2_beta-0.04",
    ]
    config = OmegaConf.load("sw/2_epsilon-0.2_beta-0/config.yaml")
    assert config.run.dir == str(Path("sw/2_epsilon-0.2_beta-0").absolute())
    assert config.logger.group == "sw"


def test_the_folder_of_a_sweep_can_have_any_name(sweep):
    assert sweep("seed=1,2", """hydra.sweep.dir="it's données [1]\"""")[0] == 0
    assert folders("it's données [1]") == ["0_seed-1", "1_seed-2"]


def test_equal_jobs_do_not_share_a_folder(sweep):
    assert sweep("seed=1,1")[1] == ["0_seed-1", "1_seed-1"]


def test_jobs_that_vary_the_name_of_the_run_share_the_sweeps_folder(sweep):
    assert sweep("run.name=a,b", "hydra.sweep.dir=runs/${run.name}")[0] == 0
    assert folders("runs") == ["train"]
    assert folders("runs/train") == ["0_name-a", "1_name-b"]


def test_after_a_failed_job_the_others_run_and_the_status_is_1(sweep, capsys):
    status, trained = sweep("algorithm.beta=0,0.5,0.04")
    assert status == 1
    assert trained == ["0_beta-0", "1_beta-0.5", "2_beta-0.04"]
    assert "ValueError: beta is half" in Path("sw/1_beta-0.5/error.txt").read_text()
    printed = capsys.readouterr()
    assert "1_beta-0.5 failed: ValueError: beta is half" in printed.out
    assert "r1zero: 1_beta-0.5 failed: ValueError: beta is half" in printed.err
    assert "job 1 of 3: 0_beta-0\n" in printed.err
    assert re.search(r"job 3 of 3: 2_beta-0\.04, 0:0\d:\d\d left\n", printed.err)
    assert "Traceback" not in printed.err
    assert Path("sw/sweep.csv").is_file()
    assert Path("sw/sweep.html").is_file()


def test_an_unfinished_job_without_an_error_makes_the_status_1(sweep):
    Path("sw/7_beta-9").mkdir(parents=True)
    Path("sw/7_beta-9/job.json").write_text('{"swept": {"algorithm.beta": "9"}}')
    assert sweep("algorithm.beta=0,0.04") == (1, ["0_beta-0", "1_beta-0.04"])


def test_a_job_with_rejected_settings_fails_like_any_other(sweep, capsys):
    status, trained = sweep("rollout.group_size=1,4")
    assert (status, trained) == (1, ["1_group_size-4"])
    assert "makes every advantage 0" in Path("sw/0_group_size-1/error.txt").read_text()


def test_a_sweep_that_is_started_again_only_runs_unfinished_jobs(sweep):
    assert sweep("algorithm.beta=0,0.5,0.04")[1] == ["0_beta-0", "1_beta-0.5", "2_beta-0.04"]
    Path("sw/0_beta-0/result.json").unlink()  # as if the job had been interrupted
    Path("sw/0_beta-0/job.json").write_text('{"swept": {"algorithm.beta": "0"}}')
    assert sweep("algorithm.beta=0,0.5,0.04", "logger.trackers=[]") == (1, ["0_beta-0", "1_beta-0.5"])
    assert json.loads(Path("sw/0_beta-0/job.json").read_text())["objective"] == 0.2
    Path("sw/1_beta-0.5/result.json").write_text('{"step": 200, "eval/heldout/avg": 0.75}')
    assert sweep("algorithm.beta=0,0.5,0.04") == (0, [])
    assert not Path("sw/1_beta-0.5/error.txt").exists()


def test_a_sweep_with_a_changed_setting_fails_names_it_and_keeps_the_results(sweep, capsys):
    assert sweep("algorithm.beta=0,0.04")[0] == 0
    status, trained = sweep("algorithm.beta=0,0.04", "optimizer.lr=0.5")
    assert (status, trained) == (1, [])
    assert re.search(r"optimizer\.lr: \S+ in the run, 0\.5 now", capsys.readouterr().err)
    for folder in folders():
        assert json.loads(Path("sw", folder, "job.json").read_text())["objective"] == 0.2
        assert not Path("sw", folder, "error.txt").exists()


def test_each_job_returns_its_objective_also_when_the_sweep_is_started_again(sweep, monkeypatch):
    returned = []
    run = train.run
    monkeypatch.setattr(train, "run", lambda composed: returned.append(run(composed)) or returned[-1])
    sweep("algorithm.epsilon=0.1,0.3")
    sweep("algorithm.epsilon=0.1,0.3")  # now read from the folders
    assert returned == [0.1, 0.3, 0.1, 0.3]


@pytest.mark.parametrize(
    ("swept", "name"),
    [
        ({}, "7"),
        ({"algorithm": "dr_grpo", "algorithm.kl.placement": "loss"}, "7_algorithm-dr_grpo_placement-loss"),
        ({"benchmark": "[aime24,amc]"}, "7_benchmark-aime24-amc"),
        ({"optimizer.lr": "1e-06", "algorithm.beta": "-1"}, "7_lr-1e-06_beta--1"),
        ({"template.text": "a 'b' $c;\n<é>"}, "7_text-a-b-c-"),
        ({"data.path": "x" * 300}, ("7_path-" + "x" * 300)[:MAX_NAME]),
    ],
)
def test_a_folder_name_needs_no_quotes_and_has_a_limited_length(swept, name):
    assert folder_name(7, swept) == name
