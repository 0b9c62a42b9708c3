"""Start the ranks of a run, on this machine or through Slurm."""

import sys
from pathlib import Path

from grpo_cli.config.cluster import ClusterConfig
from grpo_cli.launch.requests import print_if_open
from grpo_cli.printing import printable


def start(loop: str, config_file: Path, cluster: ClusterConfig, *, restarts_engines: bool = False) -> None:
    """Run a command's `loop` on every rank, with the settings in `config_file`, and wait until all ranks have ended.

    `loop` is a name in LOOPS. The error of a rank is raised again here; with `restarts_engines`, a rank that only
    generates is started again instead. submitit is imported only now, and torch once the ranks have started.
    """
    if cluster.slurm is not None:
        from grpo_cli.launch import slurm

        slurm.launch(loop, config_file, cluster)
    else:
        from grpo_cli.launch import local

        print_if_open(printable(f"{config_file.parent}: starting"), sys.stdout)
        local.launch(loop, config_file, cluster.ranks, cluster.rollout_ranks if restarts_engines else 0)
