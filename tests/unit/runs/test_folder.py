"""The run folder: its own for each start, and no obstacle after a start that failed."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from grpo_cli import __version__
from grpo_cli.commands.hydra_job import needs_new_folder
from grpo_cli.config.template import TemplateConfig
from grpo_cli.errors import SetupError, Stopped, TrainingError
from grpo_cli.runs.code import recorded_code
from grpo_cli.runs.folder import is_unused, new_folder, run_folder_lock


def fail(folder, error: Exception, *names: str) -> None:
    """Start in `folder`, write files or folders with these names, and end with an error."""

    def start() -> None:
        with run_folder_lock(folder, TemplateConfig(), lambda: None):
            for name in names:
                (folder / name).mkdir()
            raise error

    with pytest.raises(type(error)):
        start()


def test_a_second_start_with_the_same_name_gets_a_number(tmp_path):
    names = [new_folder(tmp_path / "runs" / "2026_train").name for _ in range(3)]
    assert names == ["2026_train", "2026_train_2", "2026_train_3"]


def test_the_error_for_a_folder_that_cannot_be_created_names_the_setting():
    with pytest.raises(SetupError, match=r"cannot be created: .* Set another run\.dir"):
        new_folder(Path("/proc/nowhere"))


@pytest.mark.parametrize("exists", [False, True])
def test_a_start_that_fails_before_its_ranks_have_written_leaves_no_folder(exists, tmp_path):
    folder = tmp_path / "runs" / "run"
    if exists:
        folder.mkdir(parents=True)
    fail(folder, TrainingError("x"))
    assert list(tmp_path.iterdir()) == []


def test_the_logs_of_a_failed_rank_stay_and_do_not_block_the_next_start(tmp_path):
    fail(tmp_path / "run", TrainingError("x"), "logs")
    assert (tmp_path / "run" / "logs").is_dir()
    assert is_unused(tmp_path / "run")


def test_a_folder_holds_settings_and_code_from_the_start(tmp_path):
    fail(tmp_path / "run", Stopped("x"))
    assert (tmp_path / "run" / "config.yaml").is_file()
    assert [code["version"] for code in recorded_code(tmp_path / "run")] == [__version__]
    assert is_unused(tmp_path / "run")


def test_results_block_the_next_start(tmp_path):
    fail(tmp_path / "run", TrainingError("x"), "logs", "metrics.jsonl")
    assert not is_unused(tmp_path / "run")


def test_a_folder_that_held_something_stays(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").touch()  # of an earlier start
    fail(tmp_path / "run", TrainingError("x"))
    assert (tmp_path / "run" / "config.yaml").is_file()


def test_the_folder_of_a_stopped_run_stays_since_the_message_names_it(tmp_path):
    fail(tmp_path / "run", Stopped("x"))
    assert (tmp_path / "run").is_dir()


@pytest.mark.parametrize(
    ("run_dir", "resume", "is_needed"),
    [
        ("runs/${now:%Y}_${run.name}", "never", True),
        ("runs/mine", "never", False),
        ("runs/${now:%Y}_${run.name}", "runs/mine", False),
    ],
)
def test_only_a_folder_that_is_named_by_time_is_created_for_each_start(run_dir, resume, is_needed):
    composed = OmegaConf.create({"run": {"name": "train", "dir": run_dir}, "resume": {"run": resume}})
    assert needs_new_folder(composed) is is_needed
