"""`run.*`, `resume.*`, `checkpoint.*` and `logger.*`: what a run writes, and how it is resumed."""

from dataclasses import dataclass, field

from omegaconf import MISSING

from grpo_cli.bounds import number
from grpo_cli.choices import TrackerName, WandbMode


@dataclass
class RunConfig:
    """The run's name and folder."""

    name: str = "train"
    """Last part of the run folder's name."""
    dir: str = MISSING
    """The run folder; it is never overwritten."""


@dataclass
class ResumeConfig:
    """`resume=...` on the command line is short for `resume.run=...`."""

    run: str = "never"
    """The folder of the run to resume; auto: resume run.dir if it has a checkpoint; never: start a new run."""
    allow: list[str] = field(default_factory=list)
    """Settings that may differ from the run's although they change the results."""
    trust: bool = False
    """Resume a run that another account wrote or changed. Code that its settings name runs as you."""


@dataclass
class CheckpointConfig:
    """When checkpoints are written, and which are kept."""

    every_steps: int = number(100, at_least=0)
    """Steps between checkpoints, besides those at the end and when the run is stopped; 0: only those."""
    keep_last: int = number(2, at_least=1)
    """Number of newest checkpoints to keep; the newest one known to be healthy is also kept."""
    keep_every: int = number(0, at_least=0)
    """Also keep checkpoints whose step is a multiple of this; 0: none."""
    keep_best: str | None = None
    """Also write and keep the checkpoint with the best value of a metric, such as eval/heldout/avg."""


@dataclass
class LoggerConfig:
    """What is shown and logged."""

    trackers: list[TrackerName] = field(default_factory=lambda: [TrackerName.wandb])
    """Services that get the metrics besides metrics.jsonl; []: none."""
    console: bool = True
    """Show the metrics of each step on the terminal."""
    project: str | None = None
    """Project in W&B and Trackio; WANDB_PROJECT or r1zero if not set."""
    entity: str | None = None
    """W&B entity; W&B's default if not set."""
    group: str | None = None
    """Group in W&B and Trackio; WANDB_RUN_GROUP or the sweep's name if not set."""
    mode: WandbMode = WandbMode.auto
    """Whether W&B uploads."""
    groups_per_step: int = number(8, at_least=0)
    """Prompts of each step whose responses are kept in rollouts/; 0: none."""
    heldout_groups: int = number(32, at_least=0)
    """Held-out problems whose greedy responses are kept at each evaluation; 0: none."""
    token_values: bool = False
    """Also keep each token's log-probabilities and entropy, for the responses of groups_per_step. It costs two forward
    passes of these responses, one before the update and one after."""
    replayable: bool = False
    """Store each step's responses with their tokens and log-probabilities, so that replay=<this run's folder> can train
    on them. It takes about 6 bytes per token: 15 MB for a step of 1,024 responses of 2,500 tokens."""
    upload_model: bool = False
    """Upload the trained model to W&B as an artifact."""
    samples_every: int = number(20, at_least=0)
    """Steps between W&B tables of the kept responses; 0: none."""
    verbose: bool = False
    """Show what vLLM, DeepSpeed and W&B print; otherwise it goes to logs/ in the run folder."""
