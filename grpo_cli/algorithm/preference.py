"""Learning from preferences: which of two responses is the better."""

from torch import Tensor
from torch.nn.functional import logsigmoid


def preference_loss(chosen_B: Tensor, rejected_B: Tensor) -> Tensor:
    """-log sigmoid(r_chosen - r_rejected) of each pair: minus the log-likelihood of the choice under Bradley and
    Terry's model (InstructGPT, arXiv:2203.02155, eq. 1).

    >>> preference_loss(Tensor([0.0, 2.0]), Tensor([0.0, 0.0]))  # log 2 where the scores agree
    tensor([0.6931, 0.1269])
    """
    return -logsigmoid(chosen_B - rejected_B)
