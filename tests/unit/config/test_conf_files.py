"""Every file in conf/ composes and passes the checks, if necessary with the settings that it needs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from grpo_cli.config.commands import check_settings
from grpo_cli.config.compose import conf_dir

# Commands other than train, with the groups that they share with it, and what they need from the user.
SAMPLING = ("benchmark", "cluster", "logger", "model", "template")
SAMPLING_DATA = ("cluster", "data", "logger", "model", "template")
COMMANDS = {
    "eval": (SAMPLING, []),
    "analyze": (SAMPLING_DATA, []),
    "sample": (SAMPLING_DATA, []),
    "sft": ((*SAMPLING, "supervised_tuning"), ["data.path=README.md"]),
    "reward-model": (("cluster", "logger", "model", "supervised_tuning"), ["data.path=README.md"]),
}
# The random model sets options of responses, which these commands do not have.
WITHOUT_RANDOM = ("sample", "reward-model")
# Pipelines and claims have their own tests; supervised_tuning is not for train.
ELSEWHERE = ("pipeline", "science", "supervised_tuning")
ALL_FILES = sorted(path.relative_to(conf_dir()) for path in conf_dir().glob("*/*.yaml"))
FILES = [path for path in ALL_FILES if path.parent.name not in ELSEWHERE]
# Files that leave a value to the user.
NEEDS = {
    "reward/code": ["data.grader=code"],
    "reward/boxed": ["template=qwen_math"],
    "reward/r1_general": ["reward.terms.model.path=reward_model"],
    "data/file": ["data.path=README.md"],
    "benchmark/file": ["benchmark.file.path=README.md"],
    "model/file": ["model.path=Qwen/Qwen2.5-0.5B"],
    "experiment/r1_zero_paper": ["model.path=Qwen/Qwen2.5-7B"],
}


@pytest.mark.parametrize("path", FILES, ids=str)
def test_every_file_composes_and_passes_the_checks(path, compose_train):
    name = str(path.with_suffix(""))
    check_settings(compose_train(f"{path.parent}={path.stem}", *NEEDS.get(name, [])))


def together(command: str) -> Iterator[list[Path]]:
    """One file of each group of a command, until each file was in a list: composing them one by one takes minutes."""
    groups, _ = COMMANDS[command]
    columns = [[path for path in ALL_FILES if path.parent.name == group] for group in groups]
    for row in range(max(map(len, columns))):
        files = [column[min(row, len(column) - 1)] for column in columns]
        yield [path for path in files if path.stem != "random" or command not in WITHOUT_RANDOM]


@pytest.mark.parametrize(
    ("command", "files"),
    [
        pytest.param(command, files, id=f"{command}-{row}")
        for command in COMMANDS
        for row, files in enumerate(together(command))
    ],
)
def test_the_groups_of_a_command_compose_with_it_too(command, files, compose_as):
    settings = [f"{path.parent}={path.stem}" for path in files]
    needs = {need for path in files for need in NEEDS.get(str(path.with_suffix("")), [])}
    check_settings(compose_as(command, *settings, *needs, *COMMANDS[command][1]))


def test_every_group_of_the_defaults_has_files():
    assert {path.parent.name for path in FILES} == {
        *("algorithm", "benchmark", "cluster", "data", "experiment", "logger", "model", "reward", "template", "tuning")
    }
