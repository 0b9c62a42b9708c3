"""Check all steps of a pipeline before the first one starts."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from grpo_cli.config.commands import check_settings, expand_shorthands
from grpo_cli.config.compose import (
    allow_new_entries,
    check_overrides,
    conf_dir,
    explain_hydra_error,
    register_schemas,
    to_typed,
)
from grpo_cli.config.machine import check_machine
from grpo_cli.errors import ConfigError
from grpo_cli.pipeline.plan import Step, refuse


def check_steps(steps: Sequence[Step], *, on_this_machine: bool = False) -> None:
    """Compose and check what each step would run, so that a fault in the last one is reported now.

    `on_this_machine` also asks whether the installed vLLM can run each. Raises ConfigError with the faults of all
    steps. What a step takes need not be there yet.
    """
    distinct = {(step.command, tuple(step.settings.items()), tuple(step.takes)): step for step in steps}
    register_schemas()
    with TemporaryDirectory() as empty, initialize_config_dir(str(conf_dir()), version_base="1.3"):
        folder = Path(empty)
        for step in distinct.values():
            for path in step.takes.values():
                _stand_in(folder / path)
        # Names first, which needs no composing.
        for find in (_name_fault, partial(_composed_fault, on_this_machine=on_this_machine)):
            faults = ((step.name, find(step.command, step.arguments(folder))) for step in distinct.values())
            refuse([f"{name}: {fault}" for name, fault in faults if fault])


def _name_fault(command: str, arguments: Sequence[str]) -> str | None:
    try:
        check_overrides(command, expand_shorthands(command, arguments))
    except ConfigError as error:
        return str(error)
    return None


def _composed_fault(command: str, arguments: Sequence[str], *, on_this_machine: bool) -> str | None:
    try:
        config = to_typed(compose(command, allow_new_entries(command, expand_shorthands(command, arguments))), command)
        check_settings(config)
        if on_this_machine:
            check_machine(config.cluster)
    except ConfigError as error:
        return str(error)
    except (HydraException, OmegaConfBaseException, AssertionError, OverflowError) as error:
        causes = [error]
        while causes[-1].__cause__ is not None:
            causes.append(causes[-1].__cause__)
        return explain_hydra_error("\n".join(dict.fromkeys(str(cause) for cause in causes)))
    return None


def _stand_in(path: Path) -> None:
    """Make an empty file, or a folder that looks like a model's, where an earlier step will leave a real one."""
    folder = path.parent if path.suffix else path
    folder.mkdir(parents=True, exist_ok=True)
    (path if path.suffix else path / "config.json").touch()
