"""`r1zero copy`: a config file as the start of one's own."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from grpo_cli.config.commands import SCHEMAS
from grpo_cli.config.compose import conf_dir
from grpo_cli.config.grammar import shell_word
from grpo_cli.config.groups import config_groups, groups_of
from grpo_cli.errors import ConfigError
from grpo_cli.nearest import did_you_mean

EXAMPLES = """\
examples:
  r1zero copy algorithm/dr_grpo my_conf
  r1zero copy experiment/smoke my_conf --name first_run
"""


def main(argv: list[str]) -> None:
    """Copy a file of conf/ into a folder, and say how to use it. Raises ConfigError if it exists there."""
    parser = argparse.ArgumentParser(
        prog="r1zero copy",
        description="Copy a config file into a folder of your own, to change it there. `r1zero list` shows the files.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", help="group/choice, such as algorithm/dr_grpo")
    parser.add_argument("folder", type=Path, help="the folder to give with --config-dir; it is created if missing")
    parser.add_argument("--name", help="the copy's name (default: my_<choice>)")
    options = parser.parse_args(argv)
    groups = config_groups([conf_dir()])
    files = {f"{group}/{choice}": file for group, choices in groups.items() for choice, file in choices.items()}
    wanted = options.file.removesuffix(".yaml")
    if wanted not in files:
        same = {file.split("/")[1]: file for file in files}.get(wanted)
        hint = f" Did you mean {same}?" if same else did_you_mean(wanted, files)
        raise ConfigError(f"{options.file}: there is no such file.{hint} `r1zero list` shows all.")
    group, choice = wanted.split("/")
    name = options.name or f"my_{choice}"
    if name in groups[group]:  # Hydra would still use the built-in file
        raise ConfigError(f"--name={name}: a built-in {group} has that name. Give another one, such as my_{name}.")
    copy = options.folder / group / f"{name}.yaml"
    if copy.exists():
        raise ConfigError(f"{copy} exists, and is not overwritten. Give another --name.")
    copy.parent.mkdir(parents=True, exist_ok=True)
    text = files[wanted].read_text(encoding="utf-8")
    values = yaml.safe_load(text) or {}
    command = next(command for command in SCHEMAS if group in groups_of(command))
    if not values:  # the choice stands for the defaults: write them out, otherwise there is nothing to change
        text = text.partition("\n")[0] + "\n" + OmegaConf.to_yaml(OmegaConf.structured(SCHEMAS[command])[group])
    copy.write_text(text, encoding="utf-8")
    print(
        f"Wrote {copy}. {_content(group, values)} `r1zero {command} --help` explains each setting.\n"
        f"To use it: r1zero {command} {shell_word(f'--config-dir={options.folder}')} {group}={name}"
    )


def _content(group: str, values: Mapping[str, Any]) -> str:
    """What the copy contains, and where its other settings come from."""
    if not values:
        return f"It has every setting of {group}, with its default."
    if values.keys() == {"defaults"}:
        others = ", ".join(f"{group}/{other}" for other in values["defaults"])
        return f"All its settings come from {others}: change that list, or copy one of them, too."
    return "Settings that it does not name have their defaults."
