"""The command line as a user types it, in a real process if the process matters."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from grpo_cli import __version__, cli
from grpo_cli.choices import Device
from grpo_cli.commands.hydra_job import Sweep
from grpo_cli.config.commands import COMMANDS
from grpo_cli.config.machine import installed_vllm

R1ZERO = Path(sys.executable).parent / "r1zero"
CLUSTER = "cluster=gpu_1" if installed_vllm()[1] == Device.cuda else "cluster=cpu"  # what this machine can run


def r1zero(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess:
    return subprocess.run([R1ZERO, *arguments], capture_output=True, text=True, cwd=cwd, timeout=60)


def test_help_lists_the_commands():
    result = r1zero("--help")
    assert result.returncode == 0
    for command in ("train", "export", "grade", "doctor"):
        assert command in result.stdout


def test_the_error_for_an_unknown_command_suggests_the_nearest():
    result = r1zero("trian")
    assert result.returncode == 2
    assert "Did you mean `r1zero train`?" in result.stderr


@pytest.mark.parametrize("command", ["train", "plan", "grade"])
def test_help_of_a_command_shows_examples(command):
    result = r1zero(command, "--help")
    assert result.returncode == 0
    assert result.stdout.count(f"r1zero {command}") >= 3


@pytest.mark.parametrize(
    ("arguments", "line"),
    [(["seed=1"], "checking settings and data\n"), (["-m", "seed=1,2"], "checking settings and data\n")]
    + [([flag], "") for flag in ("--help", "-c", "--cfg=job", "--info=defaults")],
)
def test_a_run_prints_a_line_before_the_slow_imports(arguments, line, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "hydra", None)  # an import of it fails
    with pytest.raises(ImportError):
        cli._dispatch("train", arguments)
    assert capsys.readouterr().out == line


def test_cfg_job_prints_the_composed_configuration(tmp_path):
    result = r1zero("train", "seed=7", "--cfg", "job", "algorithm.epsilon=0.1", cwd=tmp_path)  # a flag in between
    assert result.returncode == 0
    assert "epsilon: 0.1" in result.stdout
    assert result.stdout.startswith("seed: 7\n")
    assert list(tmp_path.iterdir()) == []  # nothing ran


BAD_INPUT = [
    (["model=file"], "model.path is not set. Give it as model.path=...: A Hub id"),
    (["algorithm=grppo"], "Did you mean grpo?"),
    (["rollout.group_size=many"], "rollout.group_size"),
    (["rollout.prompts_per_step=100", "cluster.ranks=8"], "rollout.prompts_per_step=96"),
    (["model=file", "model.path=./nowhere"], "there is no model in that folder"),
    (["data=file", "data.path=nowhere.jsonl"], "there is no such file or folder"),
    (["run.dir=/proc/nowhere", CLUSTER], "cannot be written"),
    (["template.stop=3"], "template.stop"),
    ([f"optimizer.lr={10**400}"], "optimizer.lr=10000000000000000000...: must be finite."),
    (["template.text={problem}\\nAnswer:"], """'template.text="{problem}\\nAnswer:"'"""),
    (["rollout.group_size=4,8"], "Add -m for a sweep"),
    (["cluster.nodes=2", "cluster.ranks=2"], "reached through Slurm"),
    (["cluster=slurm_2x8", "cluster.ranks=9"], "for example cluster.ranks=8"),
    (["resume=auto"], "resume=auto needs the same run.dir at every start"),
    (["hydra.job.chdir=true"], "r1zero does not change its working folder"),
    (["-m", "run.dir=x", "seed=1,2"], "Set that instead, as in hydra.sweep.dir=x"),
    (["algorithm=glob(gr*)"], "Add -m for a sweep"),
    (["-m", "algorithm=glob(zz*)"], "algorithm=glob(zz*): matches no algorithm. Choose from cispo"),
    (["data.path=\x1b[2J"], r"\x1b[2J"),
    (["cluster.slurm.partition=a100"], "or cluster=slurm_2x8"),
    (["cluster.slurm={partition:a100}"], "or cluster=slurm_2x8"),
    (["critic={lr:1e-5}"], "A setting inside critic, cluster.slurm or model.shape is given"),
    (["cluster=slurm_2x8", "cluster.slurm.partitoin=a100"], "Did you mean cluster.slurm.partition?"),
]


@pytest.mark.parametrize(("overrides", "message"), BAD_INPUT, ids=[case[0][0][:60] for case in BAD_INPUT])
def test_the_error_for_bad_input_fits_on_one_screen(overrides, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["r1zero", "train", *overrides])
    monkeypatch.setattr(Sweep, "folder", None)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "")  # the command sets it; restored after the test
    monkeypatch.delenv("HYDRA_FULL_ERROR")
    with pytest.raises(SystemExit) as end:
        cli.main()
    errors = capsys.readouterr().err
    assert end.value.code == 1
    assert message in errors
    assert "Traceback" not in errors
    assert "\x1b" not in errors
    assert len(errors.splitlines()) <= 24
    assert list(tmp_path.iterdir()) == []


def test_a_run_folder_is_never_overwritten(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "metrics.jsonl").write_text("precious\n")
    result = r1zero("train", "run.dir=old", CLUSTER, cwd=tmp_path)
    assert result.returncode == 1
    assert "never overwritten" in result.stderr
    assert (tmp_path / "old" / "metrics.jsonl").read_text() == "precious\n"
    assert [path.name for path in (tmp_path / "old").iterdir()] == ["metrics.jsonl"]


def test_a_users_own_reward_term_is_given_like_any_other_setting(tmp_path):
    result = r1zero("train", "--cfg", "job", "reward.terms.brevity.function=my_rewards:brevity", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "function: my_rewards:brevity" in result.stdout


@pytest.mark.parametrize("arguments", [("train", "--cfg", "job"), ("--help",), ("grade", "--help")])
def test_output_to_a_closed_pipe_is_not_an_error(arguments):
    reading, writing = os.pipe()
    os.close(reading)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        [R1ZERO, *arguments], stdout=writing, stderr=subprocess.PIPE, text=True, env=environment, timeout=60
    )
    os.close(writing)
    assert done.stderr == ""
    assert done.returncode in (0, 128 + signal.SIGPIPE)  # depends on how much was written before the end


def test_an_error_keeps_its_status_if_nobody_can_read_its_message():
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with Path("/dev/full").open("w") as full:  # like a terminal that was closed
        finished = subprocess.run([sys.executable, "-m", "grpo_cli.cli", "show", "nowhere"], stderr=full, env=buffered)
    assert finished.returncode == 1


def test_any_other_broken_pipe_is_an_error():
    broken = "from grpo_cli import cli\ndef fail(_): raise BrokenPipeError('another')\ncli._run = fail\ncli.main()"
    done = subprocess.run([sys.executable, "-c", broken], capture_output=True, text=True, timeout=60)
    assert "BrokenPipeError: another" in done.stderr


def test_ctrl_c_before_a_run_has_started_prints_one_word():
    stopped = "from grpo_cli import cli\ndef stop(_): raise KeyboardInterrupt\ncli._run = stop\ncli.main()"
    done = subprocess.run([sys.executable, "-c", stopped], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (130, "r1zero: Stopped.\n")


def test_ctrl_c_during_an_import_that_swallows_it_ends_at_once(tmp_path):
    interrupted = "import os, signal, time\ntry:\n    os.kill(os.getpid(), signal.SIGINT)\n    time.sleep(60)\n"
    (tmp_path / "slow.py").write_text(f"{interrupted}except BaseException:\n    pass\n")
    run = "from grpo_cli import cli\ndef run(_): import slow\ncli._run = run\ncli.main()"
    done = subprocess.run([sys.executable, "-c", run], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert (done.returncode, done.stderr) == (130, "r1zero: Stopped.\n")


def test_the_version_is_that_of_r1zero():
    assert r1zero("train", "seed=1", "--version").stdout == f"r1zero {__version__}\n"


def test_no_command_imports_torch_before_it_has_checked_its_settings():
    modules = [f"grpo_cli.commands.{name.replace('-', '_')}" for name in COMMANDS]
    heavy = {"torch", "transformers", "vllm", "deepspeed", "datasets", "wandb"}
    code = f"import importlib, sys\n[*map(importlib.import_module, {modules})]\nprint({heavy} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "set()\n", done.stderr


@pytest.mark.parametrize("command", ["plan", "export"])
def test_a_command_for_one_run_rejects_a_sweep(command, tmp_path):
    result = r1zero(command, "-m", cwd=tmp_path)
    assert result.returncode == 2
    assert f"`r1zero {command}` is for one run at a time" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_settings_that_came_with_a_model_cannot_read_the_environment(tmp_path):
    (tmp_path / "r1zero_config.yaml").write_text("logger: {entity: '${oc.env:HOME}'}\n")
    settings = ("--config-path", str(tmp_path), "--config-name", "r1zero_config")
    result = r1zero("train", *settings, "--cfg", "job", "--resolve", cwd=tmp_path)
    assert result.returncode == 1
    assert "reads from your environment, which is not allowed: ${oc.env:HOME}" in result.stderr


def test_a_pattern_sweeps_over_the_options_that_match_it(tmp_path):
    result = r1zero("train", "-m", "algorithm=glob(gr*)", "steps=0", "hydra.sweep.dir=sweep", CLUSTER, cwd=tmp_path)
    assert "steps=0: must be" in result.stderr
    assert [folder.name for folder in (tmp_path / "sweep").iterdir() if folder.is_dir()] == ["0_algorithm-grpo"]
