"""Checks all stages of a pipeline before the first one starts."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from grpo_cli.bounds import settings_faults
from grpo_cli.config.compose import conf_dir, register_schemas, to_typed
from grpo_cli.config.hydra_errors import explain_hydra_error
from grpo_cli.config.machine import check_machine
from grpo_cli.config.overrides import allow_new_entries, check_flags, check_overrides, expand_shorthands
from grpo_cli.errors import ConfigError
from grpo_cli.pipeline.stages import Stage, reject


def check_stages(stages: Sequence[Stage], folder: Path, *, on_this_machine: bool = False) -> None:
    """Compose each stage's settings and check them as its command does.

    Files from earlier stages may still be missing: the command checks for them when it starts. `on_this_machine` also
    checks whether the installed vLLM can run each stage. Raises ConfigError with all faults.
    """
    register_schemas()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        reject(
            [
                f"{stage.name}: {fault}"
                for stage in stages
                for fault in _faults(stage, on_this_machine)
                if not any(str(folder / name) in fault for name in stage.uses)
            ]
        )


def _faults(stage: Stage, on_this_machine: bool) -> Iterator[str]:
    command, *arguments = stage.words
    try:
        arguments = expand_shorthands(command, arguments)
        check_flags(command, arguments)
        check_overrides(command, arguments)
        config = to_typed(compose(command, allow_new_entries(command, arguments)), command)
        if on_this_machine:
            check_machine(config.cluster)
        yield from settings_faults(config)
    except ConfigError as error:
        yield str(error)
    except (HydraException, OmegaConfBaseException, AssertionError, OverflowError) as error:
        yield explain_hydra_error(error, command)
