import time

import pytest

from grpo_cli.choices import AnswerMarker
from grpo_cli.grading.extraction import answer_block, extract_answer, last_box, stated_answer

NO_ANSWER = [
    "",
    "42",
    "<think>x</think> <answer>42",
    "<think>x</think> 42</answer>",
    "<think>x</think> </answer>42<answer>",
    "<think>x</think> <Answer>42</Answer>",
    "<think>x</think> <answer>42</answer> <answer>43</answer>",
    "<think>x</think> <answer><answer>42</answer></answer>",
    "<think>write <answer> then</think> <answer>42</answer>",
    "<think>x <answer>42</answer>",  # the thinking never ends
    "<think>x <answer>42</answer></think>",
    "x <answer>42</answer></think>",  # "<think>" was part of the prompt, which the extraction does not see
    "<answer>42</answer><think>x</think>",
    "<think>a</think> <answer>42</answer> b</think>",
]


@pytest.mark.parametrize("text", NO_ANSWER)
def test_text_without_exactly_one_block_outside_the_thinking_has_no_answer(text):
    assert answer_block(text).answer is None
    assert answer_block(text).reason


@pytest.mark.parametrize(
    "text",
    [
        "<think>x</think> <answer>42</answer>",
        "<think>x</think>\n<answer>\n 42 \n</answer>\n",
        "<answer>42</answer>",
        "Sure: <think>a</think><think>b</think> <answer>42</answer> Bye",
        "<think>a</think> <answer>42</answer> <think>b</think>",
        "<think><think> prefilled twice</think> <answer>42</answer>",
    ],
)
def test_one_block_outside_the_thinking_is_the_answer_whatever_the_format(text):
    assert answer_block(text).answer == "42"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{42}", "42"),
        (r"\boxed{1} no, \boxed{2}", "2"),
        (r"so \boxed{1}, then \boxed{2} and \boxed{3}.", "2, 3"),
        (r"\boxed{2}$, $\boxed{3}", "2, 3"),
        (r"\boxed{2} \text{ or } \boxed{3}", "2 or 3"),
        (r"$x = \boxed{2}$ or $x = \boxed{3}$", "x = 2 or x = 3"),
        (r"$x=\boxed{2}$, $y=\boxed{3}$", "x=2, y=3"),
        (r"$a+x=\boxed{2}$ and $\boxed{3}$", "2, 3"),
        (r"$x=\boxed{2}$", "2"),
        (r"\boxed{2}\text{ cm}", "2"),
        (r"\boxed{\frac{1}{\sqrt{2}}}.", r"\frac{1}{\sqrt{2}}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{a \boxed{b}}", r"a \boxed{b}"),
        (r"\boxed 7", "7"),
        (r"\fbox{7}", None),
        (r"<think>\boxed{1}</think> \boxed{2}", "2"),
        (r"<think>\boxed{1}</think> none", None),
        (r"<think>\boxed{1}", None),
        (r"\boxed{1} \boxed{2", None),
        ("{\\boxed{3}", "3"),
        ("no box", None),
    ],
)
def test_the_last_box_after_the_thinking_is_the_answer(text, answer):
    assert last_box(text).answer == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("x = 5", "x = 5"),
        (r"\frac{4}{23}", r"\frac{4}{23}"),
        ("<think>7</think> <answer>8</answer>", "8"),
        (r"first \boxed{1}, so \boxed{2} and \boxed{3}.", "2, 3"),
        (r"\boxed{1} but then again \boxed{2}", "2"),
        ("work\n#### 1,234\n", "1,234"),
        ("The answer is 12. I hope it is correct.", "12"),
        ("Final Answer: The largest $n$ is 34.", "34"),
        ("Answer: 41 was a guess.\nAnswer: 42", "42"),
        ("Answer $$ \n 9 \n $$", "$$ \n 9 \n $$"),
        ("The answer is (C), not (D)", "C"),
        ("We see that $x \\neq 3$.", "$x \\neq 3$"),
        ("It is $x=3$ or $x=4$.", "$x=3$, $x=4$"),
        ("It costs $5 more, so 1,000.50 in all", "1,000.50"),
        ("three of 26 bags hold 858颗", "858"),
        ("about $28$ percent of them", "$28$%"),
        ("nothing here", None),
        ("<think>5", None),
    ],
)
def test_the_answer_in_free_text_is_found(text, answer):
    assert stated_answer(text).answer == answer


@pytest.mark.parametrize(
    "unit", ["<", "$", "\\[", "\\boxed{", "{", "\\", "1,", "answer is ", "<think>", "#### ", "a b "]
)
@pytest.mark.parametrize("marker", AnswerMarker)
def test_a_megabyte_of_any_text_is_read_in_linear_time(unit, marker):
    text = "<think>x</think> <answer>" + unit * (1_000_000 // len(unit)) + "</answer>"
    started = time.process_time()
    extract_answer(text, marker)
    assert time.process_time() - started < 3  # quadratic time would take hours
