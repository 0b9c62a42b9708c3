"""Which checkpoints are kept, what is restored, and how damage, full disks and divergence are handled."""

import json
import math
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy
import pytest
import torch

from grpo_cli.data.sampler import EpochSampler
from grpo_cli.errors import CheckpointError, DivergedError
from grpo_cli.runs.resume import whole_checkpoints
from grpo_cli.training.batch import TrainingSequence
from grpo_cli.training.checkpoint import Checkpoints
from grpo_cli.training.checkpoint_files import check_whole
from grpo_cli.training.engine import consolidated_weights
from grpo_cli.training.policies import rl_policy
from grpo_cli.training.policy import Policy
from grpo_cli.types import Problem, Prompt

pytestmark = pytest.mark.usefixtures("ranks")
BEST = "eval/heldout/avg"
PROMPTS = [Prompt(Problem(f"{i}", "", ""), "", (23, 15, i)) for i in range(5)]
SEQUENCE = TrainingSequence((23, 15), (40, 41, 42), (-1.0,) * 3, advantage=1.0, weight=1 / 3)


@pytest.fixture
def policy(model, config) -> Policy:
    return rl_policy(model, config)


@pytest.fixture
def sampler() -> EpochSampler:
    return EpochSampler(PROMPTS, seed=0)


@pytest.fixture
def saved(config, policy, sampler, tmp_path):
    """Save after each given step, with its held-out accuracy or none. Returns the steps whose checkpoints are left."""
    config.run.dir, config.data.name = str(tmp_path), "unused"

    printed: list[str] = []

    def save(
        *steps: int, accuracy: dict[int, float] | None = None, must: bool = True, best: str = BEST, **metrics: float
    ) -> list[int]:
        checkpoints = Checkpoints(config, "train", printed.append)
        for step in steps:
            of_step = {"policy/grad_norm": 0.5, **{name.replace("__", "/"): value for name, value in metrics.items()}}
            if accuracy and step in accuracy:
                of_step[best] = accuracy[step]
            checkpoints.maybe_save(step, policy, sampler, of_step, must=must)
        return sorted(int(folder.name.removeprefix("step_")) for folder in whole_checkpoints(tmp_path))

    save.printed = printed
    return save


def load(config, policy, sampler) -> tuple[int, list[str]]:
    """The step that was resumed from, and the lines that were printed."""
    printed: list[str] = []
    return Checkpoints(config, "train", printed.append).load_latest(policy, sampler), printed


def test_everything_that_a_run_needs_is_restored(saved, config, model, policy, sampler):
    policy.update([[SEQUENCE]])
    sampler.next(3)
    saved(7)
    expected = [sampler.next(4), random.random(), numpy.random.rand(), torch.rand(1).item()]
    weights = {name: weight.clone() for name, weight in policy.named_weights()}
    resumed, other = rl_policy(model, config), EpochSampler(PROMPTS, seed=0)
    torch.manual_seed(1)
    assert load(config, resumed, other) == (7, [])
    assert [other.next(4), random.random(), numpy.random.rand(), torch.rand(1).item()] == expected
    assert all(torch.equal(weight, weights[name]) for name, weight in resumed.named_weights())


def test_without_a_checkpoint_a_run_starts_at_step_0(config, policy, sampler, tmp_path):
    config.run.dir = str(tmp_path)
    assert load(config, policy, sampler) == (0, [])


@pytest.mark.parametrize(
    ("keep", "accuracy", "left"),
    [
        ({"keep_last": 2}, {}, [50, 60]),
        ({"keep_last": 1}, {}, [50, 60]),  # step 60 went well, so 50 is healthy; 60 is still unknown
        ({"keep_last": 1, "keep_every": 20}, {}, [20, 40, 50, 60]),
        ({"keep_last": 1, "keep_best": BEST}, {20: 0.5, 30: 0.75, 40: 0.75, 50: 0.25}, [30, 50, 60]),
        ({"keep_last": 1, "keep_best": BEST}, {20: 0.5, 30: math.nan, 40: 0.25, 50: math.nan}, [20, 50, 60]),
        ({"keep_last": 1, "keep_best": BEST}, {}, [50, 60]),
    ],
)
def test_the_settings_decide_which_checkpoints_are_kept(saved, config, keep, accuracy, left):
    for name, value in keep.items():
        setattr(config.checkpoint, name, value)
    assert saved(10, 20, 30, 40, 50, 60, accuracy=accuracy) == left


def test_the_best_step_is_saved_between_regular_checkpoints(saved, config):
    config.checkpoint.every_steps, config.checkpoint.keep_best = 100, "eval/heldout/avg"
    assert saved(10, 20, 30, 40, accuracy={10: 0.5, 20: 0.25, 30: 0.75}, must=False) == [10, 30]


def last_file(run_dir: Path) -> Path:
    return next((run_dir / "checkpoints/step_000020/deepspeed").iterdir())


DAMAGES = {
    "a bit has flipped": lambda file: file.write_bytes(file.read_bytes()[:-1] + b"x"),
    "it is cut short": lambda file: os.truncate(file, 100),
    "it is gone": os.unlink,
    "the manifest is gone": lambda file: (file.parents[1] / "manifest.json").unlink(),
    "the manifest is cut short": lambda file: os.truncate(file.parents[1] / "manifest.json", 20),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_renamed_and_the_previous_one_is_used(saved, config, policy, sampler, tmp_path, damage):
    saved(10, 20)
    file = last_file(tmp_path)
    DAMAGES[damage](file)
    with pytest.raises(CheckpointError, match="step_000020 is"):
        check_whole(tmp_path / "checkpoints/step_000020")
    step, (printed,) = load(config, policy, sampler)
    assert step == 10
    assert "step_000020 is" in printed
    assert ("manifest" if "manifest" in damage else file.name) in printed
    assert "the run resumes from step_000010" in printed
    assert saved(20) == [10, 20]  # step 20 runs again
    assert load(config, policy, sampler) == (20, [])
    assert (tmp_path / "checkpoints/step_000020.damaged").is_dir()


def test_without_a_complete_checkpoint_the_run_does_not_start_again(saved, config, policy, sampler, tmp_path):
    saved(20)
    os.truncate(last_file(tmp_path), 100)
    with pytest.raises(CheckpointError, match=r"(?s)No checkpoint of .* is complete:.*step_000020 is damaged"):
        load(config, policy, sampler)
    assert (tmp_path / "checkpoints/step_000020").is_dir()


@pytest.mark.parametrize("end", [".partial", ".removed"])
def test_an_unfinished_checkpoint_of_a_killed_run_is_reported_and_removed(
    saved, config, policy, sampler, tmp_path, end
):
    saved(10)
    half = shutil.copytree(tmp_path / "checkpoints/step_000010", tmp_path / f"checkpoints/step_000020{end}")
    step, (printed,) = load(config, policy, sampler)
    assert step == 10
    assert str(half) in printed
    assert not half.exists()


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of 3 MiB, large enough for one checkpoint of 2 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("mounting a file system needs root")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.mark.parametrize("stage", [0, 2])
def test_a_full_disk_stops_the_run_and_leaves_the_last_checkpoint(stage, model, config, sampler, small_disk):
    config.cluster.zero_stage = stage
    config.run.dir, config.data.name = str(small_disk), "unused"
    policy, checkpoints = rl_policy(model, config), Checkpoints(config, "train", print)
    policy.update([[SEQUENCE]])  # creates the optimizer states
    checkpoints.maybe_save(10, policy, sampler, {}, must=True)
    with pytest.raises(CheckpointError, match=r"(?s)step 20 cannot be written.*Free some space.*resume="):
        checkpoints.maybe_save(20, policy, sampler, {}, must=True)
    assert [path.name for path in (small_disk / "checkpoints").iterdir()] == ["step_000010"]
    check_whole(small_disk / "checkpoints/step_000010")


def test_a_folder_that_cannot_be_written_gives_an_error_with_the_fix(saved, tmp_path):
    (tmp_path / "checkpoints").write_text("a file in its place")
    with pytest.raises(CheckpointError, match=r"(?s)step 10 cannot be written.*fix the folder"):
        saved(10)


def test_a_run_whose_w_and_b_folder_was_lost_keeps_its_id(saved, config, policy, sampler, tmp_path):
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb/run_id").write_text("abc")
    saved(10)
    assert json.loads((tmp_path / "checkpoints/step_000010/state.json").read_text())["wandb"] == {
        "id": "abc",
        "step": 10,
        "run_dir": None,
    }
    shutil.rmtree(tmp_path / "wandb")
    load(config, policy, sampler)
    assert (tmp_path / "wandb/run_id").read_text() == "abc"


# ------------------------------------------------------------ divergence, and folders that cannot be removed


def test_the_lowest_loss_is_the_best_and_nan_is_ignored(saved, config):
    config.checkpoint.keep_last, config.checkpoint.every_steps = 1, 100
    config.checkpoint.keep_best = "eval/heldout/loss"
    losses = {10: 0.5, 20: 0.25, 30: 0.75, 40: math.nan, 50: 0.5}
    assert saved(*losses, accuracy=losses, best="eval/heldout/loss", must=False) == [20]


def test_a_healthy_checkpoint_allows_the_previous_one_to_be_removed(saved, config):
    config.checkpoint.keep_last = 1
    assert saved(10, 20) == [10, 20]
    config.checkpoint.every_steps = 100
    assert saved(21, must=False) == [20]


@pytest.mark.parametrize(
    "metrics",
    [
        {"policy__grad_norm": 1e6},
        {"policy__grad_norm": math.nan},
        {"policy__entropy": 40.0},
        {"policy__kl_ref": math.inf},
        {"policy__loss": math.nan},
        {"policy__skipped_steps": 1.0},
    ],
)
def test_a_step_that_diverged_does_not_replace_a_healthy_checkpoint(saved, config, policy, sampler, tmp_path, metrics):
    config.checkpoint.keep_last, config.checkpoint.every_steps = 1, 10
    assert saved(10, 20) == [10, 20]
    assert saved(30, 40, must=False, **metrics) == [10, 20]
    assert "no checkpoint of step 30 is saved" in saved.printed[0]
    step, printed = load(config, policy, sampler)
    assert (step, len(printed)) == (10, 1)
    assert "The run diverged after step_000020" in printed[0]
    assert saved(20) == [10, 20]  # step 20 runs again


def test_a_single_bad_step_has_no_effect_after_a_good_one(saved, config, policy, sampler):
    config.checkpoint.every_steps = 100
    saved(10, 20)
    saved(21, must=False, policy__skipped_steps=1.0)
    saved(22, must=False)
    assert load(config, policy, sampler) == (20, [])


def test_a_last_step_that_diverged_is_saved_but_not_resumed_from(saved, config, policy, sampler):
    config.checkpoint.keep_last = 1
    assert saved(10, 20) == [10, 20]
    assert saved(30, policy__grad_norm=1e9) == [10, 30]
    assert load(config, policy, sampler)[0] == 10


def test_without_a_healthy_checkpoint_the_run_resumes_from_the_last_with_a_warning(saved, config, policy, sampler):
    saved(10)
    saved(11, must=False, policy__grad_norm=1e9)
    step, (printed,) = load(config, policy, sampler)
    assert step == 10
    assert "diverged after step_000010, and there is no earlier checkpoint" in printed


def test_the_error_after_a_divergence_says_how_to_resume(saved, config, policy, sampler, tmp_path):
    config.optimizer.lr = 1e-3
    config.checkpoint.every_steps = 100
    saved(10, 20)
    checkpoints = Checkpoints(config, "train", print)
    with (
        pytest.raises(
            DivergedError, match=r"step_000010.*resume=.* optimizer\.lr=0\.0001 resume\.allow=\[optimizer\.lr\]"
        ),
        checkpoints.advice(),
    ):
        raise DivergedError("The gradient was not finite.")
    assert load(config, policy, sampler)[0] == 10  # it is unknown whether 20 is healthy


def test_weights_that_are_not_finite_are_not_saved_and_leave_earlier_checkpoints(
    saved, config, model, sampler, tmp_path
):
    saved(10)
    config.optimizer.lr = math.inf
    policy = rl_policy(model, config)
    policy.update([[SEQUENCE]])
    with pytest.raises(DivergedError, match="weights are not finite"):
        Checkpoints(config, "train", print).maybe_save(20, policy, sampler, {}, must=True)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step_000010"]


def test_a_million_steps_are_sorted_correctly(saved, config, policy, sampler):
    assert saved(999_998, 999_999, 1_000_000) == [999_999, 1_000_000]
    assert load(config, policy, sampler) == (1_000_000, [])


def test_an_old_checkpoint_that_is_a_link_is_a_warning(saved, tmp_path):
    saved(10, 20)
    elsewhere = shutil.move(tmp_path / "checkpoints/step_000010", tmp_path / "elsewhere")
    (tmp_path / "checkpoints/step_000010").symlink_to(elsewhere)
    assert saved(30) == [20, 30]
    (printed,) = saved.printed
    assert "step_000010 cannot be removed: " in printed
    assert str(elsewhere) in printed


@pytest.fixture
def make_immutable() -> Iterator[Callable[[Path], None]]:
    """Make a file immutable."""
    immutable = []

    def fix(path: Path) -> None:
        if subprocess.run(["chattr", "+i", path], capture_output=True).returncode:
            pytest.skip("immutable files need root and a file system that supports them")
        immutable.append(path)

    yield fix
    subprocess.run(["chattr", "-i", *immutable])


@pytest.mark.parametrize("what", ["", "state.json"])
def test_an_old_checkpoint_that_cannot_be_removed_is_a_warning_now_and_at_the_next_start(
    saved, config, policy, sampler, tmp_path, make_immutable, what, monkeypatch
):
    saved(10, 20)
    stuck = tmp_path / "checkpoints/step_000010" / what
    try:
        make_immutable(stuck)
    except pytest.skip.Exception:
        immovable(monkeypatch, stuck)
    saved(30)
    assert "step_000010 cannot be removed: " in saved.printed[0]
    step, printed = load(config, policy, sampler)
    assert step == 30
    assert all("cannot be removed: " in line and line.endswith(" The run continues.") for line in printed[1::2])
    if what:
        moved = tmp_path / "checkpoints/step_000010.removed/state.json"
        subprocess.run(["chattr", "-i", moved], capture_output=True)


def immovable(monkeypatch: pytest.MonkeyPatch, stuck: Path) -> None:
    """Simulate a file system that forbids it."""
    rename, rmtree = Path.rename, shutil.rmtree

    def failing_rename(path: Path, target: Path) -> Path:
        if path == stuck:
            raise PermissionError(1, "Operation not permitted", str(path))
        return rename(path, target)

    def failing_rmtree(path: Path, ignore_errors: bool = False) -> None:
        if (Path(path) / "state.json").exists() and "step_000010" in str(path) and not ignore_errors:
            raise PermissionError(1, "Operation not permitted", str(path))
        rmtree(path, ignore_errors=ignore_errors)

    monkeypatch.setattr(Path, "rename", failing_rename)
    monkeypatch.setattr(shutil, "rmtree", failing_rmtree)


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_a_run_folder_of_any_name_is_loaded_and_exported(stage, config, model, sampler, tmp_path):
    config.cluster.zero_stage = stage
    config.run.dir, config.data.name = str(tmp_path / "a[1] *?"), "unused"
    policy = rl_policy(model, config)
    policy.update([[SEQUENCE]])
    Checkpoints(config, "train", print).maybe_save(10, policy, sampler, {}, must=True)
    resumed = rl_policy(model, config)
    assert load(config, resumed, sampler) == (10, [])
    weights = dict(policy.named_weights())
    assert all(torch.equal(weight, weights[name]) for name, weight in resumed.named_weights())
    saved_weights = consolidated_weights(tmp_path / "a[1] *?/checkpoints/step_000010/deepspeed")
    assert torch.equal(saved_weights["model.norm.weight"], weights["model.norm.weight"])


# ------------------------------------------------------------ settings that change


def test_changed_settings_are_reported_with_the_step_from_which_they_apply(saved, config, policy, sampler):
    config.optimizer.lr = 1e-3
    saved(10)
    config.optimizer.lr, config.reward.terms = 1e-5, {"accuracy": {"weight": 1.0}}
    assert load(config, policy, sampler) == (
        10,
        [
            "From step 11 on: optimizer.lr=1e-05 (0.001 before)",
            "From step 11 on: reward.terms.accuracy.weight=1.0 (nothing before)",
        ],
    )


def test_other_data_that_are_allowed_start_with_their_first_epoch(saved, config, policy, sampler):
    sampler.next(3)
    saved(10)
    config.data.num_heldout = 1
    other = EpochSampler(PROMPTS[:4], seed=0)
    step, printed = load(config, policy, other)
    assert step == 10
    assert printed[-1] == "From step 11 on: other data, from the beginning of their first epoch"
    assert other.next(4) == EpochSampler(PROMPTS[:4], seed=0).next(4)
    config.data.num_heldout = None
    with pytest.raises(CheckpointError, match="belongs to other data"):  # the same settings, but the file changed
        load(config, policy, EpochSampler(PROMPTS[:4], seed=0))
