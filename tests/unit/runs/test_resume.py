"""Which settings may differ when a run is resumed, and which are taken from the run."""

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from grpo_cli.config.compose import to_typed
from grpo_cli.config.overrides import allow_new_entries
from grpo_cli.errors import CheckpointError, ConfigError
from grpo_cli.runs.frozen import read_frozen
from grpo_cli.runs.resume import check_resumed, frozen_settings, resumed_settings, unfit_settings


@pytest.fixture
def run_dir(tmp_path, compose_train):
    """The folder of a run with epsilon 0.3."""
    config = compose_train("algorithm.epsilon=0.3", f"run.dir={tmp_path}")
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.structured(config)))
    return tmp_path


@pytest.mark.parametrize(
    "change",
    ["logger=none", "checkpoint.every_steps=7", "run.name=other", "steps=400", "resume.allow=[seed]"],
)
def test_settings_without_effect_on_the_results_may_change(compose_train, run_dir, change):
    assert check_resumed(compose_train("algorithm.epsilon=0.3", f"run.dir={run_dir}", change), "train") == []


@pytest.mark.parametrize("change", ["cluster.ranks=2", "cluster.zero_stage=2", "cluster.tokens_per_microbatch=64"])
def test_a_change_that_only_affects_rounding_is_reported(compose_train, run_dir, change):
    (note,) = check_resumed(compose_train("algorithm.epsilon=0.3", f"run.dir={run_dir}", change), "train")
    assert note.startswith(change.split("=")[0])


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ("optimizer.lr=1", "optimizer.lr"),
        ("cluster.dtype=bf16", "cluster.dtype"),
        ("eval.every_steps=9", "eval.every_steps"),
        ("reward.terms.brevity.weight=1", "reward.terms.brevity.weight"),
    ],
)
def test_a_change_of_the_results_is_rejected_unless_it_is_allowed(compose_train, run_dir, change, key):
    same = ("algorithm.epsilon=0.3", f"run.dir={run_dir}")
    change = f"++{change}"
    with pytest.raises(ConfigError, match=rf"(?s)would change the results:\n{key}: .*resume\.allow=\[{key}\]"):
        check_resumed(compose_train(*same, change), "train")
    assert check_resumed(compose_train(*same, change, f"resume.allow=[{key}]"), "train") == []


def test_a_run_cannot_be_made_longer_if_the_learning_rate_depends_on_its_length(compose_train, tmp_path):
    cosine = ("optimizer.schedule=cosine", f"run.dir={tmp_path}")
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.structured(compose_train(*cosine))))
    with pytest.raises(ConfigError, match="steps: 200 in the run, 400 now"):
        check_resumed(compose_train(*cosine, "steps=400"), "train")


def test_a_folder_without_a_run_is_accepted(compose_train, tmp_path):
    assert check_resumed(compose_train(f"run.dir={tmp_path}"), "train") == []


def test_a_named_run_keeps_its_settings_except_those_on_the_command_line(compose_train, run_dir):
    composed = OmegaConf.structured(compose_train(f"resume.run={run_dir}", "steps=300", "logger=none"))
    settings = resumed_settings(composed, ["resume.run", "steps", "logger"], "train")
    assert (settings.algorithm.epsilon, settings.steps, settings.logger.trackers) == (0.3, 300, [])
    assert settings.run.dir == str(run_dir)
    assert settings.seed == 0


def test_a_missing_run_an_experiment_and_an_unknown_setting_are_rejected(compose_train, run_dir, tmp_path):
    composed = OmegaConf.structured(compose_train(f"resume.run={tmp_path / 'nothing'}"))
    with pytest.raises(CheckpointError, match="holds no run"):
        resumed_settings(composed, ["resume.run"], "train")
    composed = OmegaConf.structured(compose_train(f"resume.run={run_dir}"))
    with pytest.raises(ConfigError, match="Leave out experiment="):
        resumed_settings(composed, ["resume.run", "experiment"], "train")
    with (run_dir / "config.yaml").open("a") as file:
        file.write("no_such_setting: 1\nepochs: 2\n")
    with pytest.raises(ConfigError, match="does not fit this version of r1zero") as error:
        resumed_settings(composed, ["resume.run"], "train")
    unknown = str(error.value).splitlines()[1:-1]
    assert [line.split(":")[0] for line in unknown] == ["- no_such_setting", "- epochs"]
    assert all("there is no setting of that name" in line for line in unknown)


def test_settings_that_a_run_lacks_are_named(run_dir):
    stored = read_frozen(run_dir / "config.yaml")
    del stored.model.name, stored.run.dir
    assert (
        unfit_settings(stored, "train", OmegaConfBaseException("")) == "- model.name is missing.\n- run.dir is missing."
    )


def test_a_value_of_a_wrong_type_in_a_run_is_named(compose_train, run_dir):
    file = run_dir / "config.yaml"
    file.write_text(file.read_text().replace("epsilon: 0.3", "epsilon: small"))
    with pytest.raises(
        ConfigError, match=r"(?s)config.yaml does not fit .*\n- algorithm.epsilon=small: must be a number"
    ):
        check_resumed(compose_train(f"run.dir={run_dir}"), "train")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (["seed=1"], "seed: 0 in the run, 1 now .it decides which problems are held out"),
        (["model.lora.rank=4"], "model.lora.rank: 0 in the run, 4 now .the trained adapters"),
        (
            ["optimizer.schedule=cosine", "algorithm.num_minibatches=2"],
            "algorithm.num_minibatches: 1 in the run, 2 now .the schedule of the learning rate counts",
        ),
    ],
)
def test_settings_that_cannot_change_are_rejected_even_if_they_are_allowed(compose_train, run_dir, change, reason):
    keys = [override.split("=")[0] for override in change]
    with pytest.raises(ConfigError, match=rf"(?s)These settings cannot change:\n{reason}.*Start a new run"):
        check_resumed(
            compose_train(
                "algorithm.epsilon=0.3", f"run.dir={run_dir}", *change, f"resume.allow=[{','.join(keys)},optimizer]"
            ),
            "train",
        )


def test_fewer_steps_than_the_run_has_taken_are_rejected_before_anything_is_loaded(compose_train, run_dir):
    for step in (999_999, 1_000_000):
        folder = run_dir / f"checkpoints/step_{step:06d}"
        folder.mkdir(parents=True)
        (folder / "manifest.json").touch()
    with pytest.raises(ConfigError, match=r"steps=4: the run in .* has already taken 1000000 steps"):
        check_resumed(compose_train("algorithm.epsilon=0.3", f"run.dir={run_dir}", "steps=4"), "train")


def test_a_setting_removed_on_the_command_line_is_removed_from_the_run(compose_train, run_dir):
    allow = "resume.allow=[reward.terms.format]"
    composed = OmegaConf.structured(compose_train(f"resume.run={run_dir}", "~reward.terms.format", allow))
    settings = resumed_settings(composed, ["resume.run", "~reward.terms.format", "resume.allow"], "train")
    assert list(settings.reward.terms) == ["accuracy"]
    config = to_typed(settings, "train")
    assert check_resumed(config, "train") == []
    config.resume.allow = []
    with pytest.raises(ConfigError, match=r"reward\.terms\.format\.weight: .* in the run, nothing now"):
        check_resumed(config, "train")


def test_a_setting_that_only_the_run_has_can_be_removed(compose_train, tmp_path):
    config = compose_train("++reward.terms.brevity.weight=1", f"run.dir={tmp_path}")
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.structured(config)))
    arguments = [f"resume.run={tmp_path}", "~reward.terms.brevity"]
    assert allow_new_entries("train", arguments)[1] == "++reward.terms.brevity=null"
    assert allow_new_entries("train", ["resume.run=auto", *arguments[1:]])[1] == "~reward.terms.brevity"
    composed = OmegaConf.structured(compose_train(*allow_new_entries("train", arguments)))
    settings = resumed_settings(composed, ["resume.run", "reward.terms.brevity"], "train")
    assert "brevity" not in settings.reward.terms
    with pytest.raises(
        ConfigError,
        match=r"~reward.terms.nothing: the run to resume has no such setting .any more.. Leave it out",
    ):
        resumed_settings(composed, ["~reward.terms.nothing"], "train")


def test_resume_allow_and_trust_are_not_taken_from_the_run(compose_train, tmp_path):
    config = compose_train("resume.allow=[optimizer.lr]", "resume.trust=true", f"run.dir={tmp_path}")
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.structured(config)))
    composed = OmegaConf.structured(compose_train(f"resume.run={tmp_path}", "optimizer.lr=1e-5"))
    settings = resumed_settings(composed, ["resume.run", "optimizer.lr"], "train")
    assert not settings.resume.trust
    with pytest.raises(ConfigError, match=r"optimizer.lr: "):
        check_resumed(to_typed(settings, "train"), "train")


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "it holds no settings"),
        (b"\n# nothing\n", "it holds no settings"),
        (b"- a\n- b\n", "it holds no settings"),
        (b"just words", "is damaged"),
        (bytes(100), "is damaged"),
        (b"run: {dir: [", "is damaged"),
        (b"\xff\xfe\x00", "is damaged"),
        (b"seed: 0\nrun:\n  dir: there\n", "it has no data, logger, model"),
    ],
)
def test_the_error_for_a_damaged_or_missing_config_yaml_names_the_copy_in_a_checkpoint(
    compose_train, run_dir, content, fault
):
    (run_dir / "config.yaml").write_bytes(content)
    config = compose_train(f"run.dir={run_dir}")
    with pytest.raises(CheckpointError, match=r"config.yaml is damaged: .*Restore a copy") as error:
        check_resumed(config, "train")
    assert fault in str(error.value)
    (run_dir / "checkpoints/step_000010").mkdir(parents=True)
    with pytest.raises(CheckpointError, match=r"holds a copy: cp .*step_000010/config.yaml .*config.yaml"):
        check_resumed(config, "train")
    (run_dir / "config.yaml").unlink()
    with pytest.raises(CheckpointError, match=r"has no config.yaml any more.*cp .*step_000010"):
        check_resumed(config, "train")


@pytest.mark.parametrize("other", ["sft", "reward-model", "eval", "sample", "analyze"])
def test_the_error_for_a_run_of_another_command_names_that_command(compose_as, compose_train, tmp_path, other):
    data = ["data.path=/"] if other == "reward-model" else []
    config = compose_as(other, f"run.dir={tmp_path}", *data)
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.structured(config)))
    with pytest.raises(CheckpointError, match=f"holds a run of `r1zero {other}`, which `r1zero train` cannot resume"):
        frozen_settings(tmp_path, "train")


def test_a_checkpoint_or_a_pipeline_in_place_of_a_run_is_rejected(run_dir, tmp_path):
    checkpoint = tmp_path / "checkpoints/step_000010"
    checkpoint.mkdir(parents=True)
    (checkpoint / "state.json").touch()
    with pytest.raises(CheckpointError, match=f"is a checkpoint. Give the folder of its run: {tmp_path}$"):
        frozen_settings(checkpoint, "train")
    pipeline = tmp_path / "pipeline"
    pipeline.mkdir()
    (pipeline / "pipeline.yaml").touch()
    with pytest.raises(CheckpointError, match=r"holds a pipeline. Resume it with `r1zero pipeline resume="):
        frozen_settings(pipeline, "train")


def test_paths_are_frozen_and_compared_as_absolute_paths(compose_train, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.jsonl").touch()
    (tmp_path / "models/base").mkdir(parents=True)
    (tmp_path / "gpt2").touch()
    relative = ["data.path=t.jsonl", "model.path=models/base", "replay=models", "run.dir=run"]
    config = compose_train(*relative)
    assert (config.data.path, config.model.path) == (f"{tmp_path}/t.jsonl", f"{tmp_path}/models/base")
    assert config.replay == f"{tmp_path}/models"
    assert compose_train("model.path=gpt2").model.path == "gpt2"  # a Hub id, although a file here has that name
    assert compose_train("data.path=nothing.jsonl").data.path == "nothing.jsonl"
    (tmp_path / "run").mkdir()
    old = OmegaConf.structured(config)
    old.data.path, old.model.path = "t.jsonl", "models/base"  # as an earlier version froze them
    (tmp_path / "run/config.yaml").write_text(OmegaConf.to_yaml(old))
    assert check_resumed(config, "train") == []
