"""Log-probabilities in chunks against plain autograd over all logits at once."""

import pytest
import torch
from transformers import CohereConfig, Gemma2Config, GraniteConfig, LlamaConfig

from grpo_cli.training import logprobs
from grpo_cli.training.logit_transform import LogitTransform, logit_transform
from grpo_cli.training.logprobs import chunked_logprobs

N, H, V, VOCAB = 11, 8, 20, 17  # the embedding has 3 padding ids


def inputs(has_bias: bool, dtype: torch.dtype = torch.float64) -> list[torch.Tensor | None]:
    torch.manual_seed(0)
    hidden_NH, weight_VH, bias_V = torch.randn(N, H), torch.randn(V, H), torch.randn(V)
    leaves = (hidden_NH, weight_VH, bias_V if has_bias else None)
    return [None if leaf is None else leaf.to(dtype).requires_grad_() for leaf in leaves]


TARGETS_N = torch.arange(N) % VOCAB
UPSTREAM_N = torch.linspace(-1, 2, N)


def all_logprobs(hidden_NH, weight_VH, bias_V) -> torch.Tensor:
    logits_NV = torch.nn.functional.linear(hidden_NH, weight_VH, bias_V).float()[:, :VOCAB] / 0.7
    return logits_NV.log_softmax(-1)


@pytest.mark.parametrize("tokens_per_chunk", [1, 4, 11, 100])
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("of_entropy", [0.0, 0.3])
def test_chunks_give_the_same_values_and_gradients_as_one_pass(tokens_per_chunk, has_bias, of_entropy, monkeypatch):
    monkeypatch.setattr(logprobs, "CHUNK_VALUES", {"cpu": tokens_per_chunk * VOCAB})
    chunked, expected = inputs(has_bias), inputs(has_bias)
    logprobs_N, entropy_N = chunked_logprobs(*chunked, TARGETS_N, temperature=0.7, vocab_size=VOCAB, with_entropy=True)
    expected_NV = all_logprobs(*expected)
    expected_N = expected_NV.gather(-1, TARGETS_N[:, None]).squeeze(-1)
    expected_entropy_N = -(expected_NV.exp() * expected_NV).sum(-1)
    torch.testing.assert_close(logprobs_N, expected_N)
    torch.testing.assert_close(entropy_N, expected_entropy_N)
    ((logprobs_N + of_entropy * entropy_N if of_entropy else logprobs_N) * UPSTREAM_N).sum().backward()
    ((expected_N + of_entropy * expected_entropy_N) * UPSTREAM_N).sum().backward()
    for ours, reference in zip(chunked, expected, strict=True):
        if reference is not None:
            torch.testing.assert_close(ours.grad, reference.grad, rtol=1e-6, atol=1e-6)


def test_the_gradient_of_the_entropy_of_two_tokens():
    # p = (1/4, 3/4): H = 0.5623, and dH/dlogit = -p (log p + H) = (0.2060, -0.2060)
    logits_NV = torch.tensor([[0.25, 0.75]]).log().requires_grad_()
    logprobs_N, entropy_N = chunked_logprobs(
        logits_NV, torch.eye(2), None, torch.tensor([0]), temperature=1.0, vocab_size=2, with_entropy=True
    )
    (0 * logprobs_N + entropy_N).sum().backward()
    torch.testing.assert_close(entropy_N, torch.tensor([0.5623]), rtol=0, atol=1e-4)
    torch.testing.assert_close(logits_NV.grad, torch.tensor([[0.2060, -0.2060]]), rtol=0, atol=1e-4)


def test_the_log_probability_of_a_token_within_its_support():
    # p = (1/2, 3/10, 1/5). Within {0, 2}: p = (5/7, 2/7), and the entropy is 5/7 log(7/5) + 2/7 log(7/2) = 0.5983.
    logits_NV = torch.tensor([[0.5, 0.3, 0.2]]).log().requires_grad_()
    logprobs_N, entropy_N = chunked_logprobs(
        *(logits_NV, torch.eye(3), None, torch.tensor([2])),
        **{"temperature": 1.0, "vocab_size": 3, "with_entropy": True},
        support_NK=torch.tensor([[2, 0, 2]], dtype=torch.int32),
    )
    logprobs_N.sum().backward()
    torch.testing.assert_close(logprobs_N.exp(), torch.tensor([2 / 7]))
    torch.testing.assert_close(entropy_N, torch.tensor([0.5983]), rtol=0, atol=1e-4)
    torch.testing.assert_close(logits_NV.grad, torch.tensor([[-5 / 7, 0, 5 / 7]]))


@pytest.mark.parametrize("tokens_per_chunk", [1, 4, 100])
@pytest.mark.parametrize("transform", [LogitTransform(), LogitTransform(cap=3.0)])
def test_supports_give_the_same_values_and_gradients_as_autograd_over_the_chosen_logits(
    tokens_per_chunk, transform, monkeypatch
):
    monkeypatch.setattr(logprobs, "CHUNK_VALUES", {"cpu": tokens_per_chunk * VOCAB})
    support_NK = torch.stack([torch.tensor([t, (3 * t + 1) % VOCAB, (5 * t + 2) % VOCAB]) for t in TARGETS_N])
    chunked, expected = inputs(has_bias=True), inputs(has_bias=True)
    options = {"temperature": 0.7, "vocab_size": VOCAB, "with_entropy": True, "transform": transform}
    logprobs_N, entropy_N = chunked_logprobs(*chunked, TARGETS_N, **options, support_NK=support_NK.int())
    logits_NV = torch.nn.functional.linear(*expected).float()
    logits_NV = logits_NV if transform.cap is None else transform.cap * torch.tanh(logits_NV / transform.cap)
    rows = [logits_N[sorted(set(ids))] / 0.7 for logits_N, ids in zip(logits_NV, support_NK.tolist(), strict=True)]
    expected_N = torch.stack([logits_NV[n, t] / 0.7 - rows[n].logsumexp(-1) for n, t in enumerate(TARGETS_N)])
    expected_entropy_N = torch.stack([torch.special.entr(row.softmax(-1)).sum() for row in rows])
    torch.testing.assert_close(logprobs_N, expected_N)
    torch.testing.assert_close(entropy_N, expected_entropy_N)
    ((logprobs_N + 0.3 * entropy_N) * UPSTREAM_N).sum().backward()
    ((expected_N + 0.3 * expected_entropy_N) * UPSTREAM_N).sum().backward()
    for ours, reference in zip(chunked, expected, strict=True):
        torch.testing.assert_close(ours.grad, reference.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("transform", [LogitTransform(0.25), LogitTransform(cap=3.0), LogitTransform(2.0, cap=3.0)])
@pytest.mark.parametrize("tokens_per_chunk", [4, 100])
def test_scaled_and_capped_logits_give_the_same_values_and_gradients_as_autograd(
    transform, tokens_per_chunk, monkeypatch
):
    monkeypatch.setattr(logprobs, "CHUNK_VALUES", {"cpu": tokens_per_chunk * VOCAB})
    chunked, expected = inputs(has_bias=True), inputs(has_bias=True)
    options = {"temperature": 0.7, "vocab_size": VOCAB, "with_entropy": False, "transform": transform}
    logprobs_N, _ = chunked_logprobs(*chunked, TARGETS_N, **options)
    logits_NV = torch.nn.functional.linear(*expected).float() * transform.scale
    if transform.cap:
        logits_NV = transform.cap * torch.tanh(logits_NV / transform.cap)
    expected_N = (logits_NV[:, :VOCAB] / 0.7).log_softmax(-1).gather(-1, TARGETS_N[:, None]).squeeze(-1)
    torch.testing.assert_close(logprobs_N, expected_N)
    (logprobs_N * UPSTREAM_N).sum().backward()
    (expected_N * UPSTREAM_N).sum().backward()
    for ours, reference in zip(chunked, expected, strict=True):
        torch.testing.assert_close(ours.grad, reference.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("config", "transform"),
    [
        (LlamaConfig(), LogitTransform()),
        (GraniteConfig(logits_scaling=4.0), LogitTransform(0.25)),
        (CohereConfig(logit_scale=0.0625), LogitTransform(0.0625)),
        (Gemma2Config(final_logit_softcapping=30.0), LogitTransform(cap=30.0)),
    ],
    ids=lambda value: getattr(value, "model_type", ""),
)
def test_the_scale_and_the_cap_of_a_family_are_read_from_its_config(config, transform):
    assert logit_transform(config) == transform


def test_the_gradient_of_the_weight_is_summed_in_float32(monkeypatch):
    # 2,000 equal tokens, one per chunk: in bfloat16 the sum would stop growing at 256 times the first gradient.
    monkeypatch.setattr(logprobs, "CHUNK_VALUES", {"cpu": VOCAB})
    weight_VH = torch.zeros(VOCAB, H, dtype=torch.bfloat16, requires_grad=True)
    hidden_NH = torch.ones(2000, H, dtype=torch.bfloat16)
    targets_N = torch.zeros(2000, dtype=torch.long)
    logprobs_N, _ = chunked_logprobs(
        hidden_NH, weight_VH, None, targets_N, temperature=1.0, vocab_size=VOCAB, with_entropy=False
    )
    logprobs_N.sum().backward()
    torch.testing.assert_close(weight_VH.grad[0].float(), torch.full((H,), 2000 * (1 - 1 / VOCAB)), rtol=0.01, atol=0)


def test_without_response_tokens_the_gradients_are_zero():
    hidden_NH, weight_VH, _ = inputs(has_bias=False)
    none_N = torch.zeros(0, dtype=torch.long)
    logprobs_N, entropy_N = chunked_logprobs(
        hidden_NH[:0], weight_VH, None, none_N, temperature=1.0, vocab_size=VOCAB, with_entropy=True
    )
    assert logprobs_N.shape == entropy_N.shape == (0,)
    logprobs_N.sum().backward()
    assert not weight_VH.grad.any()


def test_a_frozen_output_layer_passes_the_gradient_on():
    hidden_NH, weight_VH, _ = inputs(has_bias=False)
    weight_VH.requires_grad_(False)
    logprobs_N, _ = chunked_logprobs(
        hidden_NH, weight_VH, None, TARGETS_N, temperature=1.0, vocab_size=VOCAB, with_entropy=False
    )
    logprobs_N.sum().backward()
    assert weight_VH.grad is None
    assert hidden_NH.grad.any()
