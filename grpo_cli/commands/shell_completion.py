r"""Shell completion: `eval "$(r1zero -sc install=bash)"`, and then the Tab key.

The shell runs `r1zero -sc query=<shell>` with the line up to the cursor in COMP_LINE, and gets one completion per line.
Nothing is composed for that, so that the answer comes quickly.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import is_dataclass
from enum import EnumType
from typing import Any

from grpo_cli.config.commands import COMMANDS, SCHEMAS
from grpo_cli.config.compose import conf_dir
from grpo_cli.config.groups import HIDDEN, config_groups, extra_conf_dirs, groups_of
from grpo_cli.config.known import known_settings
from grpo_cli.errors import ConfigError

# Bash replaces only what follows the last = or :, which separate words there.
BASH = r"""_r1zero() {
    local IFS=$'\n' line=${COMP_LINE:0:COMP_POINT}
    local word=${line##* }
    COMPREPLY=($(COMP_LINE=$line r1zero -sc query=bash 2>/dev/null))
    COMPREPLY=("${COMPREPLY[@]#"${word%"${word##*[=:]}"}"}")
}
complete -o nospace -o default -F _r1zero r1zero
"""
ZSH = r"""(( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }
_r1zero() {
    local -a found
    found=(${(f)"$(COMP_LINE="${(j: :)words[1,CURRENT-1]} $PREFIX" r1zero -sc query=zsh 2>/dev/null)"})
    if (( $#found )); then compadd -Q -S '' -- $found; else _files; fi
}
compdef _r1zero r1zero
"""
INSTALL = {"bash": BASH, "zsh": ZSH}
UNINSTALL = {"bash": "complete -r r1zero\n", "zsh": "compdef -d r1zero\n"}


def main(arguments: Sequence[str]) -> None:
    """Print the shell code that installs or removes the completion, or the completions of COMP_LINE."""
    action, _, shell = next((argument for argument in arguments if "=" in argument), "").partition("=")
    if action == "query":
        print(*completions(os.environ.get("COMP_LINE", "")), sep="\n")
        return
    code = {"install": INSTALL, "uninstall": UNINSTALL}.get(action, {}).get(shell)
    if code is None:
        raise ConfigError('Completion works in bash and zsh. Add to ~/.bashrc: eval "$(r1zero -sc install=bash)"')
    print(code, end="")


def completions(line: str) -> list[str]:
    """What the last word of a command line can become. A space ends a word that is complete."""
    *before, word = line.split(" ")
    typed = [argument for argument in before[1:] if argument]
    if not typed:
        found = [f"{name} " for name in COMMANDS]
    elif typed[0] in COMMANDS and COMMANDS[typed[0]].settings:
        found = list(_of_settings(COMMANDS[typed[0]].conf or typed[0], word, typed))
    elif typed[0] in ("list", "copy"):
        groups = config_groups([conf_dir()])
        files = [f"{group}/{choice} " for group, choices in groups.items() for choice in choices]
        found = files if typed[0] == "copy" else [f"{group} " for group in groups]
    else:
        found = []
    return sorted({completion for completion in found if completion.startswith(word)})


def _of_settings(command: str, word: str, typed: Sequence[str]) -> Iterator[str]:
    """The groups and settings of a command, up to the next dot; after `=`, the choices of the one that is given."""
    every_setting = known_settings(SCHEMAS[command])
    settings = [setting for setting in every_setting if "*" not in setting.key and not is_dataclass(setting.kind)]
    groups = config_groups([conf_dir(), *extra_conf_dirs(typed)])
    name, is_set, _ = word.partition("=")
    if not is_set:
        yield from (f"{group}=" for group in groups_of(command) - HIDDEN)
        for setting in settings:
            head, dot, _ = setting.key[len(word) :].partition(".")
            yield f"{word}{head}{dot or '='}" if setting.key.startswith(word) else ""
        return
    kind: Any = next((setting.kind for setting in settings if setting.key == name), None)
    choices = list(groups.get(name, ()))
    if isinstance(kind, EnumType):
        choices += kind.__members__
    elif kind is bool:
        choices += ["true", "false"]
    yield from (f"{name}={choice} " for choice in choices)
