"""The commands, one record each; every other table of commands is derived from these records.

A new command needs a record here, a module in grpo_cli/commands/ and, if it takes settings, a file in conf/ and a loop.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from grpo_cli.bounds import settings_faults
from grpo_cli.config.supervised import RewardModelTask, SFTTask
from grpo_cli.config.tasks import AnalyzeTask, EvalTask, ExportTask, SampleTask
from grpo_cli.config.train import TrainConfig
from grpo_cli.errors import raise_if_any


@dataclass(frozen=True)
class Command:
    """What the rest of the project needs to know about a command."""

    summary: str
    settings: type | None = None  # if set, a Hydra app whose module has run(composed); otherwise main(arguments)
    conf: str | None = None  # the command whose settings it takes, if these are not its own
    sweeps: bool = True  # whether --multirun is allowed
    loops: Mapping[str, str] = field(default_factory=dict)  # what each rank runs: name -> module:function
    saves: bool = False  # whether it writes checkpoints and resumes from them
    leaves_model: bool = False  # whether <run folder>/model is a language model


COMMANDS = {
    "train": Command(
        "train a base model by reinforcement learning on rewards that a program can check",
        settings=TrainConfig,
        loops={"train": "grpo_cli.training.grpo:train"},
        saves=True,
        leaves_model=True,
    ),
    "plan": Command(
        "estimate what a training run needs: batches, steps, memory, time",
        settings=TrainConfig,
        conf="train",
        sweeps=False,
    ),
    "sft": Command(
        "fine-tune a model on demonstrations",
        settings=SFTTask,
        loops={"sft": "grpo_cli.training.sft:sft"},
        saves=True,
        leaves_model=True,
    ),
    "reward-model": Command(
        "train a model that scores responses, on pairs of a better and a worse one",
        settings=RewardModelTask,
        loops={"reward-model": "grpo_cli.training.reward_model:train_reward_model"},
        saves=True,
    ),
    "eval": Command(
        "measure a model or a checkpoint on benchmarks, with confidence intervals",
        settings=EvalTask,
        loops={"eval": "grpo_cli.evaluation.evaluate:evaluate"},
    ),
    "analyze": Command(
        "look at a base model before training it",
        settings=AnalyzeTask,
        loops={
            "analyze": "grpo_cli.evaluation.analyze_base:analyze",
            "judge": "grpo_cli.evaluation.analyze_base:judge",
        },
    ),
    "sample": Command(
        "sample responses to the training problems and keep the good ones",
        settings=SampleTask,
        loops={"sample": "grpo_cli.rejection.sampling:sample"},
    ),
    "pipeline": Command("run several commands as stages, such as DeepSeek-R1's four"),
    "science": Command("repeat claims of the field, and say which are confirmed"),
    "export": Command(
        "write or push the model of a run in the format of transformers and vLLM", settings=ExportTask, sweeps=False
    ),
    "report": Command("the page of a run: is it learning, and what does it say?"),
    "runs": Command("list past runs and how to resume them, or remove empty ones"),
    "show": Command("print a problem and its responses at a step of a run"),
    "list": Command("list the choices of each config group, with one line about each"),
    "copy": Command("copy a config file, to start one of your own"),
    "sweep-report": Command("the leaderboard and plots of a sweep"),
    "grade": Command("score responses from a file, and say why each reward was given"),
    "doctor": Command("check whether this machine can train, and say what is wrong"),
}

SCHEMAS: dict[str, type] = {
    name: command.settings for name, command in COMMANDS.items() if command.settings and command.conf is None
}
LOOPS = {loop: target for command in COMMANDS.values() for loop, target in command.loops.items()}
COMMAND_OF_LOOP = {loop: name for name, command in COMMANDS.items() for loop in command.loops}


def check_settings(config: Any) -> None:
    """Raise one ConfigError that lists every fault of a command's settings."""
    raise_if_any(list(settings_faults(config)))
