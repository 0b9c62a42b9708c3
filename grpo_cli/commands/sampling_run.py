"""What the commands that sample a model share: the model of a checkpoint."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from grpo_cli.analysis.report import read_result
from grpo_cli.commands.hydra_job import given_keys
from grpo_cli.config.grammar import escaped
from grpo_cli.config.model import ModelConfig
from grpo_cli.config.tracker import tracker_group
from grpo_cli.errors import CheckpointError
from grpo_cli.runs.frozen import read_frozen


def take_checkpoint(composed: DictConfig) -> None:
    """Let `model` be that of `checkpoint`, where one is given, and the template and the W&B group those of its run.

    Raises CheckpointError where there is no such thing.
    """
    checkpoint = composed.checkpoint
    if checkpoint is None:
        return
    path = Path(checkpoint).expanduser()
    if not path.is_dir():
        if checkpoint.startswith((".", "~")) or checkpoint.count("/") != 1 or path.parent.is_dir():
            raise CheckpointError(
                f"checkpoint={checkpoint}: there is no such folder. Give a run's folder, one of its checkpoints, a "
                "model folder, or a hub id such as Qwen/Qwen2.5-Math-7B."
            )
        composed.model = ModelConfig(name=path.name, path=checkpoint)
        return
    run_dir, folder = path, path
    if (path / "config.json").is_file():
        run_dir = path.parent  # a run's model/, or any other folder
    else:
        run_dir = path if (path / "config.yaml").is_file() else path.parent.parent
        if not (run_dir / "config.yaml").is_file():
            raise CheckpointError(
                f"checkpoint={checkpoint}: is neither a run (no config.yaml), nor a checkpoint of one, nor a model "
                "(no config.json)."
            )
        folder = _finished_model(path) or _exported_model(path, composed.trust)
    composed.model = ModelConfig(name=escaped(_name(path, run_dir)), path=escaped(str(folder)))
    if (run_dir / "config.yaml").is_file():
        trained = read_frozen(run_dir / "config.yaml")
        group = tracker_group() or trained.logger.group or run_dir.resolve().name
        composed.logger.group = composed.logger.group or escaped(group)
        if not any(key.split(".")[0] == "template" for key in given_keys()):
            composed.template = OmegaConf.merge(composed.template, trained.template)


def _finished_model(path: Path) -> Path | None:
    """The model that a run left at its end; None of a run that has not come to it, or of a checkpoint."""
    result = read_result(path)
    if result is None:
        return None
    reached = result["step"]
    steps = read_frozen(path / "config.yaml").get("steps", reached)  # other loops than RL's leave no early result
    return path / "model" if reached == steps else None


def _exported_model(path: Path, trust: bool) -> Path:
    from grpo_cli.training.export import find_checkpoint, model_folder  # DeepSpeed is imported only where it is needed
    from grpo_cli.training.vouched import check_vouched

    check_vouched(find_checkpoint(path), "trust", trust)
    return model_folder(path)


def _name(path: Path, run_dir: Path) -> str:
    """Of a run its folder's name; of a checkpoint in it also its own."""
    path, run_dir = path.resolve(), run_dir.resolve()
    return path.name if path == run_dir else f"{run_dir.name}/{path.name}"
