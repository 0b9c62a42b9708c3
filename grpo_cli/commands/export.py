"""`r1zero export`: write the model of a run or a checkpoint to a folder, or push it to the Hugging Face Hub."""

import os
from pathlib import Path
from tempfile import TemporaryDirectory

from omegaconf import DictConfig

from grpo_cli.choices import DType
from grpo_cli.config.commands import check_settings
from grpo_cli.config.compose import to_typed
from grpo_cli.config.grammar import setting
from grpo_cli.config.tasks import HUB, ExportTask
from grpo_cli.errors import CheckpointError, ConfigError, SetupError
from grpo_cli.progress import stage
from grpo_cli.runs.resume import find_checkpoint
from grpo_cli.screen import Screen
from grpo_cli.training.signed import check_signed


def run(composed: DictConfig) -> None:
    """Write or push the model. Never overwrites a folder."""
    config: ExportTask = to_typed(composed, "export")
    check_settings(config)
    source = Path(config.checkpoint).expanduser()
    if not source.is_dir():
        raise CheckpointError(
            f"checkpoint={source}: there is no such folder. Give a run's folder, one of its checkpoints or its model/."
        )
    is_model = (source / "config.json").is_file()
    if is_model and (config.dtype is not None or not config.to.startswith(HUB)):
        raise ConfigError(
            f"checkpoint={source}: is a finished model, which can only be pushed unchanged, with to={HUB}<org>/<name>. "
            "Give the run or the checkpoint that it comes from."
        )
    if config.to.startswith(HUB):
        address = _push(source, config, is_model=is_model)
        print(f"The model is at {address}")
        return
    folder = Path(config.to).expanduser().absolute()
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ConfigError(
            f"to={config.to}: exists and is not an empty folder. It is not overwritten; give another one."
        )
    checkpoint = _export(source, folder, config.dtype, config.trust)
    print(
        f"The model of {checkpoint} is in {config.to}.\nTo measure it: r1zero eval {setting('checkpoint', config.to)}"
    )


def _export(source: Path, folder: Path, dtype: DType | None, trust: bool) -> Path:
    """Write the model to `folder`. Returns the checkpoint that it is from."""
    checkpoint = find_checkpoint(source)
    check_signed(checkpoint, "trust", trust)
    os.environ.setdefault("DS_ACCELERATOR", "cpu")  # no GPU is used, and DeepSpeed would warn that there is none
    with stage(Screen(stderr=True), "loading libraries"):
        from grpo_cli.training.export import export  # imports DeepSpeed

    with stage(Screen(stderr=True), "exporting the model"):
        export(checkpoint, folder, dtype)
    return checkpoint


def _push(source: Path, config: ExportTask, *, is_model: bool) -> str:
    """Push the model to the Hub. Returns its URL.

    Creates the repository before the export, so that a missing permission is reported immediately.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError  # the error of the HTTP library that huggingface_hub uses

    name = config.to.removeprefix(HUB)
    api = HfApi(library_name="r1zero")
    with TemporaryDirectory() as scratch:
        try:
            address = api.create_repo(name, private=config.private, exist_ok=True)
            folder = source
            if not is_model:
                folder = Path(scratch) / "model"
                _export(source, folder, config.dtype, config.trust)
            api.upload_folder(repo_id=name, folder_path=folder, commit_message="The model, by r1zero export")
        except (HTTPError, OSError, ValueError) as error:
            raise SetupError(
                f"to={HUB}{name}: {type(error).__name__}: {str(error).strip()}\nLog in with `hf auth login` as a user "
                f"who may write to {name.partition('/')[0]}. If the Hub cannot be reached from here, export to a "
                f"folder, and push it from another machine with `hf upload {name} FOLDER`."
            ) from error
    return str(address)
