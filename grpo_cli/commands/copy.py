"""`r1zero copy`: a config file as the start of one's own."""

import argparse
from pathlib import Path

from grpo_cli.config.compose import conf_dir
from grpo_cli.config.grammar import shell_word
from grpo_cli.config.groups import config_groups
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
    copy.write_bytes(files[wanted].read_bytes())
    print(
        f"Wrote {copy}. Settings that it does not name have their defaults; `r1zero train --help` explains them all.\n"
        f"To use it: r1zero train {shell_word(f'--config-dir={options.folder}')} {group}={name}"
    )
