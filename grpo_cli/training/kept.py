"""The groups of a step that are kept for people to read, with the values of their tokens if these are wanted."""

from collections.abc import Sequence

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
    tokenizer: PreTrainedTokenizerBase,
) -> list[KeptGroup]:
    """The first `groups_per_step` groups of all ranks, in the order in which they were drawn; called on all ranks.

    `advantages` has one for each response of each group of this rank. `policy` must still have the weights that
    sampled.
    """
    chosen = [i for i, position in enumerate(rollout.positions) if position < config.groups_per_step]
    groups = [rollout.groups[i] for i in chosen]
    values = _token_values(groups, policy, tokenizer) if config.token_values else [None] * len(groups)
    mine = {
        rollout.positions[i]: kept_group(
            step, Split.train, group, [advantage.mean().item() for advantage in advantages[i]], of_group
        )
        for i, group, of_group in zip(chosen, groups, values, strict=True)
    }
    of_all_ranks = {position: group for of_rank in gather(mine) for position, group in of_rank.items()}
    return [of_all_ranks[position] for position in sorted(of_all_ranks)]


def _token_values(
    groups: Sequence[ScoredGroup], policy: Policy, tokenizer: PreTrainedTokenizerBase
) -> list[list[TokenValues]]:
    """The values of each response's tokens; called on all ranks."""
    sequences = [make_sequences(group) for group in groups]
    computed: dict[TrainingSequence, tuple[Tensor, Tensor]] = {}
    flat = [sequence for of_group in sequences for sequence in of_group]
    for microbatch, logprobs_N, entropy_N in policy.forwarded(flat, with_entropy=True):
        logprobs, entropies = microbatch.by_sequence(logprobs_N), microbatch.by_sequence(entropy_N)
        computed |= {sequence: (logprobs[sequence], entropies[sequence]) for sequence in logprobs}
    return [
        [
            TokenValues(
                token_texts(sequence.response_ids, tokenizer),
                sequence.sampler_logprobs or (),
                *(values_T.tolist() for values_T in computed[sequence]),
            )
            for sequence in of_group
        ]
        for of_group in sequences
    ]


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
