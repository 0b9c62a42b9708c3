r"""Write and read a run's config.yaml.

It holds no secrets: a value from a secret environment variable is replaced by a reference to it, `${oc.env:X}`. Any
other text that looks like an interpolation is escaped, as in `\${x}`. The last line is this account's signature. Only
in a signed file are references resolved; in a file that somebody else wrote or changed they stay plain text.
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
    "is not signed by this account: somebody else wrote it, it was changed, or it was written by an earlier version of "
    "r1zero, which did not sign"
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
    """The settings to publish: secrets are masked and shell lines removed."""
    settings = plain(config)
    settings = secret.mapped(settings, secret.masked)
    if (slurm := settings.get("cluster", {}).get("slurm")) and slurm["setup"]:
        slurm["setup"] = [f"# {secret.MASK}"]  # a comment in a shell
    return settings


def read_frozen(file: Path, *, is_ours: bool | None = None) -> DictConfig:
    """The settings in a config.yaml. `is_ours` says whether this account wrote it; None: the signature decides.

    In a file of another account, interpolations are escaped, so that they stay plain text.
    """
    text = file.read_text(encoding="utf-8")
    settings: Any = OmegaConf.load(StringIO(text))
    _update(settings)
    if is_ours or (is_ours is None and _is_signed(text)):
        return settings
    return OmegaConf.create(secret.mapped(OmegaConf.to_container(settings), _escape_unescaped))


def _update(settings: Any) -> None:
    """Replace the settings of earlier versions that have another name now, or none."""
    logger = settings.get("logger") if isinstance(settings, DictConfig) else None
    if logger is not None:
        logger.pop("num_samples", None)
        if logger.pop("wandb", None) is False:
            logger.trackers = []


def check_trusted(file: Path, setting: str, trust: bool) -> None:
    """Raise CheckpointError if this account did not write a config.yaml to resume from, unless `trust` is true.

    `setting` is the key of the setting that `trust` comes from.
    """
    if not trust and file.is_file() and not _is_signed(file.read_text(encoding="utf-8", errors="replace")):
        raise CheckpointError(f"{file} {NOT_OURS}. {trust_advice(setting)}")


def check_no_missing_secrets(settings: DictConfig, file: Path) -> None:
    """Raise ConfigError if `file` lacks the value of a setting: it is masked, or from another account's environment."""
    texts = {key: str(value) for key, value in flat_settings(settings).items()}
    is_foreign = not _is_signed(file.read_text(encoding="utf-8"))
    missing = [key for key in texts if secret.MASK in texts[key] or (is_foreign and r"\${oc." in texts[key])]
    if missing:
        raise ConfigError(
            f"{file} does not contain secrets or values from another account's environment. Give the missing values "
            "on the command line:\n" + "\n".join(f"- {key}={texts[key]}" for key in missing)
        )


def trust_advice(setting: str) -> str:
    """What trusting somebody else's files means, and the setting that does it."""
    return (
        "Its settings can name Python functions and shell lines, which would run as you. Read its config.yaml. If you "
        f"trust it, and everybody who could write to the folder, add {setting}=true."
    )


def _is_signed(text: str) -> bool:
    content, found, signature = text.rpartition(SIGNATURE)
    return bool(found) and is_ours(content.encode(), signature.removesuffix("\n"))


def _escape_unescaped(text: str) -> str:
    """The text with its interpolations escaped, except those that already are."""
    return INTERPOLATION.sub(lambda found: found[0] if len(found[1]) % 2 else found[1] + r"\${", text)


def _with_references(text: str) -> str:
    pieces: list[str] = []
    for piece, name in secret.parts(text):
        if name:
            if pieces:  # otherwise a backslash before the reference would escape it
                pieces[-1] = re.sub(r"\\+$", lambda found: found[0] * 2, pieces[-1])
            pieces.append(f"${{oc.env:{name}}}")
        else:
            pieces.append(escaped(piece))
    return "".join(pieces)
