"""The exact prompt of a problem under each template of conf/."""

import pytest

from grpo_cli.choices import AnswerMarker
from grpo_cli.config.data import DataConfig
from grpo_cli.config.template import TemplateConfig
from grpo_cli.data.problems import load_problems
from grpo_cli.data.templates import render_prompts
from grpo_cli.errors import ConfigError, DataError
from grpo_cli.types import Problem

PROBLEM = Problem("a", "What is 17 + 26?", "43")

PUBLISHED = {
    "r1": "A conversation between User and Assistant. The User asks a question, and the Assistant solves it. The "
    "Assistant first thinks about the reasoning process in the mind and then provides the User with the answer. "
    "The reasoning process is enclosed within <think> </think> and answer is enclosed within <answer> </answer> "
    "tags, respectively, i.e., <think> reasoning process here </think> <answer> answer here </answer>.\n"
    "User: What is 17 + 26?\nAssistant: <think>",
    "qwen_math": "<|im_start|>system\nPlease reason step by step, and put your final answer within \\boxed{}."
    "<|im_end|>\n<|im_start|>user\nWhat is 17 + 26?<|im_end|>\n<|im_start|>assistant\n",
    "none": "What is 17 + 26?",
    "chat": "[user]What is 17 + 26?\n\nPlease reason step by step, and put your final answer within \\boxed{}."
    "[assistant]",
}


@pytest.fixture
def tokenizer(tokenizer):
    tokenizer.chat_template = (
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    return tokenizer


def render_prompt(problem, template, tokenizer):
    ((prompt,), _) = render_prompts([problem], template, tokenizer, max_prompt_tokens=10_000)
    return prompt


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_template_gives_its_published_text(conf, tokenizer, name):
    assert render_prompt(PROBLEM, conf(f"template/{name}", TemplateConfig), tokenizer).text == PUBLISHED[name]


@pytest.mark.parametrize(
    ("name", "response_prefix", "stop", "answer"),
    [
        ("r1", "<think>", ["</answer>"], AnswerMarker.answer_tag),
        ("qwen_math", "", [], AnswerMarker.boxed),
        ("none", "", [], AnswerMarker.boxed),
        ("chat", "", [], AnswerMarker.boxed),
    ],
)
def test_a_template_sets_its_stop_strings_and_answer_marker(conf, name, response_prefix, stop, answer):
    template = conf(f"template/{name}", TemplateConfig)
    assert (template.response_prefix, template.stop, template.answer) == (response_prefix, stop, answer)
    assert list(template.faults("template.")) == []


@pytest.mark.parametrize("text", ["{problem}", "{0} {} {{x}} {problem!r}", r"\frac{1}{2} %s $a \1"])
def test_a_problem_is_inserted_unchanged_whatever_it_contains(tokenizer, text):
    template = TemplateConfig(text="Q: {problem} A: {}")
    assert render_prompt(Problem("a", text, "1"), template, tokenizer).text == f"Q: {text} A: {{}}"


def test_the_token_ids_are_those_of_the_text_after_the_start_token(tokenizer):
    prompt = render_prompt(PROBLEM, TemplateConfig(), tokenizer)
    assert tokenizer.decode(prompt.token_ids) == "<bos>What is 17 + 26?"
    assert len(prompt.token_ids) == 1 + len("What is 17 + 26?")


def test_no_special_tokens_are_added_to_a_chat(tokenizer):
    tokenizer.chat_template = "<bos>" + tokenizer.chat_template
    prompt = render_prompt(PROBLEM, TemplateConfig(chat=True), tokenizer)
    assert tokenizer.decode(prompt.token_ids) == "<bos>[user]What is 17 + 26?[assistant]"
    assert prompt.token_ids.count(tokenizer.bos_token_id) == 1


def test_a_chat_has_the_response_prefix_at_the_start_of_the_assistants_turn(tokenizer):
    template = TemplateConfig(chat=True, response_prefix="<think>")
    assert list(template.faults("template.")) == []
    assert render_prompt(PROBLEM, template, tokenizer).text == "[user]What is 17 + 26?[assistant]<think>"


@pytest.mark.parametrize(
    ("template", "fault"),
    [
        (TemplateConfig(text="Q:"), "template.text has no {problem}"),
        (TemplateConfig(text="{problem}\nA:", response_prefix="<think>"), "response_prefix='<think>' must be the end"),
    ],
)
def test_an_invalid_template_is_reported(template, fault):
    assert fault in next(template.faults("template."))


def test_the_error_for_a_missing_chat_template_suggests_other_templates(tokenizer):
    tokenizer.chat_template = None
    with pytest.raises(ConfigError, match=r"tokenizer has no chat template. Set template=r1"):
        render_prompts([PROBLEM], TemplateConfig(chat=True), tokenizer, 100)


def test_longer_prompts_are_dropped_and_counted(tokenizer):
    problems = [Problem(str(n), "x" * n, "1") for n in (9, 10, 11, 3)]
    prompts, num_dropped = render_prompts(problems, TemplateConfig(), tokenizer, max_prompt_tokens=11)
    assert [prompt.problem.id for prompt in prompts] == ["9", "10", "3"]  # with <bos>: 10, 11, 12, 4 tokens
    assert num_dropped == 1


def test_the_error_for_too_long_prompts_suggests_a_limit_that_fits(tokenizer):
    problems = [Problem(str(n), "x" * n, "1") for n in (9, 7)]
    with pytest.raises(DataError, match=r"All 2 prompts .*max_prompt_tokens=4: the shortest has 8 tokens"):
        render_prompts(problems, TemplateConfig(), tokenizer, max_prompt_tokens=4)


def test_no_problems_give_no_prompts(tokenizer):
    assert render_prompts([], TemplateConfig(), tokenizer, max_prompt_tokens=4) == ([], 0)


def test_every_real_problem_is_unchanged_by_template_and_tokenizer(shared, conf, tokenizer):
    config = DataConfig(name="math", path=str(shared / "data/train/math_7500.jsonl"))
    problems = load_problems(config, "math", "data")
    template = conf("template/r1", TemplateConfig)
    prompts, num_dropped = render_prompts(problems, template, tokenizer, max_prompt_tokens=1500)
    assert len(prompts) + num_dropped == 7500
    assert 0 < num_dropped < 100
    assert all(tokenizer.decode(prompt.token_ids) == f"<bos>{prompt.text}" for prompt in prompts[::50])
    assert all(prompt.problem.text in prompt.text for prompt in prompts)
