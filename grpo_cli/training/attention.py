"""Attention within each of several sequences that stand in one row, so that nothing is padded."""

import torch
from torch import Tensor, nn
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AttentionInterface, PretrainedConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward

WITHIN_SEQUENCES = "within_sequences"  # as `attn_implementation`
KINDS = {"full_attention", "sliding_attention"}  # of layers that it stands in for


def keeps_sequences_apart(config: PretrainedConfig) -> bool:
    """Whether all layers of such a model would: those that are no attention, or a kind of it that looks at its place
    in the row, would mix them.
    """
    network = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    kinds = getattr(config.get_text_config(), "layer_types", None) or ()
    return network._supports_attention_backend and KINDS.issuperset(kinds)


def _attend(
    module: nn.Module,
    query_1QSD: Tensor,
    key_1KSD: Tensor,
    value_1KSD: Tensor,
    attention_mask: Tensor | None,
    *,
    sequence_lengths: list[int],
    sliding_window: int | None = None,
    **options,
) -> tuple[Tensor, None]:
    """What transformers' own function gives for each sequence alone; Q heads of queries, K of keys, of size D."""
    parts = zip(*(heads.split(sequence_lengths, dim=2) for heads in (query_1QSD, key_1KSD, value_1KSD)), strict=True)
    attended = [sdpa_attention_forward(module, *part, _window(part[0], sliding_window), **options)[0] for part in parts]
    return torch.cat(attended, dim=1), None


def _window(query_1QSD: Tensor, size: int | None) -> Tensor | None:
    """The mask of a causal window of so many positions; None where it would hold them all."""
    length = query_1QSD.shape[2]
    if size is None or length <= size:
        return None
    places = torch.arange(length, device=query_1QSD.device)
    distance = places[:, None] - places
    return ((distance >= 0) & (distance < size))[None, None]


AttentionInterface.register(WITHIN_SEQUENCES, _attend)
