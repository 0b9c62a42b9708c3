"""A run folder keeps its W&B run when it is moved; a copy gets a new one."""

import shutil

from grpo_cli.metrics.run_id import kept_id, restore_id, run_id


def test_a_folder_keeps_its_id(tmp_path):
    assert run_id(tmp_path) == run_id(tmp_path)


def test_a_folder_that_was_moved_keeps_its_id(tmp_path):
    (tmp_path / "run").mkdir()
    id = run_id(tmp_path / "run")
    moved = (tmp_path / "run").rename(tmp_path / "moved")
    assert run_id(moved) == id
    shutil.copytree(moved, tmp_path / "run")  # a copy of the moved folder at the old path
    assert run_id(tmp_path / "run") != id
    assert run_id(moved) == id


def test_a_copy_becomes_a_separate_run(tmp_path):
    (tmp_path / "run").mkdir()
    id = run_id(tmp_path / "run")
    copy = shutil.copytree(tmp_path / "run", tmp_path / "copy")
    copy_id = run_id(copy)
    assert copy_id != id
    assert (run_id(copy), run_id(tmp_path / "run")) == (copy_id, id)


def test_a_copy_without_its_wandb_folder_does_not_keep_the_id_in_its_checkpoint(tmp_path):
    original, copy = tmp_path / "run", tmp_path / "copy"
    original.mkdir()
    copy.mkdir()
    id = run_id(original)
    restore_id(copy, *kept_id(original))
    assert run_id(copy) != id


def test_an_id_without_a_recorded_folder_is_kept(tmp_path):
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb/run_id").write_text("abc")
    assert run_id(tmp_path) == "abc"


def test_an_empty_id_file_is_ignored(tmp_path):
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb/run_id").touch()  # an earlier start was killed before it wrote the id
    assert len(run_id(tmp_path)) == 8
