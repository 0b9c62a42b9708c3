from copy import deepcopy

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GptOssConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen3NextConfig,
)

from grpo_cli.training.attention import PACKED_ATTENTION, keeps_sequences_apart
from grpo_cli.training.logprobs import TokenLogprobs

SHAPE = {
    "vocab_size": 30,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "initializer_range": 0.5,  # large, so that attention changes the result
}


@pytest.mark.parametrize(
    "config",
    [
        Qwen2Config(**SHAPE),
        LlamaConfig(**SHAPE),
        MistralConfig(**SHAPE, sliding_window=3),
        Gemma3TextConfig(**SHAPE, head_dim=4, sliding_window=3, layer_types=["sliding_attention", "full_attention"]),
        Gemma2Config(**SHAPE, head_dim=4, sliding_window=3, attn_logit_softcapping=0.5, final_logit_softcapping=0.5),
        GptOssConfig(**SHAPE, head_dim=4, sliding_window=3, num_local_experts=4, num_experts_per_tok=2),
    ],
    ids=lambda config: config.model_type,
)
def test_packed_sequences_give_the_same_results_as_single_ones(config):
    torch.manual_seed(0)
    plain = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    packed = AutoModelForCausalLM.from_config(deepcopy(config), attn_implementation=PACKED_ATTENTION).eval()
    packed.load_state_dict(plain.state_dict())
    network = TokenLogprobs(packed, temperature=0.7, vocab_size=29)
    network.packs = True
    lengths = (7, 1, 4)
    tokens_S = torch.randint(1, 29, (sum(lengths),))
    predicts_S = torch.tensor([False, True, True, True, True, True, False, False, False, True, True, False])
    logprobs_N, entropy_N = network(tokens_S, lengths, predicts_S)

    expected = []
    for tokens, predicts in zip(tokens_S.split(lengths), predicts_S.split(lengths), strict=True):
        logits = plain(tokens[None]).logits[0, :, :29] / 0.7
        expected += logits.log_softmax(-1)[:-1][predicts[:-1]].unbind()
    targets_N = tokens_S[1:][predicts_S[:-1]]
    expected_NV = torch.stack(expected)
    torch.testing.assert_close(logprobs_N, expected_NV.gather(-1, targets_N[:, None]).squeeze(-1))
    torch.testing.assert_close(entropy_N, -(expected_NV.exp() * expected_NV).sum(-1))


@pytest.mark.parametrize(
    ("config", "keeps_apart"),
    [
        (Qwen2Config(), True),
        (MistralConfig(), True),
        (MambaConfig(), False),
        (Qwen3NextConfig(num_hidden_layers=4), False),
    ],
)
def test_layers_without_attention_would_mix_sequences(config: PretrainedConfig, keeps_apart: bool):
    assert keeps_sequences_apart(config) == keeps_apart
