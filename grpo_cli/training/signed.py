"""Checks that this account wrote a checkpoint: its manifest is signed and lists every file.

The manifest has the SHA-256 of each file, so signing the manifest is enough to protect all files.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grpo_cli.errors import CheckpointError
from grpo_cli.runs.frozen import NOT_OURS, trust_advice
from grpo_cli.runs.resume import MANIFEST
from grpo_cli.signature import is_ours, sign

LATER = ("model", "health")  # what evaluations and later steps add to a checkpoint


def signed_manifest(files: Mapping[str, Mapping[str, Any]]) -> str:
    """The text of a signed manifest of these files."""
    return json.dumps({"files": files, "signature": sign(_content(files))}, indent=1, sort_keys=True)


def check_signed(checkpoint: Path, setting: str, trust: bool) -> None:
    """Raise CheckpointError if this account did not write the checkpoint, unless `trust`, the value of `setting`.

    Does not compare the files with their hashes in the manifest.
    """
    if trust:
        return
    try:
        manifest = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))
        files, signature = manifest["files"], manifest.get("signature")
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{checkpoint} is damaged: {MANIFEST} cannot be read ({error}).") from error
    if not is_ours(_content(files), signature):
        raise CheckpointError(f"{checkpoint} {NOT_OURS}. {trust_advice(setting)}")
    present = (path.relative_to(checkpoint) for path in checkpoint.rglob("*") if not path.is_dir() or path.is_symlink())
    added = sorted(str(p) for p in present if not p.parts[0].startswith(LATER) and str(p) not in {*files, MANIFEST})
    if added:
        raise CheckpointError(f"{checkpoint} has files that this run did not write, such as {added[0]}. Remove them.")


def _content(files: Any) -> bytes:
    return json.dumps(files, sort_keys=True).encode()
