"""`r1zero build-base`, without the building."""

from dataclasses import replace

import pytest

from grpo_cli.commands import build_base
from grpo_cli.data import make_zero_base
from grpo_cli.data.make_zero_variants import VARIANTS, Quality
from grpo_cli.errors import SetupError


@pytest.fixture
def built(monkeypatch):
    """The calls of build_base, which builds nothing."""
    calls = []

    def build(folder, variant, *, seed):
        calls.append((folder, variant, seed))
        return Quality(updates=1250, right_equations=0.9949, right_verdicts=1.0, new_candidates=0.99, waits=0.27)

    monkeypatch.setattr(make_zero_base, "build_base", build)
    return calls


def test_the_options_reach_the_recipe_and_the_figures_the_user(built, tmp_path, capsys):
    out = tmp_path / "new" / "base"
    build_base.main(["--variant", "half", "--out", str(out), "--seed", "3", "--updates", "2000"])
    half = VARIANTS["half"]
    assert built == [(out, replace(half, recipe=replace(half.recipe, updates=2000)), 3)]
    printed = capsys.readouterr().out
    assert "99.5% of the equations" in printed
    assert f"r1zero train model=tiny_half model.path={out}" in printed


def test_the_help_names_every_variant_and_its_model(capsys):
    with pytest.raises(SystemExit):
        build_base.main(["--help"])
    printed = " ".join(capsys.readouterr().out.split())
    for name, variant in VARIANTS.items():
        assert f"{name} (model={variant.model}" in printed


def test_by_default_it_writes_a_new_folder_here_and_leaves_the_shipped_model_alone(built, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    build_base.main([])
    assert [(str(folder), variant, seed) for folder, variant, seed in built] == [
        ("make_zero_base", VARIANTS["plain"], 0)
    ]


def test_a_folder_with_files_is_kept_unless_told_otherwise(built, tmp_path):
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(SetupError, match=r"has files already.*--overwrite"):
        build_base.main(["--out", str(tmp_path)])
    assert built == []
    build_base.main(["--out", str(tmp_path), "--overwrite"])
    assert len(built) == 1


def test_a_folder_that_cannot_be_made_is_answered_before_training(built, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SetupError, match="Give a folder that can be written"):
        build_base.main(["--out", str(tmp_path / "file" / "base")])
    assert built == []


def test_help_shows_four_examples(capsys):
    with pytest.raises(SystemExit) as ended:
        build_base.main(["--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.partition("examples:")[2].count("\n  r1zero build-base") == 4


@pytest.mark.parametrize(("flag", "least"), [("--updates", 1000), ("--threads", 1)])
def test_a_number_that_cannot_be_is_refused_before_anything_is_made(flag, least, built, tmp_path, capsys):
    with pytest.raises(SystemExit):
        build_base.main(["--out", str(tmp_path / "base"), flag, str(least - 1)])
    assert f"{least - 1}: must be {least} or more" in capsys.readouterr().err
    assert built == []
    assert not (tmp_path / "base").exists()
