"""The groups of a step that are kept for people to read, with the values of their tokens if these are wanted."""

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from grpo_cli.config.run import LoggerConfig
from grpo_cli.ranks import gather
from grpo_cli.rollout.collect import Rollout
from grpo_cli.runs.rollouts import KeptGroup, Split, TokenValues, kept_group
from grpo_cli.training.batch import TrainingSequence, make_sequences
from grpo_cli.training.policy import Policy
from grpo_cli.types import ScoredGroup

INCOMPLETE = "\ufffd"  # what the bytes of an unfinished character decode to


def first_groups(
    step: int,
    rollout: Rollout,
    advantages: Sequence[Sequence[Tensor]],
    config: LoggerConfig,
    policy: Policy,
    values: Sequence[Sequence[TokenValues]] | None,
) -> list[KeptGroup]:
    """The first `groups_per_step` groups of all ranks, in the order in which they were drawn; called on all ranks.

    `advantages` has one for each response of each group of this rank. `values` is what `first_values` gave before the
    update; `policy` must have the weights after it.
    """
    chosen = _chosen(rollout, config)
    groups = [rollout.groups[i] for i in chosen]
    mine = {
        rollout.positions[i]: kept_group(
            step, Split.train, group, [advantage.mean().item() for advantage in advantages[i]], of_group
        )
        for i, group, of_group in zip(chosen, groups, _updated(groups, values, policy), strict=True)
    }
    of_all_ranks = {position: group for of_rank in gather(mine) for position, group in of_rank.items()}
    return [of_all_ranks[position] for position in sorted(of_all_ranks)]


def first_values(
    rollout: Rollout, config: LoggerConfig, policy: Policy, tokenizer: PreTrainedTokenizerBase
) -> list[list[TokenValues]] | None:
    """The values of each token of this rank's kept responses, None without `token_values`; called on all ranks.

    `policy` must still have the weights that sampled.
    """
    if not config.token_values:
        return None
    return [
        [
            TokenValues(
                token_texts(sequence.response_ids, tokenizer),
                sequence.sampler_logprobs or (),
                logprobs_T.tolist(),
                entropies_T.tolist(),
            )
            for sequence, logprobs_T, entropies_T in of_group
        ]
        for of_group in _forwarded([rollout.groups[i] for i in _chosen(rollout, config)], policy)
    ]


def _chosen(rollout: Rollout, config: LoggerConfig) -> list[int]:
    """The places of this rank's groups that are kept."""
    return [i for i, position in enumerate(rollout.positions) if position < config.groups_per_step]


def _updated(
    groups: Sequence[ScoredGroup], values: Sequence[Sequence[TokenValues]] | None, policy: Policy
) -> Sequence[Sequence[TokenValues] | None]:
    """The values with the log-probabilities of the policy as it is now."""
    if values is None:
        return [None] * len(groups)
    return [
        [
            replace(of_response, updated_logprobs=logprobs_T.tolist())
            for of_response, (_, logprobs_T, _) in zip(before, after, strict=True)
        ]
        for before, after in zip(values, _forwarded(groups, policy), strict=True)
    ]


def _forwarded(groups: Sequence[ScoredGroup], policy: Policy) -> list[list[tuple[TrainingSequence, Tensor, Tensor]]]:
    """Each response with the (T,) log-probabilities and entropies of its tokens; called on all ranks."""
    sequences = [make_sequences(group) for group in groups]
    computed: dict[TrainingSequence, tuple[Tensor, Tensor]] = {}
    flat = [sequence for of_group in sequences for sequence in of_group]
    for microbatch, logprobs_N, entropy_N in policy.forwarded(flat, with_entropy=True):
        logprobs, entropies = microbatch.by_sequence(logprobs_N), microbatch.by_sequence(entropy_N)
        computed |= {sequence: (logprobs[sequence], entropies[sequence]) for sequence in logprobs}
    return [[(sequence, *computed[sequence]) for sequence in of_group] for of_group in sequences]


def token_texts(token_ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The text of each token, such that they join to the text of all.

    A character of several tokens belongs to the last of them; the others are empty.
    """
    texts: list[str] = []
    first, shown = 0, ""  # decoding starts one token before the next text: a first token may lose its space
    for end in range(1, len(token_ids) + 1):
        text = tokenizer.decode(token_ids[first:end])
        if text.endswith(INCOMPLETE) and end < len(token_ids):
            texts.append("")
            continue
        texts.append(text[len(shown) :])
        first, shown = end - 1, tokenizer.decode(token_ids[end - 1 : end])
    return texts
