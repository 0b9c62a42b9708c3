"""A rule that every command with an optimizer shares: training in bf16 needs ZeRO."""

from collections.abc import Iterator

from grpo_cli.choices import DType
from grpo_cli.config.cluster import ClusterConfig


def precision_faults(cluster: ClusterConfig) -> Iterator[str]:
    """The fault of training in bf16 without fp32 master weights, which only ZeRO keeps."""
    if cluster.dtype == DType.bf16 and cluster.zero_stage == 0:
        yield (
            "cluster.dtype=bf16 with cluster.zero_stage=0 keeps no fp32 master weights: small updates would vanish. "
            "Set cluster.zero_stage=1, or cluster.dtype=fp32."
        )
