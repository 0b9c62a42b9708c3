"""How the ranks of a run are started."""

from pathlib import Path

from grpo_cli.config.cluster import ClusterConfig


def start(command: str, config_file: Path, cluster: ClusterConfig) -> None:
    """Run `command` with its frozen configuration on every rank, on this machine or through Slurm, until all end.

    A rank's fault is raised again here. torch and submitit are imported only now, when all settings are in order.
    """
    if cluster.slurm is not None:
        from grpo_cli.launch import slurm

        slurm.launch(command, config_file, cluster)
    else:
        from grpo_cli.launch import local

        local.launch(command, config_file, cluster.ranks)
