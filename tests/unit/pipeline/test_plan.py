"""From a pipeline's file and the command line to steps."""

from pathlib import Path

import pytest

from grpo_cli.errors import ConfigError
from grpo_cli.pipeline.check import check_steps
from grpo_cli.pipeline.plan import pipeline_files, read_pipeline, steps_of, with_settings

TWO_STAGES = """\
# Two stages.
model: tiny
rl_steps: 5
evaluate: model=${model} eval.n=2 eval.temperature=1
stages:
  first:
    command: train
    overrides: model=${model} steps=${rl_steps}
  second:
    command: train
    overrides: [reward=r1, "model=${model}"]
    takes: {model.path: first/model}
"""
ROUNDS = """\
rounds: 2
repeat: {stages: [draw, learn], times: "${rounds}"}
stages:
  draw:
    command: sample
    takes: {model.path: learn/model}
  learn:
    command: train
    takes: {data.path: draw/traces.jsonl}
  last:
    command: train
    takes: {model.path: learn/model}
"""
# What the files that leave a value to the user are given here.
NEEDS = {"distill": ["teacher=org/teacher"]}


@pytest.fixture
def steps(tmp_path):
    """The steps of a file's text with settings."""

    def planned(text: str, *settings: str):
        (tmp_path / "mine.yaml").write_text(text)
        return steps_of(with_settings(read_pipeline(str(tmp_path / "mine.yaml")), settings))

    return planned


def test_each_model_is_evaluated_after_the_base_and_what_is_taken_has_the_path_of_its_step(steps):
    base, first, first_eval, second, second_eval = steps(TWO_STAGES)
    folder = Path("/p")
    evaluation = ["logger.group=p", "model=tiny", "eval.n=2", "eval.temperature=1"]
    assert [base.name, *base.arguments(folder)] == ["base_eval", *evaluation, "run.dir=/p/base_eval"]
    assert first.arguments(folder) == ["logger.group=p", "model=tiny", "steps=5", "run.dir=/p/first", "resume=auto"]
    assert first_eval.arguments(folder) == [*evaluation, "model.path=/p/first/model", "run.dir=/p/first_eval"]
    assert second.arguments(folder) == [
        *("logger.group=p", "reward=r1", "model=tiny", "model.path=/p/first/model", "run.dir=/p/second", "resume=auto")
    ]
    assert second.sources == ["first"]
    assert (second_eval.name, second_eval.evaluates) == ("second_eval", "second")


def test_the_command_line_sets_variables_and_settings_of_a_stage_which_win(steps):
    settings = ("rl_steps=7", "first.model=tiny_half", "second.model.path=mine", "evaluate.eval.n=9")
    base, first, _, second, _ = steps(TWO_STAGES, *settings)
    assert base.settings["eval.n"] == "9"
    assert first.settings == {"model": "tiny_half", "steps": "7"}
    assert second.settings["model.path"] == "mine"
    assert second.takes == {}


def test_without_evaluate_there_are_the_stages_alone(steps):
    assert [step.name for step in steps(TWO_STAGES, "evaluate=null")] == ["first", "second"]


def test_rounds_take_from_the_round_before_and_the_first_from_nothing(steps):
    found = [(step.name, dict(step.takes)) for step in steps(ROUNDS, "rounds=2")]
    assert found == [
        ("draw_1", {}),
        ("learn_1", {"data.path": "draw_1/traces.jsonl"}),
        ("draw_2", {"model.path": "learn_1/model"}),
        ("learn_2", {"data.path": "draw_2/traces.jsonl"}),
        ("last", {"model.path": "learn_2/model"}),
    ]


def test_a_path_that_hydra_would_misread_is_quoted(steps):
    _, first, *_ = steps(TWO_STAGES)
    assert 'run.dir="/it\'s (here)/first"' in first.arguments(Path("/it's (here)"))


FAULTS = [
    ("stages: {rl: {command: trian}}", [], "trian is not what a stage can do"),
    ("stages: {rl: {command: train, override: a=1}}", [], "Did you mean overrides?"),
    ("evalute: a=1\nstages: {rl: {command: train}}", [], "Did you mean evaluate?"),
    ("stages: {Rl: {command: train}}", [], "is no name for a stage"),
    ("stage: {}", [], "has no stages"),
    ("stages: {rl: [model=${model}]}", [], "is not YAML"),
    ("stages: {rl: {command: train, overrides: '${nothing}=1'}}", [], "nothing"),
    ("stages: {rl: {command: train, takes: {model.path: slf/model}}}", [], "is not <an earlier stage>"),
    ("repeat: {stages: [b, a], times: 2}\nstages: {a: {command: train}, b: {command: train}}", [], "follow each other"),
    ("repeat: {stages: [a], times: 0}\nstages: {a: {command: train}}", [], "repeat.times=0"),
    ("repeat: {stages: [a], time: 2}\nstages: {a: {command: train}}", [], "Did you mean times?"),
    ("stages: {a: {command: train, overrides: --help}}", [], "--help: is no override"),
    ("evaluate: a=1\nstages: {a: {command: train}, a_eval: {command: train}}", [], "two steps of the name a_eval"),
    (TWO_STAGES, ["modle=tiny"], "Did you mean model?"),
    (TWO_STAGES, ["frist.steps=3"], "Did you mean first.steps?"),
    (TWO_STAGES, ["first.run.dir=x"], "Leave it out"),
    (TWO_STAGES, ["steps"], "write key=value"),
    (TWO_STAGES.replace("model: tiny", "model: ???"), [], "Give it, as in model=..."),
]


@pytest.mark.parametrize(("text", "settings", "message"), FAULTS, ids=[case[2] for case in FAULTS])
def test_a_fault_is_told_with_its_mend(steps, text, settings, message):
    with pytest.raises(ConfigError) as told:
        steps(text, *settings)
    assert message in str(told.value)


def test_an_unknown_pipeline_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean r1_zero"):
        read_pipeline("r1_zeor")


def test_misspelt_settings_of_all_stages_are_told_at_once(steps):
    with pytest.raises(ConfigError) as told:
        check_steps(steps(TWO_STAGES, "second.algorithm.epsilonn=1", "evaluate.eval.nn=2"))
    assert "second: algorithm.epsilonn" in str(told.value)
    assert "base_eval: eval.nn" in str(told.value)


def test_settings_that_cannot_work_are_told_with_their_stage(steps):
    with pytest.raises(ConfigError, match=r"second: .*\n- rollout.prompts_per_step=3"):
        check_steps(steps(TWO_STAGES, "second.rollout.prompts_per_step=3", "second.cluster.ranks=2"))


@pytest.mark.parametrize("name", pipeline_files())
def test_every_pipeline_in_conf_can_run(name):
    assert pipeline_files()[name].read_text().startswith("# ")  # what the list of pipelines says of it
    check_steps(steps_of(with_settings(read_pipeline(name), NEEDS.get(name, []))))
