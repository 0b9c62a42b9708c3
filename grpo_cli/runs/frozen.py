r"""The settings of a run as the text of its config.yaml, and that text read again.

A secret is not in it: in its place stands a reference to the variable of the environment that holds it, `${oc.env:X}`.
What else looks like an interpolation is escaped, as in `\${x}`. The last line is this account's signature: references
are resolved for whoever wrote them, and stay plain text in a file that somebody else wrote or changed.
"""

import re
from io import StringIO
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from grpo_cli import secret
from grpo_cli.config.compose import flat_settings, plain
from grpo_cli.config.grammar import INTERPOLATION, escaped
from grpo_cli.errors import CheckpointError, ConfigError
from grpo_cli.signature import is_ours, sign

SIGNATURE = "# signature: "
NOT_OURS = (
    "is not signed by this account: somebody else wrote it, it was changed, or it is of an earlier version of r1zero, "
    "which did not sign"
)


def frozen_text(config: Any) -> str:
    """The text of config.yaml."""
    settings = plain(config)
    settings = secret.mapped(settings, _with_references)
    if slurm := settings.get("cluster", {}).get("slurm"):
        slurm["setup"] = list(map(secret.masked_shell_line, slurm["setup"]))
    text = OmegaConf.to_yaml(OmegaConf.create(settings))
    signature = sign(text.encode())
    return f"{text}{SIGNATURE}{signature}\n" if signature else text


def public_settings(config: Any) -> dict[str, Any]:
    """The settings as others may see them: with masks for secrets, and without shell lines."""
    settings = plain(config)
    settings = secret.mapped(settings, secret.masked)
    if (slurm := settings.get("cluster", {}).get("slurm")) and slurm["setup"]:
        slurm["setup"] = [f"# {secret.MASK}"]  # a line that does nothing in a shell
    return settings


def read_frozen(file: Path, *, is_ours: bool | None = None) -> DictConfig:
    """The settings in a config.yaml. `is_ours` where that is known; else the signature tells.

    What is not ours holds no interpolation: each is the text that it was.
    """
    text = file.read_text(encoding="utf-8")
    settings = OmegaConf.load(StringIO(text))
    if is_ours or (is_ours is None and _is_signed(text)):
        return settings
    return OmegaConf.create(secret.mapped(OmegaConf.to_container(settings), _made_literal))


def check_trusted(file: Path, setting: str, trust: bool) -> None:
    """Raise CheckpointError where this account did not write a config.yaml that a run is to go on with, unless `trust`,
    which is the value of `setting`.
    """
    if not trust and file.is_file() and not _is_signed(file.read_text(encoding="utf-8", errors="replace")):
        raise CheckpointError(f"{file} {NOT_OURS}. {trusting(setting)}")


def check_filled_in(settings: DictConfig, file: Path) -> None:
    """Raise ConfigError where settings from `file` lack a value: one masked, or of another account's environment."""
    texts = {key: str(value) for key, value in flat_settings(settings).items()}
    is_foreign = not _is_signed(file.read_text(encoding="utf-8"))
    lacking = [key for key in texts if secret.MASK in texts[key] or (is_foreign and r"\${oc." in texts[key])]
    if lacking:
        raise ConfigError(
            f"{file} holds no secrets, and the environment of another account is not this one. Give on the command "
            "line what it lacks:\n" + "\n".join(f"- {key}={texts[key]}" for key in lacking)
        )


def trusting(setting: str) -> str:
    """What it means to trust files of somebody else, and how."""
    return (
        "Its settings can name Python functions and shell lines, which would run as you. Read its config.yaml. If you "
        f"trust it, and whoever could write to the folder, add {setting}=true."
    )


def _is_signed(text: str) -> bool:
    content, found, signature = text.rpartition(SIGNATURE)
    return bool(found) and is_ours(content.encode(), signature.removesuffix("\n"))


def _made_literal(text: str) -> str:
    """The text with its interpolations escaped; what is escaped already stays so."""
    return INTERPOLATION.sub(lambda found: found[0] if len(found[1]) % 2 else found[1] + r"\${", text)


def _with_references(text: str) -> str:
    pieces = []
    for piece, name in secret.parts(text):
        if name:
            if pieces:  # a backslash before a reference would make a text of it
                pieces[-1] = re.sub(r"\\+$", lambda found: found[0] * 2, pieces[-1])
            pieces.append(f"${{oc.env:{name}}}")
        else:
            pieces.append(escaped(piece))
    return "".join(pieces)
