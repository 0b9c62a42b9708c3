"""Log-probabilities of response tokens, without ever holding the logits of a whole batch.

S tokens of several sequences one after the other, N response tokens, H hidden size, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# Logits that exist at one time, by kind of device: 128 MiB and 512 MiB in float32; a backward pass holds a few copies.
CHUNK_VALUES = {"cpu": 2**25, "cuda": 2**27}


class TokenLogprobs(nn.Module):
    """A causal language model that returns log-probabilities and entropies of the response tokens.

    They are those of the distribution that vLLM samples from: logits divided by the temperature, and the ids that
    pad the embedding beyond the tokenizer's vocabulary ruled out. Being a module of its own, it runs inside the
    engine's forward: outside it the shards of ZeRO-3 are empty.
    """

    def __init__(self, model: nn.Module, *, temperature: float, vocab_size: int):
        """Replaces the output layer of `model` by one that computes log-probabilities with the same weights."""
        super().__init__()
        self.model = model
        self.temperature = temperature
        self.vocab_size = vocab_size
        model.set_output_embeddings(OutputLayer(model.get_output_embeddings()))

    def forward(
        self, tokens_S: Tensor, lengths: Sequence[int], predicts_S: Tensor, *, with_entropy: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        """(logprobs_N, entropy_N) in float32 of the tokens that follow where `predicts_S` is True.

        Sequences of these lengths stand one after the other, and do not see each other. No gradient flows through the
        entropy; without `with_entropy` it is None.
        """
        device = tokens_S.device
        positions_S = torch.cat([torch.arange(length, device=device) for length in lengths])
        decoded = self.model.get_decoder()(
            input_ids=tokens_S[None],
            position_ids=positions_S[None],
            use_cache=False,
            sequence_lengths=list(lengths),
            sequence_starts=torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device),
        )
        (places_N,) = predicts_S.nonzero(as_tuple=True)
        return self.model.get_output_embeddings()(
            decoded.last_hidden_state[0, places_N],
            tokens_S[places_N + 1],
            temperature=self.temperature,
            vocab_size=self.vocab_size,
            with_entropy=with_entropy,
        )


class OutputLayer(nn.Linear):
    """A model's output layer; with `targets_N`, it returns their log-probabilities and entropies instead of logits.

    All chunks of a micro-batch are one call of the layer: ZeRO-3 gathers the weight at each call, and the number of
    calls must not depend on how many tokens a rank has, or the ranks wait for each other forever.
    """

    def __init__(self, layer: nn.Linear):
        has_bias = layer.bias is not None
        super().__init__(layer.in_features, layer.out_features, bias=has_bias, device="meta", dtype=layer.weight.dtype)
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, hidden_NH: Tensor, targets_N: Tensor | None = None, **options: Any) -> Any:
        if targets_N is None:
            return super().forward(hidden_NH)
        return chunked_logprobs(hidden_NH, self.weight, self.bias, targets_N, **options)


def chunked_logprobs(
    hidden_NH: Tensor,
    weight_VH: Tensor,
    bias_V: Tensor | None,
    targets_N: Tensor,
    *,
    temperature: float,
    vocab_size: int,
    with_entropy: bool,
) -> tuple[Tensor, Tensor | None]:
    """(logprobs_N, entropy_N) in float32 of the targets, as softmax(logits[:vocab_size] / temperature) has them."""
    return _ChunkedLogprobs.apply(hidden_NH, weight_VH, bias_V, targets_N, temperature, vocab_size, with_entropy)


class _ChunkedLogprobs(torch.autograd.Function):
    """One chunk of logits at a time, computed again in the backward pass unless a single chunk holds them all.

    The gradient of the weight is added up over the chunks in float32, in one place.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_NH: Tensor,
        weight_VH: Tensor,
        bias_V: Tensor | None,
        targets_N: Tensor,
        temperature: float,
        vocab_size: int,
        with_entropy: bool,
    ) -> tuple[Tensor, Tensor | None]:
        ctx.temperature, ctx.vocab_size = temperature, vocab_size
        logprobs_N = hidden_NH.new_empty(len(targets_N), dtype=torch.float32)
        entropy_N = torch.empty_like(logprobs_N) if with_entropy else None
        chunks, kept = list(_chunks(targets_N, vocab_size)), []
        for chunk in chunks:
            logprobs_NV = _logprobs(hidden_NH[chunk], weight_VH, bias_V, temperature, vocab_size)
            logprobs_N[chunk] = logprobs_NV.gather(-1, targets_N[chunk, None]).squeeze(-1)
            if with_entropy:
                entropy_N[chunk] = -(logprobs_NV.exp() * logprobs_NV).sum(-1)
            if len(chunks) == 1:
                kept.append(logprobs_NV)
        ctx.save_for_backward(hidden_NH, weight_VH, bias_V, targets_N, *kept)
        if with_entropy:
            ctx.mark_non_differentiable(entropy_N)
        return logprobs_N, entropy_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_N: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden_NH, weight_VH, bias_V, targets_N, *kept = ctx.saved_tensors
        needs_hidden, needs_weight, needs_bias, *_ = ctx.needs_input_grad
        vocab_size = ctx.vocab_size
        grad_hidden_NH = torch.zeros_like(hidden_NH) if needs_hidden else None
        grad_weight_VH = torch.zeros_like(weight_VH, dtype=torch.float32) if needs_weight else None
        grad_bias_V = torch.zeros_like(bias_V, dtype=torch.float32) if needs_bias else None
        for chunk in _chunks(targets_N, vocab_size):
            (logprobs_NV,) = kept or (_logprobs(hidden_NH[chunk], weight_VH, bias_V, ctx.temperature, vocab_size),)
            grad_NV = torch.zeros_like(logprobs_NV).scatter_(-1, targets_N[chunk, None], grad_N[chunk, None])
            grad_NV = torch._log_softmax_backward_data(grad_NV, logprobs_NV, -1, torch.float32)
            grad_NV = grad_NV.div_(ctx.temperature).to(hidden_NH.dtype)
            if needs_hidden:
                grad_hidden_NH[chunk] = grad_NV @ weight_VH[:vocab_size]
            if needs_weight:
                grad_weight_VH[:vocab_size] += grad_NV.t() @ hidden_NH[chunk]
            if needs_bias:
                grad_bias_V[:vocab_size] += grad_NV.sum(0)
        grads = (grad_hidden_NH, grad_weight_VH, grad_bias_V)
        inputs = (hidden_NH, weight_VH, bias_V)
        typed = (None if g is None else g.to(of.dtype) for g, of in zip(grads, inputs, strict=True))
        return *typed, None, None, None, None


def _chunks(targets_N: Tensor, vocab_size: int) -> Iterator[slice]:
    size = max(1, CHUNK_VALUES[targets_N.device.type] // vocab_size)
    return (slice(first, first + size) for first in range(0, len(targets_N), size))


def _logprobs(
    hidden_NH: Tensor, weight_VH: Tensor, bias_V: Tensor | None, temperature: float, vocab_size: int
) -> Tensor:
    logits_NV = nn.functional.linear(hidden_NH, weight_VH, bias_V).float()[:, :vocab_size] / temperature
    return logits_NV.log_softmax(-1)
