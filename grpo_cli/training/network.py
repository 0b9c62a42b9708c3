"""A base model as the trainer runs it, checked against the model's own forward pass.

The trainer takes a model apart: several sequences in one row, and log-probabilities instead of logits. What a family
does in between is easily lost, and training then goes on with wrong gradients. So a short batch is computed both ways.
"""

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from grpo_cli.choices import Device, DType
from grpo_cli.config.cluster import ClusterConfig
from grpo_cli.errors import ConfigError
from grpo_cli.model import BaseModel
from grpo_cli.ranks import gather, rank
from grpo_cli.training.attention import WITHIN_SEQUENCES, keeps_sequences_apart
from grpo_cli.training.engine import DTYPES
from grpo_cli.training.logprobs import TokenLogprobs

REFERENCE_ATTENTION = "eager"  # transformers' plain formula: of all its attentions the one that leaves nothing out
CHECKED_LENGTHS = (24, 17)  # tokens of the sequences that are computed both ways
# Mean difference of log-probabilities: rounding is 1e-6 in float32 and 0.02 in bfloat16.
FORWARD_LIMITS = {DType.fp32: 1e-4, DType.bf16: 0.1}
# Families that vLLM 0.32 samples from, but not with the weights or the log-probabilities of the trainer.
UNTRAINABLE = {
    "deepseek_v2": "vLLM's log-probabilities of it are not those of transformers",
    "gpt_oss": "vLLM loads its experts from files only, so that it would go on sampling with the old ones",
    "phi": "vLLM does not start without the bias of its output layer, which comes with the weights",
}
BF16_ON_CPU = {"qwen3_next"}  # vLLM computes linear attention on a CPU in bfloat16 only


def check_family(model: BaseModel, cluster: ClusterConfig) -> None:
    """Raises ConfigError where models of this family cannot be trained, before anything is loaded."""
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

    It takes the fastest attention that gives the log-probabilities of the model's own forward pass: several sequences
    in a row, or one at a time where the layers of a family would mix them. Raises ConfigError where none does.
    """
    config = _without_dropout(AutoConfig.from_pretrained(model.folder, trust_remote_code=False))
    network = AutoModelForCausalLM.from_pretrained(
        model.folder, config=config, dtype=DTYPES[cluster.dtype], trust_remote_code=False
    )
    ways = [(network.config._attn_implementation, False), (REFERENCE_ATTENTION, False)]
    if cluster.tokens_per_microbatch > 1 and keeps_sequences_apart(config):
        ways.insert(0, (WITHIN_SEQUENCES, True))
    check = _ForwardCheck(network, temperature, model.vocab_size) if rank() == 0 else None
    wrapped = TokenLogprobs(network, temperature=temperature, vocab_size=model.vocab_size)
    for attention, packs in ways:
        network.set_attn_implementation(attention)
        wrapped.packs = packs
        difference = gather(check and check.difference(wrapped))[0]
        if difference <= FORWARD_LIMITS[cluster.dtype]:
            break
    else:
        raise ConfigError(
            f"A {config.model_type} model cannot be trained: the trainer's log-probabilities differ from those of the "
            f"model's own forward pass by {difference:.2g} on average. Between its last layer and its logits this "
            "family does something that r1zero does not know, such as a scale. Use a model of another family: "
            "docs/families.md lists those that were tested."
        )
    if cluster.gradient_checkpointing:
        network.gradient_checkpointing_enable({"use_reentrant": False})
        network.train()  # in evaluation mode nothing would be checkpointed
    return wrapped


class _ForwardCheck:
    """A few tokens, and their log-probabilities by the model's own forward pass, one sequence at a time."""

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
        """How far the trainer's log-probabilities of the same tokens are from these, on average."""
        rows = [self._sequences] if network.packs else [[tokens_S] for tokens_S in self._sequences]
        found = []
        for row in rows:
            lengths = [len(tokens_S) for tokens_S in row]
            predicts_S = torch.cat([torch.arange(1, length + 1) < length for length in lengths])
            found.append(network(torch.cat(row), lengths, predicts_S, with_entropy=False)[0])
        return (torch.cat(found) - self._logprobs_N).abs().mean().item()


def _without_dropout(config: PretrainedConfig) -> PretrainedConfig:
    """The same distribution in training as vLLM samples from: GPT-2's files ask for dropout, for example."""
    for part in {id(part): part for part in (config, config.get_text_config())}.values():
        for name, value in vars(part).items():
            if "drop" in name and isinstance(value, float):
                setattr(part, name, 0.0)
    return config
