"""Shared by the commands that sample a model: the model that `checkpoint` names."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from grpo_cli.analysis.report import read_result
from grpo_cli.commands.hydra_job import given_keys
from grpo_cli.config.grammar import escaped
from grpo_cli.config.model import ModelConfig
from grpo_cli.config.tracker import tracker_group
from grpo_cli.errors import CheckpointError
from grpo_cli.progress import stage
from grpo_cli.runs.frozen import read_frozen
from grpo_cli.runs.resume import find_checkpoint, unfit_settings
from grpo_cli.screen import Screen
from grpo_cli.training.signed import check_signed


def set_model_from_checkpoint(composed: DictConfig) -> None:
    """If `checkpoint` is set, set `model` to its model, and the template and the W&B group to those of its run.

    Raises CheckpointError if there is no such run, checkpoint or model.
    """
    checkpoint = composed.checkpoint
    if checkpoint is None:
        return
    path = Path(checkpoint).expanduser()
    if not path.is_dir():
        if checkpoint.startswith((".", "~")) or checkpoint.count("/") != 1 or path.parent.is_dir():
            raise CheckpointError(
                f"checkpoint={checkpoint}: there is no such folder. Give a run's folder, one of its checkpoints, a "
                "model folder, or a Hub id such as Qwen/Qwen2.5-Math-7B."
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
                f"checkpoint={checkpoint}: is neither a run (no config.yaml), nor a checkpoint of a run, nor a model "
                "(no config.json). Give the folder of one of these."
            )
        folder = _finished_model(path) or _exported_model(path, composed.trust)
    composed.model = ModelConfig(name=escaped(_name(path, run_dir)), path=escaped(str(folder)))
    if (run_dir / "config.yaml").is_file():
        trained = read_frozen(run_dir / "config.yaml")
        group = tracker_group() or trained.logger.group or run_dir.resolve().name
        composed.logger.group = composed.logger.group or escaped(group)
        if not any(key.split(".")[0] == "template" for key in given_keys()):
            try:
                composed.template = OmegaConf.merge(composed.template, trained.template)
            except OmegaConfBaseException as error:
                template = OmegaConf.create({"template": trained.get("template")})
                raise CheckpointError(
                    f"{run_dir / 'config.yaml'} does not fit this version of r1zero:\n"
                    f"{unfit_settings(template, 'eval', error)}\nChoose a template, as in template=r1."
                ) from error


def _finished_model(path: Path) -> Path | None:
    """The model/ folder of a finished run; None for a checkpoint or a run that has not finished."""
    result = read_result(path)
    if result is None:
        return None
    last_step = result["step"]
    steps = read_frozen(path / "config.yaml").get("steps", last_step)  # only RL writes a result before the end
    return path / "model" if last_step == steps else None


def _exported_model(path: Path, trust: bool) -> Path:
    checkpoint = find_checkpoint(path)
    check_signed(checkpoint, "trust", trust)
    if (folder := checkpoint / "model").is_dir():
        return folder
    with stage(Screen(stderr=True), f"exporting the model of {checkpoint.name}"):
        from grpo_cli.training.export import model_folder  # imports DeepSpeed

        return model_folder(checkpoint)


def _name(path: Path, run_dir: Path) -> str:
    """The name of the run folder; for a checkpoint, followed by the checkpoint's name."""
    path, run_dir = path.resolve(), run_dir.resolve()
    return path.name if path == run_dir else f"{run_dir.name}/{path.name}"
