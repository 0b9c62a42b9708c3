"""Floating-point operations of a model's forward and backward passes: model FLOPs, without what is computed again."""

from collections.abc import Iterable
from dataclasses import dataclass

from grpo_cli.config.model import ShapeConfig
from grpo_cli.planner.shape import attention_widths, matrix_weights


@dataclass(frozen=True)
class Work:
    """Sequences as the sums that FLOPs depend on."""

    tokens: float  # of prompts and responses
    responses: float  # tokens of responses: the output layer sees those alone
    squares: float  # of the lengths of whole sequences: causal attention

    @classmethod
    def of(cls, lengths: Iterable[tuple[float, float]]) -> "Work":
        """Of sequences with (prompt, response) tokens."""
        pairs = list(lengths)
        return cls(
            tokens=sum(prompt + response for prompt, response in pairs),
            responses=sum(response for _, response in pairs),
            squares=sum((prompt + response) ** 2 for prompt, response in pairs),
        )

    def __mul__(self, factor: float) -> "Work":
        return Work(factor * self.tokens, factor * self.responses, factor * self.squares)


def forward_flops(shape: ShapeConfig, work: Work) -> float:
    """2 a weight and token; 4 * A a layer for each pair of tokens of causal attention, of which there are T^2 / 2."""
    return layer_flops(shape, work) + output_flops(shape, work)


def layer_flops(shape: ShapeConfig, work: Work) -> float:
    """`forward_flops` of the layers alone."""
    return 2 * shape.num_layers * matrix_weights(shape) * work.tokens + _attention_flops(shape, work)


def output_flops(shape: ShapeConfig, work: Work) -> float:
    """`forward_flops` of the output layer alone."""
    return 2 * shape.hidden_size * shape.vocab_size * work.responses


def training_flops(shape: ShapeConfig, work: Work, *, has_adapters: bool = False) -> float:
    """Of a forward and a backward pass: the latter computes a gradient for each input and each weight, so twice the
    former (arXiv:2204.02311, appendix B). With adapters the model's own weights have none.

    >>> one = ShapeConfig(1, 2, 3, 1, 1, 2, 5, True, 64)  # a layer of 4 * 2 * 2 + 3 * 2 * 3 = 34 weights
    >>> training_flops(one, Work.of([(16, 1)])) == 6 * (34 * 17 + 2 * 5 * 1) + 6 * 17**2 * 2
    True
    """
    attention = _attention_flops(shape, work)
    return 3 * attention + (2 if has_adapters else 3) * (forward_flops(shape, work) - attention)


def _attention_flops(shape: ShapeConfig, work: Work) -> float:
    queries, _ = attention_widths(shape)
    return 2 * shape.num_layers * queries * work.squares
