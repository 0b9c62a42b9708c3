import pytest

from grpo_cli.reward.terms.format import format_reward, tag_count_reward


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("<think>a</think> <answer>1</answer>", 1),
        (" \n<think></think>\r\n\t<answer></answer> ", 1),
        ("<think>x<y and <b>bold</b></think><answer>1</answer>", 1),
        ("", 0),
        ("<answer>1</answer><think>a</think>", 0),
        ("<think>a<answer></think>1</answer>", 0),
        ("<think>a</think> so <answer>1</answer>", 0),
        ("Sure! <think>a</think> <answer>1</answer>", 0),
        ("<think>a</think> <answer>1</answer>!", 0),
        ("<think>a</think><think>b</think> <answer>1</answer>", 0),
        ("<think>a</think> <answer>1</answer> <answer>2</answer>", 0),
        ("<THINK>a</THINK> <ANSWER>1</ANSWER>", 0),
        ("<think>a</think>\u00a0<answer>1</answer>", 0),  # only ASCII white space is allowed
        ("<think>a</think> <answer>1", 0),
    ],
)
def test_the_format_is_each_tag_once_in_order_and_nothing_around_the_blocks(text, reward):
    assert format_reward(text) == reward


def test_each_tag_that_occurs_exactly_once_counts_a_quarter():
    assert tag_count_reward("<think>a</think> <answer>1 <answer>") == 0.5
    assert tag_count_reward("<think>a</think> <answer>1</answer>") == 1.0
