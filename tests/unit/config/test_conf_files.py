"""Every file in conf/ composes and passes the checks, if necessary with the settings that it needs."""

import pytest

from grpo_cli.config.commands import check_settings
from grpo_cli.config.compose import conf_dir

SAMPLING_GROUPS = ("benchmark", "cluster", "logger", "model", "template")
ANALYZE_GROUPS = ("cluster", "data", "logger", "model", "template")
REWARD_MODEL_GROUPS = ("cluster", "logger", "model", "supervised_tuning")
# Pipelines have their own tests; supervised_tuning is not for train.
ELSEWHERE = ("pipeline", "supervised_tuning")
ALL_FILES = sorted(path.relative_to(conf_dir()) for path in conf_dir().glob("*/*.yaml"))
FILES = [path for path in ALL_FILES if path.parent.name not in ELSEWHERE]
# Files that leave a value to the user.
NEEDS = {
    "reward/code": ["data.grader=code"],
    "reward/boxed": ["template=qwen_math"],
    "reward/r1_general": ["reward.terms.model.path=reward_model"],
    "data/file": ["data.path=README.md"],
    "benchmark/file": ["benchmark.file.path=README.md"],
    "model/file": ["model.path=Qwen/Qwen2.5-0.5B"],
    "experiment/r1_zero_paper": ["model.path=Qwen/Qwen2.5-7B"],
}


@pytest.mark.parametrize("path", FILES, ids=str)
def test_every_file_composes_and_passes_the_checks(path, compose_train):
    name = str(path.with_suffix(""))
    check_settings(compose_train(f"{path.parent}={path.stem}", *NEEDS.get(name, [])))


@pytest.mark.parametrize("path", [path for path in FILES if path.parent.name in SAMPLING_GROUPS], ids=str)
def test_the_groups_of_eval_compose_with_it_too(path, compose_as):
    name = str(path.with_suffix(""))
    check_settings(compose_as("eval", f"{path.parent}={path.stem}", *NEEDS.get(name, [])))


@pytest.mark.parametrize("path", [path for path in FILES if path.parent.name in ANALYZE_GROUPS], ids=str)
def test_the_groups_of_analyze_compose_with_it_too(path, compose_as):
    name = str(path.with_suffix(""))
    check_settings(compose_as("analyze", f"{path.parent}={path.stem}", *NEEDS.get(name, [])))


# The random model sets options that `sample` does not have.
SAMPLED = [path for path in FILES if path.parent.name in ANALYZE_GROUPS and path.stem != "random"]


@pytest.mark.parametrize("path", SAMPLED, ids=str)
def test_the_groups_of_sample_compose_with_it_too(path, compose_as):
    name = str(path.with_suffix(""))
    check_settings(compose_as("sample", f"{path.parent}={path.stem}", *NEEDS.get(name, [])))


# The random model sets options of responses, which `reward-model` does not have.
TAUGHT = [path for path in ALL_FILES if path.parent.name in REWARD_MODEL_GROUPS and path.stem != "random"]


@pytest.mark.parametrize("path", TAUGHT, ids=str)
def test_the_groups_of_reward_model_compose_with_it_too(path, compose_as):
    needs = [need for need in NEEDS.get(str(path.with_suffix("")), []) if need.startswith("model.")]
    check_settings(compose_as("reward-model", f"{path.parent}={path.stem}", "data.path=README.md", *needs))


LEARNED = [path for path in ALL_FILES if path.parent.name in (*SAMPLING_GROUPS, "supervised_tuning")]


@pytest.mark.parametrize("path", LEARNED, ids=str)
def test_the_groups_of_sft_compose_with_it_too(path, compose_as):
    name = str(path.with_suffix(""))
    check_settings(compose_as("sft", f"{path.parent}={path.stem}", "data.path=README.md", *NEEDS.get(name, [])))


def test_every_group_of_the_defaults_has_files():
    assert {path.parent.name for path in FILES} == {
        *("algorithm", "benchmark", "cluster", "data", "experiment", "logger", "model", "reward", "template", "tuning")
    }
