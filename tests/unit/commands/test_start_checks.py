"""What would stop the ranks while they load is said by the launcher."""

import json
import shutil
import sys

import pytest
from huggingface_hub import constants

from grpo_cli.commands import sampling_run, start_checks
from grpo_cli.commands.start_checks import check_gpus, check_replay, check_start
from grpo_cli.config.cluster import ClusterConfig, SlurmConfig
from grpo_cli.data.file_tokenizer import local_tokenizer
from grpo_cli.data.make_zero import base_model_dir
from grpo_cli.data.problems import load_problem_set
from grpo_cli.data.templates import render
from grpo_cli.errors import CheckpointError, ConfigError, DataError, SetupError
from grpo_cli.runs.frozen import frozen_text
from grpo_cli.runs.stored_steps import StoredGroup, replay_file, write_step
from grpo_cli.types import Completion


@pytest.fixture
def model(tmp_path):
    """A copy of the built-in model, which has a tokenizer and no chat template, and reads 256 tokens."""
    return shutil.copytree(base_model_dir(), tmp_path / "model")


@pytest.fixture
def check(compose_as, monkeypatch):
    """Check what `r1zero <command> <overrides>` composes, on a machine that has what the settings ask for."""
    for name in ("check_machine", "check_gpus", "check_tracker"):
        monkeypatch.setattr(start_checks, name, lambda _: None)
    return lambda command, *overrides: check_start(compose_as(command, *overrides))


def use(folder, *overrides: str) -> list[str]:
    short = ["rollout.max_prompt_tokens=64", "rollout.max_new_tokens=64"]
    return ["model=file", f"model.path={folder}", *short, *overrides]


def test_a_complete_model_is_accepted(check, model):
    check("train", *use(model))
    check("train")
    check("eval", "template=r1")


def test_a_model_without_a_tokenizer_is_rejected(check, model):
    (model / "tokenizer.json").unlink()
    with pytest.raises(ConfigError, match="it has no tokenizer"):
        check("train", *use(model))


def test_a_chat_needs_a_chat_template(check, model):
    with pytest.raises(ConfigError, match=r"the model's tokenizer has no chat template\. Set template=r1"):
        check("train", *use(model, "template=chat"))
    with pytest.raises(ConfigError, match="no chat template"):
        check("analyze", "model=file", f"model.path={model}", "+template@templates.chat=chat")
    file = model / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"chat_template": "{{ messages }}"}))
    check("train", *use(model, "template=chat"))


def test_a_chat_template_can_be_a_file(check, model):
    (model / "chat_template.jinja").write_text("{{ messages }}")
    check("train", *use(model, "template=chat"))


def test_sequences_longer_than_the_model_are_rejected(check, model):
    with pytest.raises(ConfigError, match=r"reads at most 256 tokens, .* ask for 264"):
        check("train", *use(model, "rollout.max_new_tokens=200"))


def test_a_model_that_is_neither_here_nor_in_the_cache_is_rejected_without_a_network(check, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(SetupError, match=r"model\.path=me/it: .* the model is not in the cache"):
        check("eval", "model=file", "model.path=me/it")
    check("eval", "model=file", "model.path=me/it", "cluster=slurm_1x8")  # the nodes may reach the Hub
    with pytest.raises(
        SetupError, match=r"reward\.terms\.model\.path=me/it: .* set reward\.terms\.model\.path to a folder"
    ):
        check("train", "reward=r1_general", "reward.terms.model.path=me/it")
    with pytest.raises(SetupError, match=r"analyze\.judge=me/it: "):
        check("analyze", "analyze.judge=me/it")


def test_a_teacher_needs_the_tokens_of_its_student(check, model):
    distillation = ["algorithm=on_policy_distillation", f"algorithm.reference.path={model}"]
    check("train", *distillation)
    with pytest.raises(ConfigError, match=r"reference\.path=.* reads at most 256 tokens"):
        check("train", *distillation, "rollout.max_new_tokens=200", "model=random")
    file = model / "tokenizer.json"
    file.write_text(file.read_text(encoding="utf-8").replace('"<think>"', '"<ponder>"'), encoding="utf-8")
    for settings in (distillation, ["algorithm=ppo", f"critic.path={model}"]):
        with pytest.raises(ConfigError, match=r"(reference|critic)\.path=.*2 tokens differ, such as '<ponder>'"):
            check("train", *settings)
    with pytest.raises(SetupError, match=r"algorithm\.reference\.path=me/it: "):
        check("train", *distillation[:1], "algorithm.reference.path=me/it")


def test_a_reward_function_that_cannot_be_imported_is_rejected(check):
    with pytest.raises(ConfigError, match="nowhere:f: cannot be imported"):
        check("train", "+reward.terms.mine.function=nowhere:f")


def test_ranks_on_this_machine_need_a_gpu_each(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(start_checks, "num_gpus", lambda: 0)
    with pytest.raises(SetupError, match=r"CUDA finds no GPU on this machine\. `r1zero doctor` says why"):
        check_gpus(ClusterConfig(device="cuda"))
    check_gpus(ClusterConfig(device="cpu", ranks=2))
    check_gpus(ClusterConfig(device="cuda", ranks=16, slurm=SlurmConfig()))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr(start_checks, "num_gpus", lambda: 2)
    check_gpus(ClusterConfig(device="cuda", ranks=2))
    with pytest.raises(ConfigError, match=r"\(CUDA_VISIBLE_DEVICES=0,1\)\. Set cluster\.ranks=2"):
        check_gpus(ClusterConfig(device="cuda", ranks=8))


def test_a_run_without_a_checkpoint_is_rejected_before_deepspeed_is_imported(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "grpo_cli.training.export", None)  # an import of it would fail
    with pytest.raises(CheckpointError, match="has no complete checkpoint"):
        sampling_run._exported_model(tmp_path, trust=False)


ROWS = [{"id": f"{n}", "problem": f"{n} 1 1 1", "answer": f"{n} - 1 - 1 - 1"} for n in range(20)]


@pytest.fixture
def replay(tmp_path, compose_train):
    """A function of overrides that checks them for a replay of a run with two stored steps."""
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    run = tmp_path / "run"
    sampled = [f"data.path={tmp_path}/data.jsonl", "data=file", "data.num_heldout=8", "rollout.group_size=2"]

    def problems(config):
        return load_problem_set(config.data, config.seed).train

    config = compose_train(*sampled)
    run.mkdir()
    (run / "config.yaml").write_text(frozen_text(config))
    for step in (1, 2):
        prompts = render(problems(config)[4 * step : 4 * step + 4], config.template, local_tokenizer(config.model))
        groups = [StoredGroup(p.problem.id, p.token_ids, 0, place) for place, p in enumerate(prompts)]
        write_step(
            replay_file(run, step), config, [(group, (Completion((1,), (-0.5,), "", False),) * 2) for group in groups]
        )

    def check(*overrides: str):
        config = compose_train(*sampled, f"replay={run}", "steps=2", *overrides)
        check_replay(config, problems(config))

    return check


def test_a_run_is_replayed_with_other_objectives_rewards_and_fewer_steps(replay):
    replay()
    replay("steps=1", "algorithm=dr_grpo", "reward=accuracy", "rollout.mismatch_limit=1", "optimizer.lr=1")


@pytest.mark.parametrize(
    ("overrides", "fault"),
    [
        (["steps=3"], r"steps=3, and the run has 2 stored steps\. Set steps=2 or less"),
        (
            ["rollout.group_size=4", "rollout.temperature=0.5"],
            r"step 1 were sampled with other settings\. Set rollout\.group_size=2 rollout\.temperature=1\.0\.",
        ),
        (["seed=1"], r"of its 8 problems, such as '\d+', are not among .* Use its seed and its data"),
        (["template=qwen_math"], r"the prompt of the problem '\d+' was another one\. Use the run's template"),
    ],
)
def test_a_replay_with_other_samples_is_rejected(replay, overrides, fault):
    with pytest.raises(ConfigError, match=rf"^replay=.*{fault}"):
        replay(*overrides)


def test_a_run_that_was_not_replayable_is_rejected(replay, tmp_path):
    shutil.rmtree(tmp_path / "run/rollouts")
    with pytest.raises(ConfigError, match=r"0 stored steps\. Train it again, .* with logger\.replayable=true"):
        replay()


def test_a_replay_needs_the_tokens_of_the_run(replay, model):
    file = model / "tokenizer.json"
    file.write_text(file.read_text(encoding="utf-8").replace('"<think>"', '"<ponder>"'), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"tokens of builtin:make_zero, and model\.path=.* has others"):
        replay(f"model.path={model}")


def test_a_damaged_step_is_found_before_the_ranks_start(replay, tmp_path):
    replay_file(tmp_path / "run", 2).write_bytes(b"")
    with pytest.raises(DataError, match=r"replay_000002\.npz cannot be read"):
        replay()
