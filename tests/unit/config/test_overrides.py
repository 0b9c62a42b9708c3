"""What is said about an argument before anything is composed, and about an error of Hydra afterwards."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from grpo_cli.config.compose import conf_dir, register_schemas, to_typed
from grpo_cli.config.hydra_errors import explain_hydra_error
from grpo_cli.config.overrides import check_flags, check_overrides, expand_shorthands
from grpo_cli.errors import ConfigError

FLAGS = [
    (["--steps", "3"], "Use steps=3."),
    (["--steps=3"], "Use steps=3."),
    (["--group-size", "8"], "Use rollout.group_size=8."),
    (["--model", "tiny"], "Use model=tiny."),
    (["--stepz", "3"], "--stepz: there is no such flag. Did you mean steps?"),
    (["--config", "x.yaml"], "give --config-dir=my_conf experiment=x."),
]


@pytest.mark.parametrize(("arguments", "message"), FLAGS, ids=[" ".join(arguments) for arguments, _ in FLAGS])
def test_the_error_for_a_setting_given_as_a_flag_shows_what_to_type(arguments, message):
    with pytest.raises(ConfigError) as error:
        check_flags("train", arguments)
    assert message in str(error.value)


def test_hydras_flags_are_accepted():
    check_flags("train", ["-m", "--cfg", "job", "--config-dir=x", "--config-name", "y", "--resolve", "seed=1,2"])


SOURCES = [
    ("model=Qwen/Qwen3-0.6B", ["model=file", "model.path=Qwen/Qwen3-0.6B"]),
    ("model=Qwen/A,Qwen/B", ["model=file", "model.path=Qwen/A,Qwen/B"]),
    ("data=org/name", ["data=file", "data.source=org/name"]),
    ("data=rows.jsonl", ["data=file", "data.path=rows.jsonl"]),
    ("data=nowhere/rows.jsonl", ["data=file", "data.path=nowhere/rows.jsonl"]),
    ("benchmark=org/name", ["benchmark=file", "benchmark.file.source=org/name"]),
    ("model=tiny", ["model=tiny"]),
    ("template=a/b", ["template=a/b"]),
]


@pytest.mark.parametrize(("argument", "words"), SOURCES, ids=[argument for argument, _ in SOURCES])
def test_a_path_or_hub_id_can_be_given_as_a_choice(argument, words):
    assert expand_shorthands("train", [argument]) == words


@pytest.mark.parametrize(
    ("command", "argument", "message"),
    [
        ("train", "template=a/b.yaml", "give --config-dir=my_conf template=b."),
        ("eval", "benchmark=[gsm8k,org/name]", "alone: benchmark=file benchmark.file.source=org/name."),
        ("eval", "algorithm=grpo", "`r1zero eval` has no group algorithm."),
        ("train", "--config-dir=nowhere", "--config-dir=nowhere: there is no such folder."),
    ],
)
def test_the_error_for_a_choice_that_cannot_be_found_says_how_to_give_it(command, argument, message):
    with pytest.raises(ConfigError) as error:
        check_overrides(command, [argument])
    assert message in str(error.value)


def test_a_users_file_with_the_name_of_a_built_in_choice_is_rejected(tmp_path):
    """Hydra would silently use the built-in one."""
    (tmp_path / "algorithm").mkdir()
    (tmp_path / "algorithm" / "grpo.yaml").touch()
    with pytest.raises(ConfigError, match=r"grpo\.yaml has the name of a built-in algorithm"):
        check_overrides("train", [f"--config-dir={tmp_path}", "algorithm=grpo"])


FILES = [
    ("experiment", "algorithm: {epsilon: 0.1}", "Write `# @package _global_` as the first line"),
    ("experiment", "# @package foo\nsteps: 3", "sets foo, and there is no setting of that name."),
    ("experiment", "# @package _global_\nstep: 3", "Did you mean steps?"),
    ("experiment", "# @package _global_\ndefaults:\n  - algorithm: dapo", "Write `- override /algorithm: dapo`."),
    ("experiment", "# @package _global_\ndefaults:\n  - override /algorithm: dapoo", "Did you mean dapo?"),
    ("algorithm", "# @package _global_\nepsilon: 0.1", "epsilon means algorithm.epsilon"),
]


@pytest.mark.parametrize(("group", "text", "message"), FILES)
def test_a_fault_in_a_users_own_file_names_the_file_and_the_fix(group, text, message, tmp_path):
    (tmp_path / group).mkdir()
    (tmp_path / group / "mine.yaml").write_text(text)
    assert message in explanation(f"hydra.searchpath=[file://{tmp_path}]", f"{group}=mine")


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("model=file", "model.path is not set. Give it as model.path=...: A Hub id, a folder"),
        ("hydra/launcher=nowhere", "hydra/launcher=nowhere: there is no launcher of that name. Choose one of basic"),
        ("hydra/sweeper=optuna", "or install the package that brings it, such as hydra-optuna-sweeper."),
    ],
)
def test_what_hydra_cannot_find_is_explained(argument, message):
    assert message in explanation(argument)


WRONG_TYPES = [
    ("steps", "three", "steps=three: must be a whole number. Set steps=200, for example."),
    ("steps", "1e3", "steps=1000.0: must be a whole number. Set steps=1000."),
    ("steps", "null", "steps=null: must be a whole number."),
    ("optimizer.lr", "fast", "optimizer.lr=fast: must be a number. Set optimizer.lr=1e-06, for example."),
    ("cluster.offload_optimizer", "maybe", "cluster.offload_optimizer=maybe: must be true or false."),
    (
        "algorithm.weighting",
        "token_men",
        "must be one of sequence_mean, constant, token_mean, sum. Did you mean",
    ),
    ("template.stop", "abc", "template.stop=abc: must be a list in brackets, each item a text."),
    ("optimizer.betas", "[0.9,x]", "optimizer.betas=[0.9,x]: must be a list in brackets, each item a number."),
    ("logger.trackers", "[foo]", "each item one of wandb, tensorboard, trackio."),
    ("run.dir", "[a]", "run.dir=[a]: must be a text."),
    ("reward.terms", "3", "reward.terms=3: must be a dictionary, as in {name:value}."),
    ("optimizer", "3", "optimizer is a group of settings. Set them one by one, as in optimizer.lr=..."),
    ("algorithm.advantage", "{scale: foo}", "algorithm.advantage.scale=foo: must be one of group_std"),
    ("algorithm.advantage", "{scala: 1}", "there is no setting of that name. Did you mean algorithm.advantage.scale?"),
]


@pytest.mark.parametrize(("key", "value", "message"), WRONG_TYPES)
def test_a_value_of_a_wrong_type_is_explained_on_the_command_line_and_in_a_file(key, value, message, tmp_path):
    with pytest.raises(ConfigError) as error:
        check_overrides("train", [f"{key}={value}".replace(": ", ":")])
    assert message in str(error.value)
    (tmp_path / "experiment").mkdir()
    text = f"{key.replace('.', ': {')}: {value}{'}' * key.count('.')}"
    (tmp_path / "experiment" / "mine.yaml").write_text(f"# @package _global_\n{text}")
    found = explanation(f"hydra.searchpath=[file://{tmp_path}]", "experiment=mine", folders=[tmp_path])
    assert message in found
    assert "experiment/mine.yaml" in found


def test_values_of_a_wrong_type_are_listed_together_also_those_of_a_sweep():
    with pytest.raises(ConfigError) as error:
        check_overrides("train", ["-m", "seed=0,x,1.5", "algorithm=3", "algorithm={epsilon:0.1}", "steps=three"])
    assert [line.split(": ")[0] for line in str(error.value).splitlines()[:-1]] == [
        "seed=x",
        "seed=1.5",
        "algorithm=3",
        "algorithm={epsilon:0.1}",
        "steps=three",
    ]


def explanation(*overrides: str, folders: Sequence[Path] = ()) -> str:
    """What `r1zero train` says about arguments that cannot be composed."""
    register_schemas()
    with (
        initialize_config_dir(str(conf_dir()), version_base="1.3"),
        pytest.raises((HydraException, OmegaConfBaseException)) as error,
    ):
        to_typed(compose("train", ["run.dir=unused", *overrides]), "train")
    GlobalHydra.instance().clear()
    return explain_hydra_error(error.value, folders=folders)
