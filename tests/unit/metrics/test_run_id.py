"""One W&B run for one run folder, wherever it is moved; another one for a copy."""

import shutil

from grpo_cli.metrics.run_id import bring_back, kept_id, run_id


def test_a_folder_keeps_its_id(tmp_path):
    assert run_id(tmp_path) == run_id(tmp_path)


def test_a_folder_that_was_moved_keeps_its_id(tmp_path):
    (tmp_path / "run").mkdir()
    id = run_id(tmp_path / "run")
    moved = (tmp_path / "run").rename(tmp_path / "moved")
    assert run_id(moved) == id
    shutil.copytree(moved, tmp_path / "run")  # and is the one that a copy is made of from then on
    assert run_id(tmp_path / "run") != id
    assert run_id(moved) == id


def test_a_copy_becomes_a_run_of_its_own(tmp_path):
    (tmp_path / "run").mkdir()
    id = run_id(tmp_path / "run")
    copy = shutil.copytree(tmp_path / "run", tmp_path / "copy")
    of_copy = run_id(copy)
    assert of_copy != id
    assert (run_id(copy), run_id(tmp_path / "run")) == (of_copy, id)


def test_a_copy_without_its_wandb_folder_gets_no_id_of_another_from_its_checkpoint(tmp_path):
    original, copy = tmp_path / "run", tmp_path / "copy"
    original.mkdir()
    copy.mkdir()
    id = run_id(original)
    bring_back(copy, *kept_id(original))
    assert run_id(copy) != id


def test_an_id_from_before_places_were_kept_stays(tmp_path):
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb/run_id").write_text("abc")
    assert run_id(tmp_path) == "abc"


def test_a_file_without_text_is_no_id(tmp_path):
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb/run_id").touch()  # a start that died between making and filling it
    assert len(run_id(tmp_path)) == 8
