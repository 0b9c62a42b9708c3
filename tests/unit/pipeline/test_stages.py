"""Reading the stages from a pipeline's file and the command line, and the check before they start."""

from pathlib import Path

import pytest

from grpo_cli.errors import ConfigError
from grpo_cli.pipeline.check import check_stages
from grpo_cli.pipeline.stages import pipeline_files, read_pipeline, stages_of, with_settings

TWO_STAGES = """\
# Two stages.
model: tiny
rl_steps: 5
evaluate: model=${model} eval.n=2 eval.temperature=1
stages:
  first: train model=${model} steps=${rl_steps}
  second: train model=${model} model.path=${dir}/first/model reward=r1
"""
# Values for the files that need one from the user.
NEEDS = {"distill": ["teacher=org/teacher"]}


@pytest.fixture
def stages(tmp_path):
    """A function that returns the stages of a file's text with settings."""

    def planned(text: str, *settings: str, folder: str = "/p"):
        (tmp_path / "mine.yaml").write_text(text)
        return stages_of(with_settings(read_pipeline(str(tmp_path / "mine.yaml")), settings), Path(folder))

    return planned


def test_each_model_is_evaluated_after_the_base_and_paths_of_earlier_stages_are_filled_in(stages):
    base, first, first_eval, second, second_eval = stages(TWO_STAGES)
    evaluation = ["eval", "logger.group=p", "model=tiny", "eval.n=2", "eval.temperature=1"]
    assert base.words == [*evaluation, "run.dir=/p/base_eval"]
    assert first.words == ["train", "logger.group=p", "model=tiny", "steps=5", "run.dir=/p/first", "resume=auto"]
    assert first_eval.words == [*evaluation, "model.path=/p/first/model", "run.dir=/p/first_eval"]
    assert second.words == [
        *("train", "logger.group=p", "model=tiny", "model.path=/p/first/model", "reward=r1"),
        *("run.dir=/p/second", "resume=auto"),
    ]
    assert (first.uses, second.uses, second_eval.uses) == ([], ["first"], ["second"])
    assert second_eval.name == "second_eval"


def test_the_command_line_sets_keys_of_the_file_and_settings_of_a_stage(stages):
    settings = ("rl_steps=7", "first.model=tiny_half", "second.model.path=a b", "evaluate.eval.n=9")
    base, first, _, second, _ = stages(TWO_STAGES, *settings)
    assert "eval.n=9" in base.words
    assert {"model=tiny_half", "steps=7"} < set(first.words)
    assert "model.path=a b" in second.words
    assert second.uses == []


def test_without_evaluate_only_the_stages_run(stages):
    assert [stage.name for stage in stages(TWO_STAGES, "evaluate=null")] == ["first", "second"]


def test_a_folder_that_hydra_would_misread_is_quoted(stages):
    _, first, first_eval, *_ = stages(TWO_STAGES, folder="/it's (here)")
    assert 'run.dir="/it\'s (here)/first"' in first.words
    assert 'model.path="/it\'s (here)/first/model"' in first_eval.words


ONE = "stages: {a: train}"
FAULTS = [
    ("stages: {rl: trian}", [], "trian is not a command"),
    ("evalute: a=1\nstages: {rl: train}", [], "Did you mean evaluate?"),
    ("dir: x\nstages: {rl: 'train run.name=${dir}'}", [], "or r1zero sets it"),
    ("stages: {Rl: train}", [], "is not a stage"),
    ("stages: {rl: {command: train}}", [], "is not a stage"),
    ("stages: {rl: }", [], "is not a stage"),
    ("stages: {rl: ' '}", [], "is not a stage"),
    ("stage: {}", [], "has no stages"),
    ("- train", [], "has no stages"),
    ("stages:\n  rl: train\n  rl: train", [], "duplicate key rl"),
    ("stages: {rl: train model=${model}}", [], "needs quotes"),
    (
        TWO_STAGES.replace("reward=r1", "reward=${modle}"),
        [],
        "stages.second: ${modle}: the pipeline has no such key. Did you mean model?",
    ),
    (
        "stages: {rl: 'train ${no:1}=1'}",
        [],
        "stages.rl: a ${...} cannot be filled in (Unsupported interpolation type no)",
    ),
    ('stages: {rl: "train run.name=\'x"}', [], "stages.rl: train run.name='x: a quotation mark is not closed"),
    ("a: ''\nstages: {rl: '${a}'}", [], "stages.rl: is empty. Write a command"),
    ("evaluate: [a=1]\nstages: {rl: train}", [], "evaluate: must be a text with overrides"),
    ("stages: {rl: 'train model.path=${dir}/slf/model'}", [], "no earlier stage"),
    ("stages: {a: 'train model.path=${dir}/b/model', b: train}", [], "no earlier stage"),
    ("stages: {a: train --help}", [], "--help is not an override"),
    ("stages: {a: train run.dir=x}", [], "Leave it out"),
    ("evaluate: a=1\nstages: {a: train, a_eval: train}", [], "Rename the stage"),
    (TWO_STAGES, ["modle=tiny"], "Did you mean model?"),
    (TWO_STAGES, ["frist.steps=3"], "Did you mean first.steps?"),
    (TWO_STAGES, ["first.resume=x"], "Leave it out"),
    (TWO_STAGES, ["model"], "no such setting"),
    (ONE, ["evaluate.eval.n=1"], "no such setting"),
    (TWO_STAGES.replace("model: tiny", "model: ???"), [], "Set model=..."),
]


@pytest.mark.parametrize(("text", "settings", "message"), FAULTS)
def test_an_invalid_pipeline_is_reported_with_a_fix(stages, text, settings, message):
    with pytest.raises(ConfigError) as raised:
        stages(text, *settings)
    assert message in str(raised.value)


def test_the_error_for_an_unknown_pipeline_suggests_the_nearest_name():
    with pytest.raises(ConfigError, match="Did you mean r1_zero"):
        read_pipeline("r1_zeor")


def test_misspelt_settings_of_all_stages_are_reported_together(stages):
    with pytest.raises(ConfigError) as raised:
        check_stages(stages(TWO_STAGES, "second.algorithm.epsilonn=1", "evaluate.eval.nn=2"), Path("/p"))
    assert "second: algorithm.epsilonn" in str(raised.value)
    assert "base_eval: eval.nn" in str(raised.value)


def test_invalid_settings_are_reported_although_the_model_of_an_earlier_stage_is_still_missing(stages):
    with pytest.raises(ConfigError) as raised:
        check_stages(stages(TWO_STAGES, "second.rollout.prompts_per_step=3", "second.cluster.ranks=2"), Path("/p"))
    assert str(raised.value).startswith("second: rollout.prompts_per_step=3")
    assert "/p/first/model" not in str(raised.value)


def test_a_missing_file_that_no_earlier_stage_makes_is_reported(stages):
    with pytest.raises(ConfigError, match=r"second: data.path=/elsewhere/x.jsonl: there is no such file"):
        check_stages(stages(TWO_STAGES, "second.data.path=/elsewhere/x.jsonl"), Path("/p"))


@pytest.mark.parametrize("name", pipeline_files())
def test_every_pipeline_in_conf_can_run(name):
    assert pipeline_files()[name].read_text().startswith("# ")  # shown in the list of pipelines
    check_stages(stages_of(with_settings(read_pipeline(name), NEEDS.get(name, [])), Path("/p")), Path("/p"))
