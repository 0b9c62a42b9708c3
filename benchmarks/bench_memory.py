"""Memory of the loss with a large vocabulary: `python benchmarks/bench_memory.py`.

One sequence of 4,096 tokens with Qwen2.5's vocabulary of 151,936, forward and backward, on the CPU in float32. The
result is the peak memory in addition to the weights and their gradients.
"""

import gc
from pathlib import Path

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from grpo_cli.training.logprobs import TokenLogprobs

TOKENS, VOCAB, HIDDEN = 4096, 151_936, 896
GB = 1e9


def peak_bytes() -> int:
    """The largest resident size of this process since `reset_peak`."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def reset_peak() -> None:
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")


def step_peak(network: torch.nn.Module, loss) -> float:
    """Gigabytes that `loss` and its backward pass need in addition to weights and gradients."""
    network.zero_grad(set_to_none=True)
    reset_peak()
    before = peak_bytes()
    loss().backward()
    gradients = sum(parameter.grad.nbytes for parameter in network.parameters())
    return (peak_bytes() - before - gradients) / GB


def main() -> None:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCAB,
        hidden_size=HIDDEN,
        intermediate_size=HIDDEN,
        num_hidden_layers=1,
        num_attention_heads=14,
        num_key_value_heads=2,
        max_position_embeddings=TOKENS,
        tie_word_embeddings=False,
    )
    model = Qwen2ForCausalLM(config)
    network = TokenLogprobs(model, temperature=1.0, vocab_size=VOCAB)
    tokens_S = torch.randint(VOCAB, (TOKENS,))
    predicts_S = torch.arange(TOKENS) < TOKENS - 1

    def loss_at_once() -> torch.Tensor:
        logits = model(input_ids=tokens_S[None], use_cache=False).logits[0, :-1].float()
        return -logits.log_softmax(-1).gather(-1, tokens_S[1:, None]).sum()

    print(f"one sequence of {TOKENS} tokens, vocabulary {VOCAB}, hidden {HIDDEN}, float32, CPU")
    print(f"in chunks:         {step_peak(network, lambda: -network(tokens_S, (TOKENS,), predicts_S)[0].sum()):.2f} GB")
    print(f"all logits at once: {step_peak(network, loss_at_once):.2f} GB")


if __name__ == "__main__":
    main()
