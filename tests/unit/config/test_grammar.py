"""If Hydra's grammar cannot read an override, the error says what to type, and shell and grammar can read that."""

import random
import subprocess

import pytest

from grpo_cli.config.grammar import parsed, quoted, shell_word
from grpo_cli.config.overrides import allow_new_entries, check_overrides, expand_shorthands
from grpo_cli.errors import ConfigError


def advice(command: str, *arguments: str) -> tuple[str, str]:
    """The line of the error about the last argument, and its suggestion after a POSIX shell has read it."""
    with pytest.raises(ConfigError) as error:
        check_overrides(command, arguments)
    [line] = [line for line in str(error.value).splitlines() if line.startswith(f"{arguments[-1]}: ")]
    word = line.partition("for the shell: ")[2] or line.partition("one value: ")[2]
    typed = subprocess.run(["sh", "-c", f"printf %s {word}"], capture_output=True, text=True, check=True).stdout
    return line, typed


UNREADABLE = [  # a text, and where the grammar stops
    ("a<b", "'<'"),
    ("runs/lr=1e-5/traces.jsonl", "'='"),
    ("part#2.jsonl", "'#'"),
    ("/tmp/données/日本.jsonl", "'é'"),
    ("my data (1).jsonl", "' ('"),
    ("a[1].jsonl", "'['"),
    ("{problem}", "'{problem}'"),
    ("~/data.jsonl", "'~'"),
    ("it's.jsonl", '"\'s.jsonl"'),
    ('say "yes".jsonl', "'\"yes\"'"),
    ('it\'s "so"!', repr('\'s "so"!')),
    ("a;b&c|d`e`", "';'"),
    ("$(x)", "'('"),
    ("[INST] {problem} [/INST]", "' '"),
]


@pytest.mark.parametrize(("value", "stop"), UNREADABLE, ids=lambda case: case)
def test_the_error_for_a_text_that_cannot_be_read_shows_its_quoted_form(value, stop):
    line, typed = advice("train", f"data.path={value}")
    assert f"Hydra's grammar stops at {stop}. " in line
    assert typed.partition("=")[0] == "data.path"
    assert parsed(typed).value() == value
    check_overrides("train", [typed])


def test_each_entry_of_a_list_is_quoted_if_it_needs_quotes():
    line, typed = advice("train", "template.stop=[</answer>,STOP,<|im_end|>]")
    assert line.endswith("""'template.stop=["</answer>",STOP,"<|im_end|>"]'""")
    assert parsed(typed).value() == ["</answer>", "STOP", "<|im_end|>"]


def test_each_value_of_a_sweep_is_quoted_if_it_needs_quotes():
    line, typed = advice("train", "-m", "data.path=a#b,c")
    assert line.endswith("""'data.path="a#b",c'""")
    assert parsed(typed).is_sweep_override()


def test_the_error_for_several_values_without_a_sweep_shows_both_fixes():
    line, typed = advice("train", "template.text=Well,then")
    assert "Add -m" in line
    assert parsed(typed).value() == "Well,then"
    with pytest.raises(ConfigError, match="Add -m for a sweep over them\\."):
        check_overrides("train", ["seed=range(1,3)"])
    assert parsed(advice("train", "benchmark=aime24,math500")[1]).value() == ["aime24", "math500"]
    check_overrides("train", ["-m", "template.text=Well,then"])
    check_overrides("train", ["--multirun", "benchmark=aime24,math500"])


@pytest.mark.parametrize("argument", ["steps", "steps 3", "optimizer lr=1", "=3x<"])
def test_the_error_for_an_argument_without_key_and_value_shows_the_form(argument):
    with pytest.raises(ConfigError, match=r"is not key=value, as in optimizer\.lr=1e-5"):
        check_overrides("train", [argument])


def test_faults_of_grammar_and_of_names_are_reported_together():
    with pytest.raises(ConfigError) as error:
        check_overrides("train", ["data.path=a#b", "stepz=3", "run.name=<x>"])
    assert len(str(error.value).splitlines()) == 4


def test_the_value_of_a_flag_is_not_an_override(tmp_path):
    (tmp_path / "a#b=c").mkdir()
    check_overrides("train", ["--config-dir", str(tmp_path / "a#b=c"), "--cfg", "job", "~reward.terms.format"])
    check_overrides("train", ["--info", "searchpath"])


@pytest.mark.parametrize("seed", range(3))
def test_any_quoted_text_is_read_back_unchanged(seed):
    draw = random.Random(seed)
    for _ in range(1000):
        text = "".join(draw.choices("ab1 '\"\\$!`{}[](),=#<>~é日\n\t:", k=draw.randint(0, 8)))
        assert parsed(f"key={quoted(text)}").value() == text
        word = shell_word(f"key={text}")
        assert "'" in word or '"' in word or word == f"key={text}"


def test_the_shell_reads_quoted_words_back_unchanged():
    draw = random.Random(0)
    texts = ["".join(draw.choices("ab '\"\\$!`{}[](),=#<>~é*?;&|", k=8)) for _ in range(50)]
    script = "; ".join(f"printf '%s\\n' {shell_word(text)}" for text in texts)
    assert subprocess.run(["sh", "-c", script], capture_output=True, text=True).stdout.splitlines() == texts


ESCAPED = [  # the argument from the shell, and the value that the template gets
    (r"template.text=a\nb", "a\nb"),
    (r'template.text="{problem}\n\tAnswer:"', "{problem}\n\tAnswer:"),
    (r"template.text='a\\nb'", r"a\nb"),
    (r"template.text='\boxed{}\n'", "\\boxed{}\n"),
    (r'template.response_prefix="<think>\n"', "<think>\n"),
    (r'+template.stop=["\n\n","</s>"]', ["\n\n", "</s>"]),
    (r"templates.r1.text=a\nb", "a\nb"),
]


@pytest.mark.parametrize(("argument", "value"), ESCAPED, ids=[case[0] for case in ESCAPED])
def test_a_line_break_in_a_template_is_written_as_backslash_n(argument, value):
    [word] = expand_shorthands("train", [argument])
    assert parsed(word).value() == value
    assert word.partition("=")[0] == argument.partition("=")[0]


def test_escapes_in_other_settings_are_not_changed():
    for argument in (r"data.columns.answer_pattern=a\nb", r"run.dir=a\nb", r"template.text=a#\nb", "template.text=ab"):
        assert expand_shorthands("train", [argument]) == [argument]


def test_templates_in_a_sweep_get_line_breaks_too():
    [_, word] = expand_shorthands("train", ["-m", r"template.text=a\nb,c"])
    assert list(parsed(word).sweep_iterator())[1] == "c"
    assert "a\nb" in word


def test_a_template_with_a_line_break_reaches_the_run(compose_train):
    words = expand_shorthands("train", [r'template.text="{problem}\nAnswer:"', r'template.stop=["\n"]'])
    template = compose_train(*words).template
    assert (template.text, template.stop) == ("{problem}\nAnswer:", ["\n"])


def test_a_whole_dictionary_can_be_given(compose_train):
    words = allow_new_entries("train", ["rollout.max_new_tokens_schedule={8200:9}", "reward.terms={format:{weight:2}}"])
    config = compose_train(*words)
    assert config.rollout.max_new_tokens_schedule == {8200: 9}
    assert config.reward.terms["format"]["weight"] == 2
