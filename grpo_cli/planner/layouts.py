"""Ranks that generate and train in turn, or some that only generate: which takes less time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from grpo_cli.choices import Device
from grpo_cli.config.cluster import VLLMConfig
from grpo_cli.config.model import ShapeConfig
from grpo_cli.config.train import TrainConfig
from grpo_cli.hardware import Hardware
from grpo_cli.planner.duration import Lengths, plan_seconds
from grpo_cli.planner.fit import changed, fits

UTILIZATION = 0.9  # of a GPU's memory for vLLM, if the GPU only generates
BATCH_CHANGE = 0.25  # by which share the prompts of a step may change, so that they can be divided by the trainers
MARGIN = 1.1  # how many times as fast a split must be: a smaller gain is less than the error of the estimate

Changes = dict[str, float]  # settings and their values


@dataclass(frozen=True)
class Layout:
    """A division of the ranks, and the settings that make it."""

    rollout_ranks: int  # 0: every rank generates and trains
    max_staleness: int
    changes: Changes
    step: float  # seconds, for as many prompts as without the changes
    idle: float  # share of the time of all ranks


def plan_layouts(
    config: TrainConfig, shape: ShapeConfig, hardware: Hardware, lengths: Lengths, teacher: ShapeConfig | None = None
) -> list[Layout]:
    """Colocated ranks, then for each staleness the fastest split. What does not fit is left out."""
    together: Changes = {"cluster.rollout_ranks": 0, "rollout.max_staleness": 0}
    if config.cluster.rollout_ranks:  # its engines leave no memory for a trainer
        together["cluster.vllm.gpu_memory_utilization"] = VLLMConfig().gpu_memory_utilization
    kinds = [[together], *(list(_splits(config, staleness)) for staleness in (0, 1))]
    fastest: list[Layout] = []
    for kind in kinds:
        layouts = [
            _layout(config, changes, shape, hardware, lengths, teacher)
            for changes in kind
            if fits(changed(config, changes), shape, teacher)
        ]
        fastest += sorted(layouts, key=lambda layout: layout.step)[:1]
    return fastest


def choose(layouts: Sequence[Layout]) -> Layout:
    """The fastest, unless it is a split that is hardly faster than colocated ranks."""
    first, fastest = layouts[0], min(layouts, key=lambda layout: layout.step)
    return first if first.rollout_ranks == 0 and first.step < MARGIN * fastest.step else fastest


def _splits(config: TrainConfig, max_staleness: int) -> Iterator[Changes]:
    cluster, prompts = config.cluster, config.rollout.prompts_per_step
    for num in range(1, cluster.ranks):
        changes: Changes = {"cluster.rollout_ranks": num, "rollout.max_staleness": max_staleness}
        if cluster.device == Device.cuda:
            changes["cluster.vllm.gpu_memory_utilization"] = UTILIZATION
        share = config.algorithm.num_minibatches * (cluster.ranks - num)
        nearest = share * max(1, round(prompts / share))
        if nearest != prompts:
            changes["rollout.prompts_per_step"] = nearest
        if abs(nearest - prompts) <= BATCH_CHANGE * prompts:
            yield changes


def _layout(
    config: TrainConfig,
    changes: Changes,
    shape: ShapeConfig,
    hardware: Hardware,
    lengths: Lengths,
    teacher: ShapeConfig | None,
) -> Layout:
    candidate = changed(config, changes)
    seconds = plan_seconds(candidate, shape, hardware, lengths, teacher)
    cluster, rollout = candidate.cluster, candidate.rollout
    step = seconds.step(rollout.max_staleness)
    busy = cluster.engine_ranks * (seconds.generation - seconds.tail) + cluster.train_ranks * seconds.update
    idle = 1 - (busy + cluster.ranks * seconds.sync) / (cluster.ranks * step)
    per_prompt = step / rollout.prompts_per_step
    return Layout(
        cluster.rollout_ranks, rollout.max_staleness, changes, config.rollout.prompts_per_step * per_prompt, idle
    )
