"""Attention within each of several sequences that are packed in one row, without padding.

S tokens of the row, Q heads of queries, K of keys and values, of size D.
"""

import sys
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AttentionInterface, PretrainedConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward

PACKED_ATTENTION = "within_sequences"  # as `attn_implementation`
KINDS = {"full_attention", "sliding_attention"}  # layer types that it supports
FLASH_DTYPES = (torch.bfloat16, torch.float16)
FLASH_HEAD_SIZE = 256  # the largest that FlashAttention has kernels for
FAMILY_OPTIONS = ("softcap", "s_aux")  # soft caps of Gemma 2, sinks of gpt-oss: neither kernel supports them


def keeps_sequences_apart(config: PretrainedConfig) -> bool:
    """Whether no layer of such a model mixes packed sequences.

    Layers without attention, or with attention that depends on the position in the row, would mix them.
    """
    network = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    kinds = getattr(config.get_text_config(), "layer_types", None) or ()
    return network._supports_attention_backend and KINDS.issuperset(kinds)


def _attend(
    module: nn.Module, query_1QSD: Tensor, key_1KSD: Tensor, value_1KSD: Tensor, mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """The same result as transformers' own function for each sequence alone, as (1, S, Q, D)."""
    has_kernel = query_1QSD.dtype in FLASH_DTYPES and query_1QSD.shape[-1] <= FLASH_HEAD_SIZE
    fast = query_1QSD.is_cuda and has_kernel and not _has_family_options(options)
    attend = in_one_call if fast else one_by_one
    return attend(module, query_1QSD, key_1KSD, value_1KSD, **options), None


def _has_family_options(options: dict[str, Any]) -> bool:
    return any(options.get(name) is not None for name in FAMILY_OPTIONS)


def in_one_call(
    module: nn.Module,
    query_1QSD: Tensor,
    key_1KSD: Tensor,
    value_1KSD: Tensor,
    *,
    sequence_lengths: list[int],
    sequence_starts: Tensor,
    sliding_window: int | None = None,
    scaling: float | None = None,
    **_: Any,
) -> Tensor:
    """Attention with one FlashAttention call. `sequence_starts` is int32 on the device, and its last value is S."""
    query_SQD, key_SKD, value_SKD = (heads[0].transpose(0, 1) for heads in (query_1QSD, key_1KSD, value_1KSD))
    longest = max(sequence_lengths)
    attended_SQD = varlen_attn(
        query_SQD,
        key_SKD,
        value_SKD,
        sequence_starts,
        sequence_starts,
        longest,
        longest,
        scale=scaling,
        # How many tokens a token sees on its left and on its right; -1: all of its sequence.
        window_size=(-1 if sliding_window is None else sliding_window - 1, 0),
        enable_gqa=query_SQD.shape[1] != key_SKD.shape[1],
    )
    return attended_SQD[None]


def one_by_one(
    module: nn.Module,
    query_1QSD: Tensor,
    key_1KSD: Tensor,
    value_1KSD: Tensor,
    *,
    sequence_lengths: list[int],
    sequence_starts: Tensor,
    sliding_window: int | None = None,
    **options: Any,
) -> Tensor:
    """Attention with transformers' own functions, one call per sequence.

    For what FlashAttention does not support: a CPU, float32, and families whose attention has soft caps or sinks.
    """
    attend, mask_of = sdpa_attention_forward, _window
    if _has_family_options(options):
        # The formula in the family's own file. It keeps the scores of a whole sequence, which needs memory.
        attend, mask_of = sys.modules[type(module).__module__].eager_attention_forward, _added_window
    parts = zip(*(heads.split(sequence_lengths, dim=2) for heads in (query_1QSD, key_1KSD, value_1KSD)), strict=True)
    attended = [attend(module, *part, mask_of(part[0], sliding_window), **options)[0] for part in parts]
    return torch.cat(attended, dim=1)


def _window(query_1QSD: Tensor, size: int | None) -> Tensor | None:
    """The mask of a causal window of `size` positions: True for tokens that are seen. None if all are seen."""
    length = query_1QSD.shape[2]
    if size is None or length <= size:
        return None
    positions = torch.arange(length, device=query_1QSD.device)
    distance = positions[:, None] - positions
    return ((distance >= 0) & (distance < size))[None, None]


def _added_window(query_1QSD: Tensor, size: int | None) -> Tensor:
    """The same mask as values to add to the scores. Never None, since these functions are not causal without a mask."""
    length = query_1QSD.shape[2]
    seen_11SS = _window(query_1QSD, size)
    if seen_11SS is None:
        seen_11SS = torch.ones(1, 1, length, length, dtype=torch.bool, device=query_1QSD.device).tril()
    added_11SS = torch.zeros(seen_11SS.shape, dtype=query_1QSD.dtype, device=query_1QSD.device)
    return added_11SS.masked_fill(~seen_11SS, torch.finfo(query_1QSD.dtype).min)


AttentionInterface.register(PACKED_ATTENTION, _attend)
