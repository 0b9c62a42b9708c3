"""The objective for preferences between two responses."""

from torch import Tensor
from torch.nn.functional import logsigmoid


def preference_loss(chosen_B: Tensor, rejected_B: Tensor) -> Tensor:
    """-log sigmoid(r_chosen - r_rejected) of each pair.

    The negative log-likelihood of the choice in the Bradley-Terry model (InstructGPT, arXiv:2203.02155, eq. 1).

    >>> preference_loss(Tensor([0.0, 2.0]), Tensor([0.0, 0.0]))  # log 2 if the scores are equal
    tensor([0.6931, 0.1269])
    """
    return -logsigmoid(chosen_B - rejected_B)
