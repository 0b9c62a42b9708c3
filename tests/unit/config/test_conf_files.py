"""Every file in conf/ composes and passes the checks, if necessary with the settings that it needs."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from grpo_cli.config.commands import check_settings
from grpo_cli.config.compose import conf_dir, flat_settings

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
# Groups of train whose files have no rules in common, so that a row of them can be composed at once.
COMBINED = ("model", "benchmark", "data", "logger")
# Files that leave a value to the user.
NEEDS = {
    "reward/code": ["data.grader=code"],
    "reward/boxed": ["template=qwen_math"],
    "reward/r1_general": ["reward.terms.model.path=reward_model"],
    "data/file": ["data.path=README.md"],
    "benchmark/file": ["benchmark.file.path=README.md"],
    "model/file": ["model.path=Qwen/Qwen2.5-0.5B"],
    "algorithm/on_policy_distillation": ["algorithm.reference.path=org/teacher"],
    "experiment/r1_zero_paper": ["model.path=Qwen/Qwen2.5-7B"],
}


def what_it_sets(path: Path) -> str:
    """The keys that a file sets, the groups that it chooses, and its package; not its name and values."""
    text = path.read_text().replace(path.stem, "name")
    settings = yaml.safe_load(text) or {}
    keys = sorted(flat_settings(OmegaConf.create({key: value for key, value in settings.items() if key != "defaults"})))
    package = [line for line in text.splitlines() if line.startswith("# @package")]
    return f"{keys} {settings.get('defaults')} {package}"


def rows(columns: list[list[Path]]) -> Iterator[list[Path]]:
    """One file of each column, until each file was in a row: composing them one by one takes minutes."""
    for row in range(max(map(len, columns))):
        yield [column[min(row, len(column) - 1)] for column in columns]


def together(command: str) -> Iterator[list[Path]]:
    """Rows of files of a command's groups. A file stands for all of its group that set the same."""
    columns = []
    for group in COMMANDS[command][0]:
        kinds = {what_it_sets(conf_dir() / path): path for path in ALL_FILES if path.parent.name == group}
        columns.append([path for path in kinds.values() if path.stem != "random" or command not in WITHOUT_RANDOM])
    return rows(columns)


def check(compose_as, command: str, files: list[Path]) -> None:
    _, of_command = COMMANDS.get(command, ([], []))
    settings = [f"{path.parent}={path.stem}" for path in files]
    needs = {need for path in files for need in NEEDS.get(str(path.with_suffix("")), [])}
    check_settings(compose_as(command, *settings, *needs, *of_command))


@pytest.mark.parametrize("path", [path for path in FILES if path.parent.name not in COMBINED], ids=str)
def test_every_file_composes_and_passes_the_checks(path, compose_as):
    check(compose_as, "train", [path])


@pytest.mark.parametrize(
    "files",
    list(rows([[path for path in FILES if path.parent.name == group] for group in COMBINED])),
    ids=lambda files: files[0].stem,
)
def test_files_of_groups_without_common_rules_compose_together(files, compose_as):
    check(compose_as, "train", files)


@pytest.mark.parametrize(
    ("command", "files"),
    [
        pytest.param(command, files, id=f"{command}-{row}")
        for command in COMMANDS
        for row, files in enumerate(together(command))
    ],
)
def test_the_groups_of_a_command_compose_with_it_too(command, files, compose_as):
    check(compose_as, command, files)


def test_every_group_of_the_defaults_has_files():
    assert {path.parent.name for path in FILES} == {
        *("algorithm", "benchmark", "cluster", "data", "experiment", "logger", "model", "reward", "template", "tuning")
    }
