"""The loss, the micro-batches and the input of a reward model."""

import math

import pytest
import torch

from grpo_cli.config.model import ModelConfig
from grpo_cli.model import load_base_model
from grpo_cli.reward.model import padded, reward_text, reward_token_ids
from grpo_cli.training.reward_model import Pair, by_width, preference_loss


def test_the_loss_is_the_negative_log_likelihood_of_the_choice():
    # sigmoid(0) = 1/2; sigmoid(log 3) = 3/4; sigmoid(-log 3) = 1/4
    chosen, rejected = torch.tensor([5.0, math.log(3), 0.0]), torch.tensor([5.0, 0.0, math.log(3)])
    assert preference_loss(chosen, rejected).tolist() == pytest.approx([math.log(2), math.log(4 / 3), math.log(4)])


def test_the_gradient_is_the_probability_of_the_wrong_choice():
    # d loss / d r_chosen = -(1 - sigmoid(r_chosen - r_rejected))
    chosen, rejected = torch.tensor([math.log(3)], requires_grad=True), torch.zeros(1, requires_grad=True)
    preference_loss(chosen, rejected).sum().backward()
    assert (chosen.grad.item(), rejected.grad.item()) == pytest.approx((-0.25, 0.25))


def test_the_loss_of_distant_scores_is_finite():
    assert preference_loss(torch.tensor([-1e4]), torch.tensor([1e4])).item() == 2e4


def test_microbatches_do_not_split_pairs_and_stay_within_the_budget():
    pairs = [Pair((1,) * a, (2,) * b) for a, b in ((3, 9), (2, 2), (5, 1), (4, 4), (1, 20))]
    batches = list(by_width(pairs, 20))
    # widths 2, 4, 5, 9, 20: two pairs of width 4 have 16 tokens, three of width 5 would have 30
    assert [[pair.width for pair in batch] for batch in batches] == [[2, 4], [5], [9], [20]]
    assert sorted(pair.width for batch in batches for pair in batch) == [2, 4, 5, 9, 20]


def test_padding_is_on_the_right_and_masked():
    tokens_BS, mask_BS = padded([[7, 8, 9], [5]], 0, torch.device("cpu"))
    assert tokens_BS.tolist() == [[7, 8, 9], [5, 0, 0]]
    assert mask_BS.tolist() == [[1, 1, 1], [1, 0, 0]]


@pytest.fixture(scope="module")
def tokenizer():
    return load_base_model(ModelConfig(name="tiny", path="builtin:make_zero")).tokenizer


def test_a_reward_model_reads_the_problem_and_the_response(tokenizer):
    assert reward_text(tokenizer, "13 5 6 2", "<think> 13") == "13 5 6 2\n<think> 13"
    [ids, cut] = (reward_token_ids(tokenizer, [("13 5", "yes no")], n)[0] for n in (None, 3))
    assert tokenizer.convert_ids_to_tokens(ids) == ["13", "5", "yes", "no"]
    assert cut == ids[:3]


def test_with_a_chat_template_it_reads_both_turns(tokenizer, monkeypatch):
    template = "{% for m in messages %}{{ m.role[0] + ' ' + m.content + ' ' }}{% endfor %}"
    monkeypatch.setattr(tokenizer, "chat_template", template)
    assert reward_text(tokenizer, "13 5", "yes") == "u 13 5 a yes "
