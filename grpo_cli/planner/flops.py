"""Floating-point operations of a model's forward and backward passes: model FLOPs, without recomputation."""

from collections.abc import Iterable
from dataclasses import dataclass

from grpo_cli.config.model import ShapeConfig
from grpo_cli.planner.shape import attention_widths, matrix_weights


@dataclass(frozen=True)
class Work:
    """The sums over sequences that FLOPs depend on."""

    tokens: float  # of prompts and responses
    responses: float  # tokens of responses: the output layer runs only on those
    squares: float  # of the lengths of whole sequences, for causal attention

    @classmethod
    def of(cls, lengths: Iterable[tuple[float, float]]) -> "Work":
        """The work for sequences with (prompt, response) tokens."""
        pairs = list(lengths)
        return cls(
            tokens=sum(prompt + response for prompt, response in pairs),
            responses=sum(response for _, response in pairs),
            squares=sum((prompt + response) ** 2 for prompt, response in pairs),
        )

    def __mul__(self, factor: float) -> "Work":
        return Work(factor * self.tokens, factor * self.responses, factor * self.squares)


def forward_flops(shape: ShapeConfig, work: Work) -> float:
    """2 per weight and token; per layer, 4 * A for each of the T^2 / 2 pairs of tokens of causal attention."""
    return layer_flops(shape, work) + output_flops(shape, work)


def layer_flops(shape: ShapeConfig, work: Work) -> float:
    """`forward_flops` of the layers only."""
    return 2 * shape.num_layers * matrix_weights(shape) * work.tokens + _attention_flops(shape, work)


def output_flops(shape: ShapeConfig, work: Work) -> float:
    """`forward_flops` of the output layer only."""
    return 2 * shape.hidden_size * shape.vocab_size * work.responses


def training_flops(shape: ShapeConfig, work: Work, *, has_adapters: bool = False) -> float:
    """FLOPs of a forward and a backward pass. The backward pass computes a gradient for each input and each weight, so
    it takes twice as many (arXiv:2204.02311, appendix B). With adapters, the base weights have no gradient.

    >>> one = ShapeConfig(1, 2, 3, 1, 1, 2, 5, True, 64)  # a layer of 4 * 2 * 2 + 3 * 2 * 3 = 34 weights
    >>> training_flops(one, Work.of([(16, 1)])) == 6 * (34 * 17 + 2 * 5 * 1) + 6 * 17**2 * 2
    True
    """
    attention = _attention_flops(shape, work)
    return 3 * attention + (2 if has_adapters else 3) * (forward_flops(shape, work) - attention)


def _attention_flops(shape: ShapeConfig, work: Work) -> float:
    queries, _ = attention_widths(shape)
    return 2 * shape.num_layers * queries * work.squares
