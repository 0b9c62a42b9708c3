"""Start the ranks of a run, on this machine or through Slurm."""

import gc
from pathlib import Path

from grpo_cli.config.cluster import ClusterConfig
from grpo_cli.progress import stage
from grpo_cli.screen import Screen


def start(loop: str, config_file: Path, cluster: ClusterConfig) -> None:
    """Run a command's `loop` on every rank, with the settings in `config_file`, and wait until all ranks have ended.

    `loop` is a name in LOOPS. The error of a rank is raised again here. torch and submitit are imported only now, after
    all settings have been checked.
    """
    if cluster.slurm is not None:
        from grpo_cli.launch import slurm

        slurm.launch(loop, config_file, cluster)
    else:
        with stage(Screen(), f"{config_file.parent}: starting"):
            from grpo_cli.launch import local

        gc.freeze()  # otherwise Python visits every object of torch when it exits, which takes a second
        local.launch(loop, config_file, cluster.ranks)
