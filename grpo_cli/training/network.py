"""Loads a base model for the trainer, and checks it against the model's own forward pass.

The trainer changes how a model is called: several sequences in one row, and log-probabilities instead of logits. It
could skip something that a model family does in between, and would then train with wrong gradients. So both ways
compute a short batch, and the results are compared.
"""

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from grpo_cli.choices import Device, DType
from grpo_cli.config.cluster import ClusterConfig
from grpo_cli.errors import ConfigError
from grpo_cli.model import BaseModel
from grpo_cli.ranks import gather, rank
from grpo_cli.training.attention import PACKED_ATTENTION, keeps_sequences_apart
from grpo_cli.training.engine import DTYPES
from grpo_cli.training.logprobs import TokenLogprobs

REFERENCE_ATTENTION = "eager"  # transformers' plain formula: the only implementation with all features
CHECKED_LENGTHS = (24, 17)  # tokens of the sequences in the comparison
# Mean difference of log-probabilities: rounding is 1e-6 in float32 and 0.02 in bfloat16.
FORWARD_LIMITS = {DType.fp32: 1e-4, DType.bf16: 0.1}
# Families that vLLM 0.32 can run, but not with the trainer's weights or log-probabilities.
UNTRAINABLE = {
    "deepseek_v2": "vLLM and transformers give different log-probabilities for it",
    "gpt_oss": "vLLM loads its experts only from files, so it would keep sampling with the old ones",
    "phi": "vLLM does not start without the bias of its output layer, which is sent with the weights",
}
BF16_ON_CPU = {"qwen3_next"}  # vLLM computes linear attention on a CPU in bfloat16 only


def check_family(model: BaseModel, cluster: ClusterConfig) -> None:
    """Raise ConfigError if models of this family cannot be trained, before anything is loaded."""
    family = AutoConfig.from_pretrained(model.folder, trust_remote_code=False).get_text_config().model_type
    if family in UNTRAINABLE:
        raise ConfigError(
            f"{model.folder} is a {family} model: {UNTRAINABLE[family]}. Use a model of another family: "
            "docs/families.md lists those that were tested."
        )
    if family in BF16_ON_CPU and cluster.device == Device.cpu and cluster.dtype != DType.bf16:
        raise ConfigError(
            f"{model.folder} is a {family} model, which vLLM runs on a CPU in bfloat16 only. Set cluster.dtype=bf16."
        )


def load_network(model: BaseModel, cluster: ClusterConfig, temperature: float) -> TokenLogprobs:
    """The weights of `model`, on the CPU; called on all ranks.

    Uses the fastest attention that gives the same log-probabilities as the model's own forward pass: for several
    sequences in a row, or for one at a time if the model's layers would mix them. Raises ConfigError if none does.
    """
    config = _without_dropout(AutoConfig.from_pretrained(model.folder, trust_remote_code=False))
    network = AutoModelForCausalLM.from_pretrained(
        model.folder, config=config, dtype=DTYPES[cluster.dtype], trust_remote_code=False
    )
    candidates = [(network.config._attn_implementation, False), (REFERENCE_ATTENTION, False)]
    if cluster.tokens_per_microbatch > 1 and keeps_sequences_apart(config):
        candidates.insert(0, (PACKED_ATTENTION, True))
    check = _ForwardCheck(network, temperature, model.vocab_size) if rank() == 0 else None
    wrapped = TokenLogprobs(network, temperature=temperature, vocab_size=model.vocab_size)
    for attention, packs in candidates:
        network.set_attn_implementation(attention)
        wrapped.packs = packs
        difference = gather(check and check.difference(wrapped))[0]
        if difference <= FORWARD_LIMITS[cluster.dtype]:
            break
    else:
        raise ConfigError(
            f"A {config.model_type} model cannot be trained: the trainer's log-probabilities differ from those of the "
            f"model's own forward pass by {difference:.2g} on average. Between its last layer and its logits, this "
            "family does something that r1zero does not support, such as scaling. Use a model of another family: "
            "docs/families.md lists those that were tested."
        )
    if cluster.gradient_checkpointing:
        checkpoint_activations(network)
    return wrapped


def checkpoint_activations(network: PreTrainedModel) -> None:
    """Compute activations again in the backward pass instead of keeping them in memory."""
    network.gradient_checkpointing_enable({"use_reentrant": False})
    network.train()  # transformers ignores checkpointing in evaluation mode


class _ForwardCheck:
    """A few tokens and their log-probabilities from the model's own forward pass, one sequence at a time."""

    @torch.no_grad()
    def __init__(self, network: PreTrainedModel, temperature: float, vocab_size: int):
        generator = torch.Generator().manual_seed(0)
        self._sequences = [torch.randint(vocab_size, (length,), generator=generator) for length in CHECKED_LENGTHS]
        network.set_attn_implementation(REFERENCE_ATTENTION)
        logprobs = []
        for tokens_S in self._sequences:
            logits_SV = network(input_ids=tokens_S[None], use_cache=False).logits[0, :-1, :vocab_size].float()
            logprobs.append((logits_SV / temperature).log_softmax(-1).gather(-1, tokens_S[1:, None])[:, 0])
        self._logprobs_N = torch.cat(logprobs)

    @torch.no_grad()
    def difference(self, network: TokenLogprobs) -> float:
        """The mean difference between the trainer's log-probabilities of the same tokens and these."""
        rows = [self._sequences] if network.packs else [[tokens_S] for tokens_S in self._sequences]
        logprobs = []
        for row in rows:
            lengths = [len(tokens_S) for tokens_S in row]
            predicts_S = torch.cat([torch.arange(1, length + 1) < length for length in lengths])
            logprobs.append(network(torch.cat(row), lengths, predicts_S, with_entropy=False)[0])
        return (torch.cat(logprobs) - self._logprobs_N).abs().mean().item()


def _without_dropout(config: PretrainedConfig) -> PretrainedConfig:
    """Set dropout to 0, so that training uses the distribution that vLLM samples from. GPT-2 has dropout."""
    for part in {id(part): part for part in (config, config.get_text_config())}.values():
        for name, value in vars(part).items():
            if "drop" in name and isinstance(value, float):
                setattr(part, name, 0.0)
    return config
