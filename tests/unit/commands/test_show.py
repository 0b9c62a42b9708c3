"""`r1zero show` on the groups of a run."""

import re

import pytest
from kept_groups import group, response

from grpo_cli.commands.show import main
from grpo_cli.errors import ConfigError
from grpo_cli.runs.rollouts import Split, rollout_file, write_groups
from grpo_cli.types import Verdict

WRONG = {"verdict": Verdict.wrong, "reward": 0.1, "terms": {"accuracy": 0.0, "format": 1.0}}


@pytest.fixture
def run_dir(tmp_path):
    """Steps 5 and 80 with two training problems each, and one held-out problem at steps 0 and 80."""
    split = {"split": Split.heldout, "problem": "followed"}
    verdicts = {0: Verdict.wrong, 80: Verdict.correct}
    for step, verdict in verdicts.items():
        write_groups(
            rollout_file(tmp_path, Split.heldout, step),
            [group(step, response(f"greedy {step}", verdict=verdict, advantage=None), **split)],
        )
    for step in (5, 80):
        low = response("low", advantage=-1.2, extracted=None, truncated=True, **WRONG)
        middle = response("[b]middle\x1b[2J", advantage=0.25, extracted="3", **WRONG)
        first = group(step, low, middle, response(f"high {step}"), problem="first")
        write_groups(rollout_file(tmp_path, Split.train, step), [first, group(step, problem="second")])
    return tmp_path


def shown(capsys, *arguments) -> str:
    main([str(argument) for argument in arguments])
    return capsys.readouterr().out


def test_the_responses_of_the_last_step_are_sorted_by_advantage(run_dir, capsys):
    printed = shown(capsys, run_dir)
    assert printed.startswith("step 80, train, problem first")
    assert "3 1 1 1 :" in printed
    assert re.findall(r"─ (\d \w+) ─", printed) == ["2 correct", "1 wrong", "0 wrong"]
    assert "advantage +1.725  reward 1.1 (before weights: accuracy 1, format 1)  3 tokens  answer 3 -1 -1 -1" in printed
    assert "advantage -1.200  reward 0.1 (before weights: accuracy 0, format 1)  3 tokens, cut  no answer" in printed
    assert "[b]middle\\x1b[2J" in printed  # neither markup nor control characters
    assert "Training problems of this step: first, second\nHeld-out problems of this step: followed\n" in printed
    assert printed.endswith(f"To see another: r1zero show {run_dir} step=80 problem=...\n")


@pytest.mark.parametrize(
    ("choices", "title", "text"),
    [
        (["step=5"], "step 5, train, problem first", "high 5"),
        (["step=5", "problem=second"], "step 5, train, problem second", "no wait yes"),
        (["step=0"], "step 0, heldout, problem followed", "greedy 0"),
        (["problem=followed"], "step 80, heldout, problem followed", "greedy 80"),
    ],
)
def test_a_step_and_a_problem_can_be_chosen(run_dir, capsys, choices, title, text):
    printed = shown(capsys, run_dir, *choices)
    assert printed.startswith(f"{title} ")
    assert text in printed


def test_a_problem_that_is_followed_has_its_verdicts_through_training(run_dir, capsys):
    assert "This problem by step: 0 wrong, 80 correct\n" in shown(capsys, run_dir, "problem=followed")


@pytest.mark.parametrize(
    ("choices", "fault"),
    [
        (["step=7"], "step=7: no groups of this step are kept. Use step=0 or step=5."),
        (["step=0", "problem=first"], "no responses to it are kept at step 0"),
        (["problem=secnd"], "problem=secnd: no responses to it are kept. Did you mean second?"),
    ],
)
def test_what_is_not_kept_is_reported_with_what_is(run_dir, choices, fault):
    with pytest.raises(ConfigError, match=re.escape(fault)):
        main([str(run_dir), *choices])


def test_a_folder_without_groups_is_named(tmp_path):
    with pytest.raises(ConfigError, match="has no kept groups"):
        main([str(tmp_path)])


def test_an_unknown_choice_is_rejected(run_dir, capsys):
    with pytest.raises(SystemExit):
        main([str(run_dir), "stpe=5"])
    assert "stpe=5: write step=80 or problem=ID" in capsys.readouterr().err
