"""Log-probabilities of response tokens, without keeping the logits of a whole batch in memory.

S tokens of several sequences in one row, N response tokens, K ids in the largest support, H hidden size, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import PreTrainedModel

from grpo_cli.rollout.support import keep_only_
from grpo_cli.training.logit_transform import NO_TRANSFORM, LogitTransform, logit_transform

# Logits in memory at one time, by device: 128 MiB and 512 MiB in float32. A backward pass needs a few times as much.
CHUNK_VALUES = {"cpu": 2**25, "cuda": 2**27}


class TokenLogprobs(nn.Module):
    """A causal language model that returns log-probabilities and entropies of the response tokens.

    They belong to the distribution that vLLM samples from: logits are divided by the temperature, and ids that only pad
    the embedding beyond the tokenizer's vocabulary, or that top_p and top_k left out, are excluded. It is a module, so
    that all of this runs inside the engine's forward pass: outside, a weight that ZeRO-3 has split is empty.
    """

    def __init__(self, model: PreTrainedModel, *, temperature: float, vocab_size: int):
        """Replace the output layer of `model` with one that computes log-probabilities with the same weights."""
        super().__init__()
        self.model = model
        self.temperature = temperature
        self.vocab_size = vocab_size
        self.packs = False  # True: sequences may be packed in one row, with training/attention.py
        self.transform = logit_transform(model.config)
        model.set_output_embeddings(OutputLayer(model.get_output_embeddings()))

    def forward(
        self,
        tokens_S: Tensor,
        lengths: Sequence[int],
        predicts_S: Tensor,
        support_NK: Tensor | None = None,
        *,
        with_entropy: bool = True,
    ) -> tuple[Tensor, Tensor | None]:
        """(logprobs_N, entropy_N) in float32 of each token that follows one whose `predicts_S` is True.

        The row has sequences of these lengths, which do not see each other. With `support_NK`, both are over these ids
        (rollout/support.py). Without `with_entropy`, the entropy is None.
        """
        device = tokens_S.device
        positions_S = torch.cat([torch.arange(length, device=device) for length in lengths])
        starts = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device)
        sequences = {"sequence_lengths": list(lengths), "sequence_starts": starts} if self.packs else {}
        decoded = self.model.get_decoder()(
            input_ids=tokens_S[None], position_ids=positions_S[None], use_cache=False, **sequences
        )
        (indices_N,) = predicts_S.nonzero(as_tuple=True)
        return self.model.get_output_embeddings()(
            decoded.last_hidden_state[0, indices_N],
            tokens_S[indices_N + 1],
            temperature=self.temperature,
            vocab_size=self.vocab_size,
            transform=self.transform,
            support_NK=support_NK,
            with_entropy=with_entropy,
        )


class OutputLayer(nn.Linear):
    """A model's output layer. With `targets_N`, it returns their log-probabilities and entropies instead of logits.

    All chunks of a micro-batch are one call of the layer. ZeRO-3 gathers the weight at each call, so if the number of
    calls depended on a rank's number of tokens, the ranks would wait for each other forever.
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
    transform: LogitTransform = NO_TRANSFORM,
    support_NK: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """(logprobs_N, entropy_N) in float32 of the targets under softmax(transform(logits)[:vocab_size] / temperature)."""
    layer = _Layer(temperature, vocab_size, transform, support_NK)
    return _ChunkedLogprobs.apply(hidden_NH, weight_VH, bias_V, targets_N, layer, with_entropy)


@dataclass(frozen=True)
class _Layer:
    """Computes log-probabilities from hidden states, in float32; with `support_NK`, over the ids in a token's row."""

    temperature: float
    vocab_size: int
    transform: LogitTransform
    support_NK: Tensor | None

    def logits(self, hidden_NH: Tensor, weight_VH: Tensor, bias_V: Tensor | None) -> Tensor:
        return self.transform(nn.functional.linear(hidden_NH, weight_VH, bias_V).float()[:, : self.vocab_size])

    def logprobs(self, logits_NV: Tensor, rows: slice) -> Tensor:
        scaled_NV = logits_NV / self.temperature
        return (scaled_NV if self.support_NK is None else keep_only_(scaled_NV, self.support_NK[rows])).log_softmax(-1)


class _ChunkedLogprobs(torch.autograd.Function):
    """Computes one chunk of logits at a time, and computes it again in the backward pass unless there is only one.

    The gradient of the weight is summed over the chunks in float32.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_NH: Tensor,
        weight_VH: Tensor,
        bias_V: Tensor | None,
        targets_N: Tensor,
        layer: _Layer,
        with_entropy: bool,
    ) -> tuple[Tensor, Tensor | None]:
        ctx.layer = layer
        logprobs_N = hidden_NH.new_empty(len(targets_N), dtype=torch.float32)
        entropy_N = torch.empty_like(logprobs_N) if with_entropy else None
        chunks, kept = list(_chunks(targets_N, layer.vocab_size)), []
        for chunk in chunks:
            logprobs_NV = layer.logprobs(layer.logits(hidden_NH[chunk], weight_VH, bias_V), chunk)
            logprobs_N[chunk] = logprobs_NV.gather(-1, targets_N[chunk, None]).squeeze(-1)
            if entropy_N is not None:
                entropy_N[chunk] = -(logprobs_NV.exp() * logprobs_NV).sum(-1)
            if len(chunks) == 1 and layer.transform.cap is None:  # the derivative of the cap needs the logits too
                kept.append(logprobs_NV)
        ctx.save_for_backward(hidden_NH, weight_VH, bias_V, targets_N, *kept)
        ctx.set_materialize_grads(False)  # None for what the loss does not use
        return logprobs_N, entropy_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_N: Tensor, entropy_grad_N: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden_NH, weight_VH, bias_V, targets_N, *kept = ctx.saved_tensors
        needs_hidden, needs_weight, needs_bias, *_ = ctx.needs_input_grad
        layer, vocab_size = ctx.layer, ctx.layer.vocab_size
        grad_hidden_NH = torch.zeros_like(hidden_NH) if needs_hidden else None
        grad_weight_VH = torch.zeros_like(weight_VH, dtype=torch.float32) if needs_weight else None
        grad_bias_V = torch.zeros_like(bias_V, dtype=torch.float32) if needs_bias else None
        for chunk in _chunks(targets_N, vocab_size):
            logits_NV = None
            if kept:
                (logprobs_NV,) = kept
            else:
                logits_NV = layer.logits(hidden_NH[chunk], weight_VH, bias_V)
                logprobs_NV = layer.logprobs(logits_NV, chunk)
            grad_NV = torch.zeros_like(logprobs_NV).scatter_(-1, targets_N[chunk, None], grad_N[chunk, None])
            grad_NV = torch._log_softmax_backward_data(grad_NV, logprobs_NV, -1, torch.float32)
            if entropy_grad_N is not None:  # the derivative of the entropy H is -p (log p + H)
                p_NV = logprobs_NV.exp()
                negative_entropy_N1 = (p_NV * logprobs_NV).sum(-1, keepdim=True)
                grad_NV -= entropy_grad_N[chunk, None] * p_NV * (logprobs_NV - negative_entropy_N1)
            grad_NV = grad_NV.div_(layer.temperature)
            if layer.transform != NO_TRANSFORM:
                grad_NV = grad_NV.mul_(layer.transform.derivative(logits_NV))
            grad_NV = grad_NV.to(hidden_NH.dtype)
            if grad_hidden_NH is not None:
                grad_hidden_NH[chunk] = grad_NV @ weight_VH[:vocab_size]
            if grad_weight_VH is not None:
                grad_weight_VH[:vocab_size] += grad_NV.t() @ hidden_NH[chunk]
            if grad_bias_V is not None:
                grad_bias_V[:vocab_size] += grad_NV.sum(0)
        grads = (grad_hidden_NH, grad_weight_VH, grad_bias_V)
        inputs = (hidden_NH, weight_VH, bias_V)
        typed = (None if g is None else g.to(tensor.dtype) for g, tensor in zip(grads, inputs, strict=True))
        return *typed, None, None, None


def _chunks(targets_N: Tensor, vocab_size: int) -> Iterator[slice]:
    size = max(1, CHUNK_VALUES[targets_N.device.type] // vocab_size)
    return (slice(first, first + size) for first in range(0, len(targets_N), size))
