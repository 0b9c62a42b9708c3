"""What is kept of a run, and what happens when some of it is lost."""

import json
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy
import pytest
import torch

from grpo_cli.data.sampler import EpochSampler
from grpo_cli.errors import CheckpointError
from grpo_cli.training.batch import TrainingSequence
from grpo_cli.training.checkpoint import Checkpoints, check_whole, whole_checkpoints
from grpo_cli.training.policy import Policy
from grpo_cli.types import Problem, Prompt

pytestmark = pytest.mark.usefixtures("ranks")
PROMPTS = [Prompt(Problem(f"{i}", "", ""), "", (23, 15, i)) for i in range(5)]
SEQUENCE = TrainingSequence((23, 15), (40, 41, 42), (-1.0,) * 3, advantage=1.0, weight=1 / 3)


@pytest.fixture
def policy(model, config) -> Policy:
    return Policy(model, config)


@pytest.fixture
def sampler() -> EpochSampler:
    return EpochSampler(PROMPTS, seed=0)


@pytest.fixture
def saved(config, policy, sampler, tmp_path):
    """Save after each of some steps, each with its held-out accuracy or none; the steps whose checkpoints are left."""
    config.run.dir, config.data.name = str(tmp_path), "unused"

    def save(*steps: int, accuracy: dict[int, float] | None = None, must: bool = True) -> list[int]:
        checkpoints = Checkpoints(config, "train")
        for step in steps:
            metrics = {"reward/mean": 0.5}
            if accuracy and step in accuracy:
                metrics["eval/heldout/avg"] = accuracy[step]
            checkpoints.maybe_save(step, policy, sampler, metrics, must=must)
        return sorted(int(folder.name.removeprefix("step_")) for folder in whole_checkpoints(tmp_path))

    return save


def load(config, policy, sampler) -> tuple[int, list[str]]:
    """The step that was gone back to, and what was said."""
    said: list[str] = []
    return Checkpoints(config, "train").load_latest(policy, sampler, said.append), said


def test_everything_that_a_run_goes_on_with_comes_back(saved, config, model, policy, sampler):
    policy.update([[SEQUENCE]])
    sampler.next(3)
    saved(7)
    expected = [sampler.next(4), random.random(), numpy.random.rand(), torch.rand(1).item()]
    weights = {name: weight.clone() for name, weight in policy.named_weights()}
    resumed, other = Policy(model, config), EpochSampler(PROMPTS, seed=0)
    torch.manual_seed(1)
    assert load(config, resumed, other) == (7, [])
    assert [other.next(4), random.random(), numpy.random.rand(), torch.rand(1).item()] == expected
    assert all(torch.equal(weight, weights[name]) for name, weight in resumed.named_weights())


def test_without_a_checkpoint_a_run_begins(config, policy, sampler, tmp_path):
    config.run.dir = str(tmp_path)
    assert load(config, policy, sampler) == (0, [])


@pytest.mark.parametrize(
    ("keep", "accuracy", "left"),
    [
        ({"keep_last": 2}, {}, [50, 60]),
        ({"keep_last": 1, "keep_every": 20}, {}, [20, 40, 60]),
        ({"keep_last": 1, "keep_best": "eval/heldout/avg"}, {20: 0.5, 30: 0.75, 40: 0.75, 50: 0.25}, [30, 60]),
        ({"keep_last": 1, "keep_best": "eval/heldout/avg"}, {}, [60]),
    ],
)
def test_the_settings_say_which_checkpoints_are_kept(saved, config, keep, accuracy, left):
    for name, value in keep.items():
        setattr(config.checkpoint, name, value)
    assert saved(10, 20, 30, 40, 50, 60, accuracy=accuracy) == left


def test_the_best_is_saved_also_between_the_regular_ones(saved, config):
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
def test_a_damaged_checkpoint_is_named_and_put_aside_and_the_one_before_it_used(
    saved, config, policy, sampler, tmp_path, damage
):
    saved(10, 20)
    file = last_file(tmp_path)
    DAMAGES[damage](file)
    with pytest.raises(CheckpointError, match="step_000020 is"):
        check_whole(tmp_path / "checkpoints/step_000020")
    step, (said,) = load(config, policy, sampler)
    assert step == 10
    assert "step_000020 is" in said
    assert ("manifest" if "manifest" in damage else file.name) in said
    assert "the run goes on from step_000010" in said
    assert saved(20) == [10, 20]  # it is done anew
    assert load(config, policy, sampler) == (20, [])
    assert (tmp_path / "checkpoints/step_000020.damaged").is_dir()


def test_where_none_is_whole_nothing_is_begun_anew(saved, config, policy, sampler, tmp_path):
    saved(20)
    os.truncate(last_file(tmp_path), 100)
    with pytest.raises(CheckpointError, match=r"(?s)No checkpoint of .* is whole:.*step_000020 is damaged"):
        load(config, policy, sampler)
    assert (tmp_path / "checkpoints/step_000020").is_dir()


@pytest.mark.parametrize("end", [".partial", ".removed"])
def test_what_an_earlier_start_was_writing_or_removing_when_it_died_is_named_and_removed(
    saved, config, policy, sampler, tmp_path, end
):
    saved(10)
    half = shutil.copytree(tmp_path / "checkpoints/step_000010", tmp_path / f"checkpoints/step_000020{end}")
    step, (said,) = load(config, policy, sampler)
    assert step == 10
    assert str(half) in said
    assert not half.exists()


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of 3 MiB, which takes one checkpoint of 2 MiB."""
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
    policy, checkpoints = Policy(model, config), Checkpoints(config, "train")
    policy.update([[SEQUENCE]])  # only then has the optimizer states
    checkpoints.maybe_save(10, policy, sampler, {}, must=True)
    with pytest.raises(CheckpointError, match=r"(?s)step 20 cannot be written.*Make room.*resume=auto"):
        checkpoints.maybe_save(20, policy, sampler, {}, must=True)
    assert [path.name for path in (small_disk / "checkpoints").iterdir()] == ["step_000010"]
    check_whole(small_disk / "checkpoints/step_000010")


def test_a_folder_that_cannot_be_written_is_told_with_the_mend(saved, tmp_path):
    (tmp_path / "checkpoints").write_text("a file in its place")
    with pytest.raises(CheckpointError, match=r"(?s)step 10 cannot be written.*mend the folder"):
        saved(10)


def test_a_run_whose_w_and_b_folder_was_lost_keeps_its_id(saved, config, policy, sampler, tmp_path):
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb/run_id").write_text("abc")
    saved(10)
    assert json.loads((tmp_path / "checkpoints/step_000010/state.json").read_text())["wandb"] == {
        "id": "abc",
        "step": 10,
    }
    shutil.rmtree(tmp_path / "wandb")
    load(config, policy, sampler)
    assert (tmp_path / "wandb/run_id").read_text() == "abc"
