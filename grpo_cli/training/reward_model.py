"""A reward model: a base model with one output, which learns to score the better of two responses higher.

B pairs, 2B sequences: the chosen responses, then the rejected ones; S positions.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn.functional import logsigmoid
from transformers import AutoModelForSequenceClassification

from grpo_cli.config.supervised import RewardModelTask
from grpo_cli.data.preferences import Preference, load_preferences
from grpo_cli.metrics.metrics import Tally
from grpo_cli.model import BaseModel, load_base_model
from grpo_cli.progress import stage
from grpo_cli.ranks import gather, rank, world_size
from grpo_cli.reward.model import padded, reward_token_ids, use_padding
from grpo_cli.screen import Screen
from grpo_cli.training.balance import pad_to_all_ranks
from grpo_cli.training.engine import DTYPES, Engine, init_distributed
from grpo_cli.training.loop import of_all_ranks
from grpo_cli.training.network import checkpoint_activations
from grpo_cli.training.supervised import fit, num_steps, short_enough


@dataclass(frozen=True, slots=True)
class Pair:
    """A preference as token ids."""

    chosen: tuple[int, ...]
    rejected: tuple[int, ...]

    @property
    def width(self) -> int:
        return max(len(self.chosen), len(self.rejected))


def train_reward_model(config: RewardModelTask, terminal: TextIO) -> None:
    """Run `config` on this rank. Rank 0 writes metrics and results; every rank its part of checkpoints."""
    init_distributed(config.cluster)
    console = Screen(file=terminal, quiet=rank() != 0)
    with stage(console, f"loading {config.model.name} and the pairs"):
        model = load_base_model(config.model)
        preferences = load_preferences(config.data, config.seed)
        train, heldout = (
            _pairs(split, model, config.data.max_tokens, console) for split in (preferences.train, preferences.heldout)
        )
    steps = num_steps(config.epochs, len(train), config.batch_size)
    with stage(console, "building DeepSpeed"):
        learner = RewardLearner(model, config, steps)

    def evaluate() -> Mapping[str, float]:
        return of_all_ranks(learner.measure(heldout[rank() :: world_size()], "eval/heldout")).compute()

    fit(config, "reward-model", learner, train, steps, update=learner.update, evaluate=evaluate, console=console)


class RewardLearner:
    """The reward model in training, and its optimizer."""

    def __init__(self, model: BaseModel, config: RewardModelTask, steps: int) -> None:
        self._tokens_per_microbatch = config.cluster.tokens_per_microbatch
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)  # for the new head, which the base model does not have
            network = AutoModelForSequenceClassification.from_pretrained(
                model.folder, num_labels=1, dtype=DTYPES[config.cluster.dtype], trust_remote_code=False
            )
        use_padding(network, model.tokenizer)
        self._pad_id = model.tokenizer.pad_token_id
        if config.cluster.gradient_checkpointing:
            checkpoint_activations(network)
        self._engine = Engine(_Scorer(network), config.optimizer, config.cluster, total_steps=steps, name="policy")

    def update(self, pairs: Sequence[Pair]) -> Tally:
        """Take one optimizer step on this rank's share of a batch; called on all ranks.

        The loss is the mean over the pairs of all ranks, however they are split into micro-batches.
        """
        tally = Tally()
        tally.mean("policy/lr", self._engine.lr, 1)
        num_pairs = sum(gather(len(pairs)))
        for chosen_B, rejected_B in self._scores(pairs):
            loss = preference_loss(chosen_B, rejected_B).sum() / num_pairs
            self._engine.backward(loss)
            tally.mean("policy/loss", loss.item(), 0)  # the parts are summed; the engine counts the step
            _tally_pairs(tally, "pairs", chosen_B.detach(), rejected_B.detach())
        self._engine.step(tally)
        tally.sum("perf/trained_tokens", sum(len(pair.chosen) + len(pair.rejected) for pair in pairs))
        return tally

    @torch.no_grad()
    def measure(self, pairs: Sequence[Pair], name: str) -> Tally:
        """`<name>/pair_accuracy`, `loss` and `margin` of this rank's pairs; called on all ranks."""
        tally = Tally()
        for chosen_B, rejected_B in self._scores(pairs):
            tally.mean(f"{name}/loss", preference_loss(chosen_B, rejected_B).sum().item(), len(chosen_B))
            _tally_pairs(tally, name, chosen_B, rejected_B)
        return tally

    def save(self, folder: Path) -> None:
        """Write the training state, each rank its part."""
        self._engine.save(folder)

    def load(self, folder: Path) -> bool:
        """Load what `save` wrote. Returns whether it had to be resharded."""
        return self._engine.load(folder)

    def _scores(self, pairs: Sequence[Pair]) -> Iterator[tuple[Tensor, Tensor]]:
        """The scores of the chosen and of the rejected responses, one micro-batch at a time."""
        for members in pad_to_all_ranks(list(by_width(pairs, self._tokens_per_microbatch)), filler=[]):
            sequences = [pair.chosen for pair in members] + [pair.rejected for pair in members]
            scores_2B = self._engine(*padded(sequences or [[self._pad_id]], self._pad_id, self._engine.device))
            yield scores_2B[: len(members)], scores_2B[len(members) : 2 * len(members)]


class _Scorer(nn.Module):
    """Returns the score of each sequence as fp32."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens_BS: Tensor, mask_BS: Tensor) -> Tensor:
        return self.model(input_ids=tokens_BS, attention_mask=mask_BS, use_cache=False).logits[:, 0].float()


def by_width(pairs: Sequence[Pair], token_budget: int) -> Iterator[list[Pair]]:
    """Batches of pairs of similar width: 2 * number of pairs * widest pair is at most `token_budget`.

    A single pair that is wider gets its own batch.
    """
    members: list[Pair] = []
    for pair in sorted(pairs, key=lambda pair: pair.width):
        if members and 2 * pair.width * (len(members) + 1) > token_budget:
            yield members
            members = []
        members.append(pair)
    if members:
        yield members


def preference_loss(chosen_B: Tensor, rejected_B: Tensor) -> Tensor:
    """-log sigmoid(r_chosen - r_rejected) of each pair.

    The negative log-likelihood of the choice in the Bradley-Terry model (InstructGPT, arXiv:2203.02155, eq. 1).

    >>> preference_loss(Tensor([0.0, 2.0]), Tensor([0.0, 0.0]))  # log 2 if the scores are equal
    tensor([0.6931, 0.1269])
    """
    return -logsigmoid(chosen_B - rejected_B)


def _tally_pairs(tally: Tally, name: str, chosen_B: Tensor, rejected_B: Tensor) -> None:
    tally.mean(f"{name}/pair_accuracy", (chosen_B > rejected_B).sum().item(), len(chosen_B))
    tally.mean(f"{name}/margin", (chosen_B - rejected_B).sum().item(), len(chosen_B))


def _pairs(preferences: Sequence[Preference], model: BaseModel, max_tokens: int, console: Console) -> list[Pair]:
    """The pairs whose sides are both short enough, as token ids. Reports how many others there are."""
    chosen, rejected = (
        reward_token_ids(model.tokenizer, [(p.problem, response(p)) for p in preferences])
        for response in (lambda p: p.chosen, lambda p: p.rejected)
    )
    pairs = [Pair(tuple(better), tuple(worse)) for better, worse in zip(chosen, rejected, strict=True)]
    return short_enough(pairs, lambda pair: pair.width, "pairs", max_tokens, model.max_model_len, console)
