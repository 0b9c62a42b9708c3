"""The job of Slurm that a launcher itself runs in, whose settings are not those of the job that it submits."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

OF_A_JOB = ("SLURM_", "SLURMD_", "SUBMITIT_", "PMI_", "PMIX_")
# Where Slurm is, and how to speak to it.
KEPT = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SLURM_JWT", "SLURM_TIME_FORMAT")


def leave_job() -> dict[str, str]:
    """Remove what tells of the job from this process' environment; what it was.

    sbatch hands the environment on to a new job: srun refuses to start there with the memory per CPU of one job and
    the memory per node of another, and submitit looks for its files under the number of an array.
    """
    if "SLURM_JOB_ID" not in os.environ:
        return {}
    inherited = [name for name in os.environ if name.startswith(OF_A_JOB) and name not in KEPT]
    return {name: os.environ.pop(name) for name in inherited}


@contextmanager
def outside_its_job() -> Iterator[None]:
    """Meanwhile the environment is as it would be outside."""
    inherited = leave_job()
    try:
        yield
    finally:
        os.environ.update(inherited)
