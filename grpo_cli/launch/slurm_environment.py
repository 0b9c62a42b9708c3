"""Environment variables of the Slurm job that a launcher runs in; they must not reach the job that it submits."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

JOB_PREFIXES = ("SLURM_", "SLURMD_", "SUBMITIT_", "PMI_", "PMIX_")
# These describe the Slurm installation, not the job.
KEPT = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SLURM_JWT", "SLURM_TIME_FORMAT")


def remove_job_variables() -> dict[str, str]:
    """Remove the variables of the current Slurm job from this process' environment, and return them.

    sbatch passes the environment on to a new job. There srun fails if it finds the memory per CPU of one job and the
    memory per node of another, and submitit looks for its files under the array number of the outer job.
    """
    if "SLURM_JOB_ID" not in os.environ:
        return {}
    inherited = [name for name in os.environ if name.startswith(JOB_PREFIXES) and name not in KEPT]
    return {name: os.environ.pop(name) for name in inherited}


@contextmanager
def without_job_variables() -> Iterator[None]:
    """In the `with` block, the environment is as outside of any Slurm job."""
    removed = remove_job_variables()
    try:
        yield
    finally:
        os.environ.update(removed)
