"""Log-probabilities of response tokens, without ever holding the logits of a whole batch.

S tokens of several sequences one after the other, N response tokens, H hidden size, V vocabulary.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

CHUNK_VALUES = 2**25  # logits that exist at one time: 128 MiB in float32, of which a backward pass holds a few copies


class TokenLogprobs(nn.Module):
    """A causal language model that returns log-probabilities and entropies of the response tokens.

    They are those of the distribution that vLLM samples from: logits divided by the temperature, and the ids that
    pad the embedding beyond the tokenizer's vocabulary ruled out. Being a module of its own, it runs inside the
    engine's forward: outside it the shards of ZeRO-3 are empty.
    """

    def __init__(self, model: nn.Module, *, temperature: float, vocab_size: int):
        super().__init__()
        self.model = model
        self.temperature = temperature
        self.vocab_size = vocab_size

    def forward(self, tokens_S: Tensor, lengths: Sequence[int], predicts_S: Tensor) -> tuple[Tensor, Tensor]:
        """(logprobs_N, entropy_N) in float32 of the tokens that follow where `predicts_S` is True.

        Sequences of these lengths stand one after the other, and know nothing of each other.
        """
        positions_S = torch.cat([torch.arange(length, device=tokens_S.device) for length in lengths])
        decoded = self.model.get_decoder()(
            input_ids=tokens_S[None], position_ids=positions_S[None], use_cache=False, sequence_lengths=list(lengths)
        )
        (places_N,) = predicts_S.nonzero(as_tuple=True)
        hidden_NH = decoded.last_hidden_state[0, places_N]
        targets_N = tokens_S[places_N + 1]
        size = max(1, CHUNK_VALUES // self.vocab_size)
        pairs = list(zip(hidden_NH.split(size), targets_N.split(size), strict=True))
        # A single chunk may keep its logits; of several, each works them out again in the backward pass.
        chunks = (
            [self._chunk(*pairs[0])]
            if len(pairs) == 1
            else [checkpoint(self._chunk, hidden, targets, use_reentrant=False) for hidden, targets in pairs]
        )
        logprobs, entropies = zip(*chunks, strict=True)
        return torch.cat(logprobs), torch.cat(entropies)

    def _chunk(self, hidden_NH: Tensor, targets_N: Tensor) -> tuple[Tensor, Tensor]:
        logits_NV = self.model.get_output_embeddings()(hidden_NH).float()[:, : self.vocab_size] / self.temperature
        logprobs_NV = logits_NV.log_softmax(-1)
        with torch.no_grad():
            entropy_N = -(logprobs_NV.exp() * logprobs_NV).sum(-1)
        return logprobs_NV.gather(-1, targets_N[:, None]).squeeze(-1), entropy_N
