"""`r1zero list` and `r1zero copy`."""

import pytest

from grpo_cli.commands import copy, list
from grpo_cli.config.compose import conf_dir
from grpo_cli.config.groups import config_groups, description
from grpo_cli.errors import ConfigError


def test_every_choice_has_a_description():
    groups = config_groups([conf_dir()])
    assert [file for choices in groups.values() for file in choices.values() if not description(file)] == []


def test_a_list_shows_each_choice_with_its_description(capsys, tmp_path):
    (tmp_path / "reward").mkdir()
    (tmp_path / "reward" / "mine.yaml").write_text("# @package reward\n# Rewards [short] answers.\nterms: {}\n")
    list.main(["reward", "--config-dir", str(tmp_path)])
    shown = capsys.readouterr().out
    assert "reward=accuracy" in shown
    assert "Rewards [short] answers." in shown
    assert "package" not in shown
    with pytest.raises(ConfigError, match=r"Did you mean reward\?"):
        list.main(["rewards"])


def test_a_copy_composes_as_printed(capsys, tmp_path, compose_train):
    folder = tmp_path / "my_conf"
    copy.main(["algorithm/dr_grpo", str(folder)])
    assert (folder / "algorithm" / "my_dr_grpo.yaml").is_file()
    assert capsys.readouterr().out.endswith(f"r1zero train --config-dir={folder} algorithm=my_dr_grpo\n")
    config = compose_train(f"hydra.searchpath=[file://{folder}]", "algorithm=my_dr_grpo")
    assert config.algorithm == compose_train("algorithm=dr_grpo").algorithm


@pytest.mark.parametrize(("file", "line"), [("algorithm/grpo", "epsilon: 0.2"), ("logger/default", "console: true")])
def test_a_copy_of_a_file_without_values_has_every_default_of_its_group(file, line, capsys, tmp_path, compose_train):
    group, _, choice = file.partition("/")
    copy.main([file, str(tmp_path)])
    assert f"It has every setting of {group}, with its default." in capsys.readouterr().out
    copied = tmp_path / group / f"my_{choice}.yaml"
    assert line in copied.read_text().splitlines()
    composed = compose_train(f"hydra.searchpath=[file://{tmp_path}]", f"{group}=my_{choice}")
    assert composed == compose_train(f"{group}={choice}")


def test_a_copy_that_only_names_other_files_says_which(capsys, tmp_path):
    copy.main(["benchmark/oat_suite", str(tmp_path)])
    assert "All its settings come from benchmark/aime24, benchmark/amc, " in capsys.readouterr().out


def test_a_copy_is_used_with_a_command_that_has_its_group(capsys, tmp_path):
    copy.main(["supervised_tuning/tiny", str(tmp_path)])
    assert f"r1zero sft --config-dir={tmp_path} supervised_tuning=my_tiny\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["algorithm/grppo"], "Did you mean algorithm/grpo?"),
        (["algorithm/grpo", "--name", "dapo"], "--name=dapo: a built-in algorithm has that name"),
        (["reward/r1"], "exists, and is not overwritten"),
    ],
)
def test_a_copy_never_replaces_a_file(arguments, message, tmp_path):
    copy.main(["reward/r1", str(tmp_path)])
    with pytest.raises(ConfigError) as error:
        copy.main([arguments[0], str(tmp_path), *arguments[1:]])
    assert message in str(error.value)
