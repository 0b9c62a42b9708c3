"""The exact prompt of a problem under each template of conf/."""

import pytest

from grpo_cli.choices import AnswerMarker
from grpo_cli.config.compose import to_typed
from grpo_cli.config.data import DataConfig
from grpo_cli.config.overrides import expand_shorthands
from grpo_cli.config.template import TemplateConfig
from grpo_cli.data.file_tokenizer import FileTokenizer
from grpo_cli.data.problems import load_problems
from grpo_cli.data.templates import render, render_prompts
from grpo_cli.errors import ConfigError, DataError
from grpo_cli.evaluation.cards import prompt_section
from grpo_cli.runs.frozen import frozen_text, read_frozen
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


# ------------------------------------------------------------ system prompts and examples

SOLVED = [{"question": "What is 1 + 1?", "answer": "2"}, {"question": "What is 2 + 2?", "answer": 4}]


def test_a_chat_starts_with_the_system_prompt_and_the_examples_as_turns(tokenizer):
    template = TemplateConfig(text="{problem} Think.", chat=True, system="Be brief.", examples=SOLVED)
    assert render_prompt(PROBLEM, template, tokenizer).text == (
        "[system]Be brief.[user]What is 1 + 1? Think.[assistant]2[user]What is 2 + 2? Think.[assistant]4"
        "[user]What is 17 + 26? Think.[assistant]"
    )


def test_a_text_template_is_repeated_for_each_example_after_the_system_prompt(tokenizer):
    template = TemplateConfig(text="Q: {problem}\nA:", system="Be brief.", examples=SOLVED)
    assert render_prompt(PROBLEM, template, tokenizer).text == (
        "Be brief.\n\nQ: What is 1 + 1?\nA: 2\n\nQ: What is 2 + 2?\nA: 4\n\nQ: What is 17 + 26?\nA:"
    )
    template = TemplateConfig(text="Q: {problem}\nA:\n", between="<end>", examples=SOLVED[:1])
    assert render_prompt(PROBLEM, template, tokenizer).text == "Q: What is 1 + 1?\nA:\n2<end>Q: What is 17 + 26?\nA:\n"


@pytest.mark.parametrize("answer", ["1 + 1 = 2 </think> 2", "<think>1 + 1 = 2 </think> 2"])
def test_an_example_starts_with_the_response_prefix_exactly_once(tokenizer, answer):
    solved = [{"question": "1 + 1?", "answer": answer}]
    text = TemplateConfig(text="{problem} <think>", response_prefix="<think>", examples=solved, between="\n")
    assert (
        render_prompt(PROBLEM, text, tokenizer).text == "1 + 1? <think>1 + 1 = 2 </think> 2\nWhat is 17 + 26? <think>"
    )
    chat = TemplateConfig(chat=True, response_prefix="<think>", examples=solved)
    assert render_prompt(PROBLEM, chat, tokenizer).text == (
        "[user]1 + 1?[assistant]<think>1 + 1 = 2 </think> 2[user]What is 17 + 26?[assistant]<think>"
    )


def test_examples_count_in_the_length_of_a_prompt(tokenizer):
    template = TemplateConfig(system="Be brief.", examples=SOLVED)
    prompt = render_prompt(PROBLEM, template, tokenizer)
    assert len(prompt.token_ids) == 1 + len(prompt.text) > 60  # one token per byte
    with pytest.raises(DataError, match=f"the shortest has {len(prompt.token_ids)} tokens"):
        render_prompts([PROBLEM], template, tokenizer, max_prompt_tokens=60)


def test_files_are_read_when_settings_are_and_stay_in_them(tmp_path):
    (tmp_path / "system.txt").write_text("Be brief.\nBe right.\n")
    (tmp_path / "solved.jsonl").write_text('{"question": "1+1?", "answer": 2}\n{"question": "2+2?", "answer": "4"}\n')
    template = TemplateConfig(system=str(tmp_path / "system.txt"), examples=str(tmp_path / "solved.jsonl"))
    assert template.system == "Be brief.\nBe right."
    assert template.examples == [{"question": "1+1?", "answer": "2"}, {"question": "2+2?", "answer": "4"}]
    assert list(template.faults("template.")) == []


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"system": "no_such.txt"}, "template.system: no_such.txt cannot be read: No such file or directory."),
        ({"examples": "no_such.jsonl"}, "template.examples: no_such.jsonl cannot be read: No such file or directory."),
        ({"examples": "{file}"}, "line 1: {'question': '?'} is not an example. An example is {question: ..., answer:"),
        ({"examples": [{"question": "?", "answer": " "}]}, "has an empty question or answer. An example is"),
        ({"examples": [{"q": "?", "a": "1"}]}, "template.examples: {'q': '?', 'a': '1'} is not an example. An example"),
        ({"examples": {"question": "?", "answer": "1"}}, "template.examples: must be a list or a JSONL file, not {"),
        (
            {"system": "Be brief.", "text": "<|im_start|>system\nHi<|im_end|>{problem}"},
            "template.system: template.text already has a system prompt. Change it there, or choose template=chat.",
        ),
    ],
)
def test_an_unusable_system_prompt_or_example_is_a_fault_of_the_settings(tmp_path, changes, fault):
    (tmp_path / "solved.jsonl").write_text('{"question": "?"}\n')
    if changes.get("examples") == "{file}":
        changes = {"examples": str(tmp_path / "solved.jsonl")}
    (found,) = TemplateConfig(**changes).faults("template.")
    assert fault in found


def test_system_prompt_and_examples_are_given_on_the_command_line(compose_as, tmp_path):
    (tmp_path / "solved.jsonl").write_text('{"question": "1+1?", "answer": "2"}\n')
    given = ["template=chat", r'template.system="Be brief.\nBe right."', f"template.examples={tmp_path}/solved.jsonl"]
    config = compose_as("eval", *expand_shorthands("eval", given), "benchmark=make_zero")
    assert config.template.system == "Be brief.\nBe right."
    assert config.template.examples == [{"question": "1+1?", "answer": "2"}]
    assert to_typed(read_back(frozen_text(config), tmp_path), "eval").template == config.template
    config = compose_as("eval", "template.examples=[{question:1+1?,answer:2}]", "benchmark=make_zero")
    assert config.template.examples == [{"question": "1+1?", "answer": "2"}]


def read_back(text, folder):
    (folder / "config.yaml").write_text(text)
    return read_frozen(folder / "config.yaml", is_ours=True)


def test_the_card_of_a_data_set_shows_the_whole_prompt():
    section = prompt_section(TemplateConfig(text="Q: {problem}", system="Use ``` for code.", examples=SOLVED))
    assert "````\nUse ``` for code.\n````" in section
    assert "2 solved examples come before it." in section


def test_a_chat_template_that_rejects_a_system_prompt_names_the_setting(tokenizer):
    tokenizer.chat_template = (
        "{{ raise_exception('System role not supported') if messages[0].role == 'system' else 'x' }}"
    )
    with pytest.raises(ConfigError, match=r"roles system, user: System role not supported\. Set template\.system=null"):
        render_prompts([PROBLEM], TemplateConfig(chat=True, system="Be brief."), tokenizer, 100)


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


CHAT = (
    "{%- for m in messages %}\n  {%- if m.role == 'bad' %}{{ raise_exception('no') }}{% endif %}"
    "{{ bos_token if loop.first }}[{{ m.role }}]{% generation %}{{ m.content }}{% endgeneration %}{%- endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}{{ {'a': 'ö'} | tojson }}"
)


@pytest.mark.parametrize("place", ["tokenizer_config.json", "chat_template.jinja"])
def test_a_tokenizer_read_from_its_files_gives_the_prompts_of_transformers(tokenizer, tmp_path, place):
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(tmp_path, save_jinja_files=place == "chat_template.jinja")
    assert (tmp_path / "chat_template.jinja").is_file() == (place == "chat_template.jinja")
    from_files = FileTokenizer(tmp_path / "tokenizer.json")
    problems = [PROBLEM, Problem("b", "naïve 数学  <eos>\n", "1")]
    for template in (TemplateConfig(), TemplateConfig(chat=True, system="Be brief.", examples=SOLVED)):
        assert render(problems, template, from_files) == render(problems, template, tokenizer)


@pytest.mark.parametrize("name", ["qwen3", "deepseek_v3"])
def test_a_published_tokenizer_read_from_its_files_gives_the_prompts_of_transformers(shared, name):
    from grpo_cli.model import load_tokenizer

    folder = shared / "data/tokenizers" / name
    tokenizer, from_files = load_tokenizer(folder), FileTokenizer(folder / "tokenizer.json")
    for template in (TemplateConfig(), TemplateConfig(chat=True, system="Be brief.", examples=SOLVED)):
        assert render([PROBLEM], template, from_files) == render([PROBLEM], template, tokenizer)


def test_a_damaged_tokenizer_is_named(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"tokenizer\.json is not a tokenizer .* Copy or download the model again\."):
        render([PROBLEM], TemplateConfig(), FileTokenizer(tmp_path / "tokenizer.json"))


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
