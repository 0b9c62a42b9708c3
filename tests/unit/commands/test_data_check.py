"""What `train` and `plan` find in the data and the prompts before anything is loaded."""

import re
import subprocess
import sys

import pytest

from grpo_cli.commands.data_check import (
    check_demonstrations,
    check_preferences,
    check_prompts,
    data_table,
    data_warnings,
    first_prompt,
    unknown_text_warnings,
)
from grpo_cli.config.model import ModelConfig
from grpo_cli.data import lengths, make_zero
from grpo_cli.data.demonstrations import Demonstration, DemonstrationSet
from grpo_cli.data.file_tokenizer import local_model_file, local_tokenizer
from grpo_cli.data.preferences import Preference, PreferenceSet
from grpo_cli.data.problems import ProblemSet
from grpo_cli.errors import ConfigError, DataError
from grpo_cli.screen import Screen
from grpo_cli.types import Problem

HERE = ProblemSet(
    train=tuple(Problem(str(n), f"{n} 1 1 2", "0") for n in range(10)), heldout=(Problem("h", "1 1 1 3", "0"),)
)
LONG = ProblemSet(train=tuple(Problem(str(n), "1 " * (20 + n), "0") for n in range(3)), heldout=HERE.heldout)


@pytest.fixture
def composed(compose_train, tmp_path):
    """The settings of a run of the model `tiny`, without its shape, in a folder with only its tokenizer and config."""

    def compose(*overrides):
        folder = tmp_path / "model"
        folder.mkdir(exist_ok=True)
        for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
            (folder / name).write_bytes((make_zero.base_model_dir() / name).read_bytes())
        config = compose_train(*overrides)
        config.model.path, config.model.shape = str(folder), None
        return config

    return compose


def printed(table, capsys):
    Screen(width=120).print(table)
    return capsys.readouterr().out


def test_that_all_prompts_are_too_long_is_found_in_either_part(composed):
    config = composed("rollout.max_prompt_tokens=16")
    check_prompts(config, HERE)
    with pytest.raises(
        DataError, match=r"All 3 prompts are longer than rollout.max_prompt_tokens=16: the shortest has 21"
    ):
        check_prompts(config, LONG)
    with pytest.raises(DataError, match=r"All 3 prompts are longer"):
        check_prompts(config, ProblemSet(HERE.train, LONG.train))
    config.model.path = "org/not-here"
    check_prompts(config, LONG)


def test_a_missing_chat_template_is_found(composed):
    with pytest.raises(ConfigError, match="the model's tokenizer has no chat template"):
        check_prompts(composed("template=chat", "reward=boxed"), HERE)


def test_that_all_demonstrations_are_too_long_is_found_in_either_part(compose_as, monkeypatch):
    config = compose_as("sft", "model=tiny", "data.max_tokens=10")
    short = (Demonstration("1 1 1 3", "<think> 1 +1 </think>"),)  # 5 tokens of the prompt, 4, and the end token
    long = tuple(Demonstration("1 1 1 3", "<think> " + "1 " * (6 + n) + "</think>") for n in range(3))
    check_demonstrations(config, DemonstrationSet(short, short))
    check_demonstrations(config, DemonstrationSet((*long, *short), ()))
    monkeypatch.setattr(lengths, "BATCH", 2)
    wanted = r"All 3 demonstrations are longer than data\.max_tokens=10: the shortest has 14 tokens\. Raise"
    for demonstrations in (DemonstrationSet(long, short), DemonstrationSet(short, long[::-1])):
        with pytest.raises(DataError, match=wanted):
            check_demonstrations(config, demonstrations)
    config.data.max_tokens = 4096
    longer = (Demonstration("1 1 1 3", "1 " * 300),)
    with pytest.raises(DataError, match=r"longer than the 256 tokens that the model reads: the shortest has 306\. Use"):
        check_demonstrations(config, DemonstrationSet(longer, ()))


def test_that_all_pairs_are_too_long_is_found(compose_as):
    config = compose_as("reward-model", "model=tiny", "data.max_tokens=8")
    short, long = (Preference("1 1 1 3", "0", "0 " * number) for number in (4, 5))
    check_preferences(config, PreferenceSet((long, short), (short,)))
    with pytest.raises(DataError, match=r"All 1 pairs are longer than data\.max_tokens=8: the shortest has 9 tokens"):
        check_preferences(config, PreferenceSet((short,), (long,)))


def test_a_step_of_more_prompts_than_problems_is_said(composed):
    config = composed("rollout.prompts_per_step=11")
    (warning,) = data_warnings(config, 10)
    assert warning.startswith("rollout.prompts_per_step=11 is more than the 10 training problems")
    assert not list(data_warnings(config, 11))


def test_words_that_the_model_does_not_know_are_warned_about(composed):
    words = tuple(Problem(str(n), f"What is {n} and 1?", "0") for n in range(10))
    (warning,) = unknown_text_warnings(composed(), ProblemSet(words, ()))
    assert "of the prompts' tokens stand for words that tiny does not know" in warning
    assert list(unknown_text_warnings(composed(), HERE)) == []
    config = composed()
    config.model.path = "org/not-here"
    assert list(unknown_text_warnings(config, ProblemSet(words, ()))) == []


def test_the_table_shows_counts_and_lengths(composed, capsys):
    config = composed("steps=3", "rollout.prompts_per_step=10", "rollout.max_prompt_tokens=22")
    mixed = ProblemSet(HERE.train + LONG.train, HERE.heldout)
    shown = printed(data_table(config, mixed, local_tokenizer(config.model)), capsys)
    assert "13 to train on, 1 held out" in shown
    assert "30 prompts, 2.3 epochs" in shown
    assert "median 5, 95 % have at most 22, longest 23" in shown
    assert "7.7% of the prompts, by rollout.max_prompt_tokens=22" in shown
    assert "unknown: the model's tokenizer.json is not on this machine" in printed(
        data_table(config, mixed, None), capsys
    )


def test_the_first_prompt_is_shown_without_the_middle_of_a_long_one(composed):
    config = composed("template.system=0 1 :", 'template.examples=[{question:1 1 2 0,answer:"<answer> 0 </answer>"}]')
    tokenizer = local_tokenizer(config.model)
    shown = "0 1 :\n\n1 1 2 0 : <answer> 0 </answer>\n\n0 1 1 2 :"
    assert first_prompt(config, HERE, tokenizer) == shown
    long = ProblemSet((Problem("a", "start " + "1 " * 1000 + "end", "0"),), ())
    shown = first_prompt(config, long, tokenizer)
    assert shown.startswith("0 1 :")
    assert shown.endswith("1 end :")
    start, skipped, end = re.split(r"\n\[\.\.\. (\d+) more \.\.\.\]\n", shown)
    whole = len("0 1 :\n\n1 1 2 0 : <answer> 0 </answer>\n\n" + long.train[0].text + " :")
    assert len(start) == len(end) == 750
    assert 750 + int(skipped) + 750 == whole


def test_files_of_a_model_are_found_in_its_folder_and_in_the_hubs_cache(tmp_path, monkeypatch):
    def found(path):
        return local_model_file(ModelConfig(name="m", path=path), "tokenizer.json")

    assert found("builtin:make_zero").parent == make_zero.base_model_dir()
    assert found("builtin:random") is None
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.file_download.constants.HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--org--mine/snapshots/abc"
    snapshot.mkdir(parents=True)
    (tmp_path / "models--org--mine/refs").mkdir()
    (tmp_path / "models--org--mine/refs/main").write_text("abc")
    assert found("org/mine") is None
    (snapshot / "tokenizer.json").write_text("{}")
    assert found("org/mine") == snapshot / "tokenizer.json"
    assert found("org/mine/too/long") is None


def test_train_checks_the_prompts_before_it_imports_anything_heavy(tmp_path):
    command = [sys.executable, "-X", "importtime", "-m", "grpo_cli.cli", "train", "experiment=smoke", "run.dir=run"]
    command += ["rollout.max_prompt_tokens=2"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path, check=False)
    assert answer.returncode == 1
    assert "prompts are longer than rollout.max_prompt_tokens=2: the shortest has 5 tokens" in answer.stderr
    imported = {line.rpartition("|")[2].strip() for line in answer.stderr.splitlines()}
    assert not imported & {"torch", "transformers", "vllm", "deepspeed"}
    assert not (tmp_path / "run").exists()
