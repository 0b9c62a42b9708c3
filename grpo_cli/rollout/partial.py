"""Partial rollouts (`rollout.oversample`): a step does not wait for the longest responses; the next one continues them.

More groups are sampled than a step needs, a segment of each response at a time, until enough groups are complete (as
in Kimi k1.5, arXiv:2501.12599, section 2.6.2). The others wait, with their tokens and log-probabilities, and the next
step continues them with its weights. Which tokens a step samples depends on lengths and settings, never on timing or
on the number of ranks.
"""

import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from grpo_cli.config.train import TrainConfig
from grpo_cli.data.sampler import EpochSampler
from grpo_cli.ranks import gather
from grpo_cli.reward.reward import Reward
from grpo_cli.rollout.collect import Draw, Engine, sample_seed
from grpo_cli.rollout.segments import is_cut
from grpo_cli.rollout.share import share
from grpo_cli.types import Completion, Prompt, Request, Sampling, Score, ScoredGroup

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

Key = tuple[int, int]
SEGMENTS = 8  # of a response, if `rollout.segment_tokens` is not set


@dataclass(frozen=True)
class WaitingGroup:
    """A group that no step has trained on. Its responses are complete, cut, or not begun (None)."""

    step: int  # that drew its prompt
    index: int  # of the prompt among those that the step drew, over all ranks
    prompt: Prompt
    responses: tuple[Completion | None, ...]

    @property
    def key(self) -> Key:
        """The same for any number of ranks, and in the order in which the prompts were drawn."""
        return self.step, self.index

    @property
    def completions(self) -> tuple[Completion, ...]:
        """The responses that have begun."""
        return tuple(response for response in self.responses if response is not None)

    def is_complete(self, sampling: Sampling) -> bool:
        return not any(response is None or is_cut(response, sampling) for response in self.responses)

    def older(self) -> "WaitingGroup":
        """The same one update later."""
        responses = (r and replace(r, ages=tuple((count, age + 1) for count, age in r.ages)) for r in self.responses)
        return replace(self, responses=tuple(responses))


def sample_partial(
    engine: Engine,
    reward: Reward,
    sampler: EpochSampler,
    config: TrainConfig,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    *,
    step: int,
    waiting: Sequence[WaitingGroup],
    exchange: "ProcessGroup | None" = None,
) -> Draw:
    """Sample `prompts` and what was `waiting` until `rollout.prompts_per_step` groups are complete, and score those.

    Called on all ranks. `waiting` are this rank's groups; the draw has those that wait after it. A group that was drawn
    `most_carried` steps ago has to be complete. `exchange` connects the ranks; None: the usual group of all ranks.
    """
    started = time.perf_counter()
    segment = config.rollout.segment_tokens or -(-sampling.max_new_tokens // SEGMENTS)
    segmented = replace(sampling, segment_tokens=segment)
    none_yet = (None,) * config.rollout.group_size
    drawn = [WaitingGroup(step, index, prompts[index], none_yet) for index in share(prompts, sampler)]
    groups = {group.key: group for group in [*(group.older() for group in waiting), *drawn]}
    scores: dict[Key, list[Future[Score]]] = {}
    while True:
        for key, group in groups.items():
            if key not in scores and group.is_complete(sampling):
                scores[key] = [
                    reward.submit(group.prompt.problem, response, step=step, max_new_tokens=sampling.max_new_tokens)
                    for response in group.completions
                ]
        facts = {key: (sampler.place(group.prompt), key in scores) for key, group in groups.items()}
        of_all = dict(sorted(pair for of_rank in gather(facts, exchange) for pair in of_rank.items()))
        complete = [key for key, (_, is_complete) in of_all.items() if is_complete]
        late = [key for key in of_all.keys() - complete if key[0] <= step - config.most_carried]
        if len(complete) >= config.rollout.prompts_per_step and not late:
            break
        groups |= _continued(groups.keys() - scores.keys(), groups, engine, segmented, config.seed)
    generated = time.perf_counter()
    chosen = complete[: config.rollout.prompts_per_step]  # the first that were drawn, so none is late
    mine = {
        place: ScoredGroup(groups[key].prompt, groups[key].completions, tuple(score.result() for score in scores[key]))
        for place, key in enumerate(chosen)
        if key in groups
    }
    return Draw(
        groups=mine,
        prompts=[sampler.items[of_all[key][0]] for key in chosen],
        generation_s=generated - started,
        reward_s=time.perf_counter() - generated,
        waiting=tuple(group for key, group in sorted(groups.items()) if key not in chosen),
    )


def _continued(
    keys: Collection[Key], groups: Mapping[Key, WaitingGroup], engine: Engine, sampling: Sampling, seed: int
) -> dict[Key, WaitingGroup]:
    """These groups, with one more segment of each response that is not complete."""
    responses = {key: list(groups[key].responses) for key in sorted(keys)}
    members = [
        (key, number)
        for key, of_group in responses.items()
        for number, response in enumerate(of_group)
        if response is None or is_cut(response, sampling)
    ]
    requests = []
    for key, number in members:
        prefix = responses[key][number]
        parts = (*key, number) if prefix is None else (*key, number, len(prefix.token_ids))
        requests.append(Request(groups[key].prompt.token_ids, sample_seed(seed, *parts), prefix))
    for index, response in engine.generate(requests, sampling):
        key, number = members[index]
        responses[key][number] = response
    return {key: replace(groups[key], responses=tuple(of_group)) for key, of_group in responses.items()}
