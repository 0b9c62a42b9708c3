"""Every command that the README shows is one that works."""

import re
import shlex
from pathlib import Path

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from grpo_cli.config.commands import COMMANDS, check_settings, expand_shorthands
from grpo_cli.config.compose import allow_new_entries, check_overrides

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text()
FENCED = re.findall(r"^```(\w*)\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
BLOCKS = [block for language, block in FENCED if not language]
COMMAND = re.compile(r"(?:r1zero|make) .*")
LINES = [shlex.split(line, comments=True) for block in BLOCKS for line in block.splitlines() if COMMAND.match(line)]
COMPOSED = [(words[1], words[2:]) for words in LINES if words[0] == "r1zero" and COMMANDS[words[1]].settings]
# What the user of a command is to have.
THEIR_OWN = {
    "model.path=base/": "model.path=org/base",
    "algorithm=mine": "algorithm=grpo",
}


def test_the_readme_shows_commands():
    assert len(COMPOSED) >= 10


@pytest.mark.parametrize("words", [words for words in LINES if words[:1] == ["r1zero"]], ids=shlex.join)
def test_its_subcommands_exist(words):
    assert words[1] in COMMANDS


@pytest.mark.parametrize("words", [words for words in LINES if words[:1] == ["make"]], ids=shlex.join)
def test_its_make_targets_exist(words):
    assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


@pytest.mark.parametrize(("command", "arguments"), COMPOSED, ids=lambda words: shlex.join(words) if words else "none")
def test_its_runs_compose_and_pass_the_checks(command, arguments, compose_as):
    if "--compare" in arguments:
        return  # takes no settings
    config_name = COMMANDS[command].conf or command
    arguments = expand_shorthands(config_name, [_their_own(argument) for argument in arguments])
    check_overrides(config_name, arguments)
    overrides = OverridesParser.create().parse_overrides(
        allow_new_entries(config_name, [argument for argument in arguments if "=" in argument])
    )
    swept = [override.value().list if override.is_choice_sweep() else None for override in overrides]
    for job in range(max([len(values) for values in swept if values], default=1)):
        check_settings(
            compose_as(
                config_name,
                *(
                    override.input_line if values is None else f"{override.key_or_group}={values[job % len(values)]}"
                    for override, values in zip(overrides, swept, strict=True)
                ),
            )
        )


def _their_own(argument: str) -> str:
    key, _, value = argument.partition("=")
    if value.endswith(".jsonl") and key != "to":
        return f"{key}=README.md"  # any file that exists
    return "README.md" if argument.endswith(".jsonl") and not value else THEIR_OWN.get(argument, argument)


def test_its_method_by_yaml_alone_composes(compose_train):
    (method,) = re.findall(r"```yaml\n(.*?)```", README, flags=re.DOTALL)
    config = compose_train(*(f"algorithm.{key}" for key in _dotted(yaml.safe_load(method))))
    check_settings(config)
    assert config.algorithm.advantage.baseline == "leave_one_out"
    assert config.algorithm.epsilon_high == 0.28


def _dotted(values: dict, prefix: str = "") -> list[str]:
    return [
        line
        for key, value in values.items()
        for line in (_dotted(value, f"{prefix}{key}.") if isinstance(value, dict) else [f"{prefix}{key}={value}"])
    ]
