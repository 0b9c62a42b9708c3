import json
import subprocess
import sys

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from grpo_cli.commands.plan import find_shape, run
from grpo_cli.config.compose import conf_dir, register_schemas
from grpo_cli.config.schema import ModelConfig
from grpo_cli.data import make_zero, random_base
from grpo_cli.errors import ConfigError


@pytest.fixture
def plan():
    """`r1zero plan <overrides>`, in this process."""
    register_schemas()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        yield lambda *overrides: run(compose("train", ["run.dir=unused", *overrides]))
    GlobalHydra.instance().clear()


def test_it_shows_what_a_run_would_need(plan, capsys):
    plan("experiment=oat_zero_7b")
    printed = capsys.readouterr().out
    for shown in ["7.62 B parameters", "ZeRO-3", "1,600", "4,120,576", "6.5 GiB", "73 of the longest sequences"]:
        assert shown in printed
    assert "it fits into 80 GiB a GPU and leaves 31.8 GiB" in printed


def test_what_cannot_fit_is_shown_and_refused(plan, capsys):
    with pytest.raises(ConfigError, match=r"Training needs 143\.9 GiB of a GPU that has 80"):
        plan("experiment=oat_zero_7b", "cluster=gpu_1")
    assert "143.9 GiB" in capsys.readouterr().out


def test_faults_of_settings_and_of_the_model_are_told_together(plan):
    with pytest.raises(ConfigError) as raised:
        plan("experiment=oat_zero_7b", "rollout.prompts_per_step=100", "cluster.vllm.tensor_parallel_size=8")
    assert "for example rollout.prompts_per_step=64" in str(raised.value)
    assert "Set cluster.vllm.tensor_parallel_size=4." in str(raised.value)
    with pytest.raises(ConfigError) as raised:
        plan("model=file", "model.path=Qwen/Qwen2.5-0.5B", "steps=0")
    assert "steps=0: must be 1 or more" in str(raised.value)
    assert "its shape is not known here" in str(raised.value)


def test_it_answers_without_torch():
    command = [sys.executable, "-X", "importtime", "-m", "grpo_cli.cli", "plan"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "Training" in answer.stdout
    imported = {line.rpartition("|")[2].strip() for line in answer.stderr.splitlines()}
    assert "grpo_cli.config.plan" in imported
    assert not imported & {"torch", "transformers", "vllm", "deepspeed"}


def test_a_folder_tells_its_shape(tmp_path):
    config = {"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4}
    (tmp_path / "config.json").write_text(json.dumps(config | {"vocab_size": 10, "max_position_embeddings": 32}))
    shape = find_shape(ModelConfig(name="mine", path=str(tmp_path)))
    assert (shape.num_kv_heads, shape.head_dim, shape.tied_embeddings) == (4, 16, False)  # where they are not told


def test_a_folder_that_does_not_tell_its_shape_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"num_attention_heads": 4}')
    with pytest.raises(ConfigError, match=r"num_hidden_layers.*Give model\.shape"):
        find_shape(ModelConfig(name="mine", path=str(tmp_path)))


def test_the_shapes_of_the_built_in_models_are_those_of_their_folders(compose_train, tmp_path):
    random_base.build_base(tmp_path)
    folders = {
        "tiny": make_zero.base_model_dir(),
        "tiny_mixed": make_zero.base_model_dir("make_zero_mixed"),
        "tiny_half": make_zero.base_model_dir("make_zero_half"),
        "random": tmp_path,
    }
    for name, folder in folders.items():
        shape = compose_train(f"model={name}").model.shape
        assert shape == find_shape(ModelConfig(name=name, path=str(folder)))
    assert find_shape(ModelConfig(name="tiny", path="builtin:make_zero")).vocab_size == 180
    assert find_shape(ModelConfig(name="mixed", path="builtin:make_zero_mixed")).vocab_size == 289
