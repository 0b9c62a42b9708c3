import json
import re
import subprocess
import sys

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from grpo_cli.commands.plan import long_run_warnings, run
from grpo_cli.config.compose import conf_dir, register_schemas, to_typed
from grpo_cli.config.model import ModelConfig
from grpo_cli.data import make_zero, random_base
from grpo_cli.errors import ConfigError, DataError
from grpo_cli.hardware import Hardware
from grpo_cli.model_files import find_shape


@pytest.fixture
def plan(monkeypatch):
    """Run `r1zero plan <overrides>` in this process."""
    monkeypatch.setattr("grpo_cli.commands.plan.given_keys", lambda: [])  # it would ask Hydra, which does not run
    register_schemas()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        yield lambda *overrides: run(compose("train", ["run.dir=unused", *overrides]))
    GlobalHydra.instance().clear()


def test_the_plan_shows_what_a_run_needs(plan, capsys):
    plan("experiment=oat_zero_7b")
    printed = capsys.readouterr().out
    for shown in ["7.62 B parameters", "ZeRO-3", "1,600", "4,120,576", "6.5 GiB", "73 of the longest sequences"]:
        assert shown in printed
    assert "it fits into 80 GiB per GPU and leaves 30.0 GiB" in printed


def test_the_plan_reads_the_data_and_shows_the_first_prompt(plan, capsys, tmp_path, monkeypatch):
    rows = [{"question": f"{n} 1 1 2", "answer": f"#### {n}"} for n in range(40)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = ("data=file", f"data.path={tmp_path}/train.jsonl", "rollout.prompts_per_step=64")
    plan(*given)
    printed = capsys.readouterr().out
    lengths = ("median 5, 95 % have at most 5, longest 5", "and prompts 5 ")
    for shown in ["36 to train on, 4 held out", "355.6 epochs", *lengths]:
        assert shown in printed
    assert "warning: rollout.prompts_per_step=64 is more than the 36 training problems" in printed
    assert "The first prompt:" in printed
    with pytest.raises(
        DataError, match=r"All 36 prompts are longer than rollout.max_prompt_tokens=2: the shortest has 5"
    ):
        plan(*given, "rollout.max_prompt_tokens=2")
    (tmp_path / "train.jsonl").write_text('{"text": "?"}')
    with pytest.raises(DataError, match="has no column 'problem'"):
        plan(*given)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    plan("data=math_12k")
    assert "The data set hiyouga/math12k is not read: it is on the Hub" in capsys.readouterr().out


def test_the_plan_estimates_the_time_and_names_the_hardware(plan, capsys):
    plan("experiment=oat_zero_7b", "cluster.gpu=A100")
    printed = capsys.readouterr().out
    for shown in ["Time, an estimate", "1,500 tokens on average (half of rollout.max_new_tokens)", "of 8 GPUs"]:
        assert shown in printed
    assert "A100: 60% of 312 TFLOP/s and 2,039 GB/s at 70%" in printed
    assert "Let every rank do both: the best split would be 1." in printed
    table = printed.partition("Layouts, an estimate")[2].partition("\n\n")[0].splitlines()
    assert len(table) == 7  # names, colocated, and the best split for each staleness
    assert max(len(line.rstrip()) for line in table) <= 100


def test_the_plan_of_a_split_shows_both_kinds_of_ranks(plan, capsys):
    trainers = ("cluster.rollout_ranks=6", "rollout.max_staleness=1", "cluster.memory_gib=141")
    plan("experiment=oat_zero_7b", *trainers)
    printed = capsys.readouterr().out
    for shown in ["; 6 only generate", "one shard of 2", "a rank that only generates", "a rank that only trains"]:
        assert shown in printed
    assert re.search(r"completions per rank that trains\W+512", printed)


def test_without_the_name_of_a_gpu_no_time_is_estimated(plan, capsys):
    plan("experiment=oat_zero_7b", "cluster.gpu=null", "cluster.memory_gib=80")
    printed = capsys.readouterr().out
    assert "Time, an estimate" not in printed
    assert "Set cluster.gpu to a GPU model" in printed


def test_measured_times_are_shown_next_to_the_estimate(plan, capsys, tmp_path):
    config = to_typed(compose("train", ["run.dir=unused", "rollout.max_new_tokens=100"]), "train")
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.structured(config)))
    row = {"time/rollout": 111.0, "time/update": 222.0, "time/sync": 333.0, "time/step": 777.0}
    row |= {"step": 1, "length/mean": 23.0, "length/max": 77.0, "perf/trained_tokens": 2000.0}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    plan(f"resume.run={tmp_path}")
    printed = capsys.readouterr().out
    for shown in ["measured", "111 s", "222 s", "333 s", "777 s", "23 tokens on average, 77 at most"]:
        assert shown in printed
    assert "116" in printed  # the longest sequence, by the settings of the run instead of the defaults


def test_a_plan_that_does_not_fit_is_shown_and_rejected(plan, capsys):
    with pytest.raises(ConfigError, match=r"Training needs 139\.9 GiB of a GPU that has 80"):
        plan("experiment=oat_zero_7b", "cluster=gpu_1")
    assert "139.9 GiB" in capsys.readouterr().out


def test_the_plan_counts_a_teacher_with_its_own_shape(plan, capsys, tmp_path):
    size = {"num_hidden_layers": 2, "hidden_size": 1024, "intermediate_size": 1, "num_attention_heads": 16}
    vocabulary = {"vocab_size": 2**20, "tie_word_embeddings": True, "max_position_embeddings": 4096}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2"} | size | vocabulary))
    plan("experiment=oat_zero_1_5b", "algorithm=on_policy_distillation", f"algorithm.reference.path={tmp_path}")
    # 2^20 rows of 1,024 values in bf16, and little more
    assert re.search(r"reference\W+2\.0 GiB", capsys.readouterr().out)
    with pytest.raises(ConfigError, match=r"algorithm\.reference\.path=me/it: the shape of this model is unknown"):
        plan("algorithm=on_policy_distillation", "algorithm.reference.path=me/it")


def test_faults_of_settings_and_of_the_model_are_reported_together(plan):
    with pytest.raises(ConfigError) as raised:
        plan("experiment=oat_zero_7b", "rollout.prompts_per_step=100", "cluster.vllm.tensor_parallel_size=8")
    assert "for example rollout.prompts_per_step=64" in str(raised.value)
    assert "Set cluster.vllm.tensor_parallel_size to one of 1, 2, 4." in str(raised.value)
    with pytest.raises(ConfigError) as raised:
        plan("model=file", "model.path=Qwen/Qwen2.5-0.5B", "steps=0")
    assert "steps=0: must be 1 or more" in str(raised.value)
    assert "the shape of this model is unknown" in str(raised.value)


def test_plan_does_not_import_torch():
    command = [sys.executable, "-X", "importtime", "-m", "grpo_cli.cli", "plan"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "Training" in answer.stdout
    imported = {line.rpartition("|")[2].strip() for line in answer.stderr.splitlines()}
    assert "grpo_cli.planner.memory" in imported
    assert not imported & {"torch", "transformers", "vllm", "deepspeed"}


def test_the_shape_is_read_from_a_folder(tmp_path):
    config = {
        "model_type": "llama",
        "num_hidden_layers": 2,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_attention_heads": 4,
    }
    (tmp_path / "config.json").write_text(json.dumps(config | {"vocab_size": 10, "max_position_embeddings": 32}))
    shape = find_shape(ModelConfig(name="mine", path=str(tmp_path)))
    assert (shape.num_kv_heads, shape.head_dim, shape.tied_embeddings) == (4, 16, False)  # not in the file


def test_the_shape_is_read_from_the_hubs_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.file_download.constants.HF_HUB_CACHE", str(tmp_path))
    model = ModelConfig(name="mine", path="org/mine")
    with pytest.raises(ConfigError, match="the shape of this model is unknown"):
        find_shape(model)
    cached = tmp_path / "models--org--mine"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("abc")
    (cached / "snapshots" / "abc").mkdir(parents=True)
    config = make_zero.base_model_dir() / "config.json"
    (cached / "snapshots" / "abc" / "config.json").write_text(config.read_text())
    assert find_shape(model).vocab_size == 180


@pytest.mark.parametrize("path", ["org/mine/too/long", "C:\\model", "model with spaces"])
def test_a_path_that_is_not_a_hub_id_has_no_shape(path):
    with pytest.raises(ConfigError, match="the shape of this model is unknown"):
        find_shape(ModelConfig(name="mine", path=path))


def test_the_shape_of_a_mixture_of_experts_is_not_guessed(tmp_path):
    found = json.loads((make_zero.base_model_dir() / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(found | {"num_local_experts": 8}))
    with pytest.raises(ConfigError, match="a mixture of experts"):
        find_shape(ModelConfig(name="mine", path=str(tmp_path)))


@pytest.mark.parametrize(
    "text",
    ['{"num_attention_heads": 4}', '{"model_type": "t5"}', "damaged", None],
    ids=["type", "t5", "damaged", "none"],
)
def test_a_folder_without_a_shape_is_rejected(text, tmp_path):
    if text:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=r"(?s)does not describe a shape that can be planned.*Set model\.shape"):
        find_shape(ModelConfig(name="mine", path=str(tmp_path)))


def test_the_shapes_in_conf_match_the_folders_of_the_built_in_models(compose_train, tmp_path):
    random_base.build_base(tmp_path)
    folders = {
        "tiny": make_zero.base_model_dir(),
        "tiny_mixed": make_zero.base_model_dir("make_zero_mixed"),
        "tiny_half": make_zero.base_model_dir("make_zero_half"),
        "tiny_guess": make_zero.base_model_dir("make_zero_guess"),
        "tiny_sizes": make_zero.base_model_dir("make_zero_sizes"),
        "random": tmp_path,
    }
    for name, folder in folders.items():
        shape = compose_train(f"model={name}").model.shape
        assert shape == find_shape(ModelConfig(name=name, path=str(folder)))
    assert find_shape(ModelConfig(name="tiny", path="builtin:make_zero")).vocab_size == 180
    assert find_shape(ModelConfig(name="mixed", path="builtin:make_zero_mixed")).vocab_size == 289


def test_a_run_that_is_too_large_for_a_cpu_is_announced_with_its_time(compose_train, monkeypatch):
    monkeypatch.setattr("grpo_cli.commands.plan.measure_cpu", lambda *_: Hardware("slow", 1e11, 1e10, 1e9))
    own = ["model=qwen2_5_3b", "cluster=cpu"]
    (warning,) = long_run_warnings(compose_train(*own))
    assert "On this CPU the run takes about" in warning
    assert "days: 200 steps of" in warning
    assert list(long_run_warnings(compose_train(*own, "cluster=gpu_1"))) == []
    short = ("steps=1", "rollout.max_new_tokens=8", "rollout.prompts_per_step=1")
    assert list(long_run_warnings(compose_train(*own, *short))) == []
    assert list(long_run_warnings(compose_train())) == []
