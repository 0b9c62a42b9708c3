"""Checkpoints of a run: weights, optimizer, position in the data, random states, step and settings.

`<run folder>/checkpoints/step_000100/` holds DeepSpeed's files in `deepspeed/`, each rank's random states in `random/`,
`state.json`, `config.yaml`, and `manifest.json` with the size and the hash of every other file. It is written under
another name, flushed to the disk and renamed: a folder of that name is complete, unless something damaged it later.
"""

import json
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Protocol

from grpo_cli.config.best import is_better_low
from grpo_cli.config.grammar import resuming
from grpo_cli.data.sampler import EpochSampler
from grpo_cli.errors import CheckpointError, DivergedError
from grpo_cli.jsonl import json_text
from grpo_cli.metrics.run_id import kept_id, restore_id
from grpo_cli.ranks import gather, rank, world_size
from grpo_cli.runs.frozen import frozen_text
from grpo_cli.runs.resume import MANIFEST, changes, checkpoint_folders, settings_in, step_of, whole_checkpoints
from grpo_cli.training import checkpoint_files as files
from grpo_cli.training.checkpoint_files import DOUBTED, PROVED, UNFINISHED
from grpo_cli.training.divergence import divergence
from grpo_cli.training.random_states import load_random_states, save_random_states
from grpo_cli.training.signed import check_signed, signed_manifest

DATA = ("data.", "template.", "model.", "rollout.max_prompt_tokens")  # settings that determine the sampler's items


class Learner(Protocol):
    """A model in training. It writes its state to a folder, each rank its part, and loads it again."""

    def save(self, folder: Path) -> None: ...

    def load(self, folder: Path) -> bool:
        """Returns whether the state had to be resharded."""


class Checkpoints:
    """The checkpoints of one run of `command` with the settings `config`. `say` prints a line."""

    def __init__(self, config: Any, command: str, say: Callable[[str], None]) -> None:
        self._config = config
        self._command = command
        self._say = say
        self._run_dir = Path(config.run.dir)
        self._folder = self._run_dir / "checkpoints"
        self._times: dict[str, float] = {}

    def times(self) -> dict[str, float]:
        """`time/checkpoint`: how many seconds the last save took. Empty if none was made since the last call."""
        times, self._times = self._times, {}
        return times

    def maybe_save(
        self, step: int, learner: Learner, sampler: EpochSampler, metrics: Mapping[str, float], *, must: bool
    ) -> None:
        """Save a checkpoint if `must` or if it is due, then delete those that are no longer kept. Called on all ranks.

        `metrics` are the step's, the same on all ranks. They show whether the checkpoints before it are healthy; the
        last healthy checkpoint is kept until a later one is healthy. After a step that diverged, nothing is saved
        unless `must`. Raises CheckpointError if the disk is full or fails; earlier checkpoints are then unchanged.
        """
        fault = divergence(metrics)
        if rank() == 0:
            self._judge_earlier(step, fault)
        every = self._config.checkpoint.every_steps
        if not (must or (every and step % every == 0) or self._is_best(metrics)):
            return
        if fault and not must:
            self._say(f"warning: no checkpoint of step {step} is saved, because {fault}.")
            return
        whole = self._folder / f"step_{step:06d}"
        started = time.perf_counter()
        try:
            self._write(whole, step, learner, sampler, metrics)
            self._times = {"time/checkpoint": time.perf_counter() - started}
        except DivergedError:
            shutil.rmtree(whole.with_suffix(UNFINISHED), ignore_errors=True)
            raise
        except (OSError, RuntimeError) as error:  # torch raises a RuntimeError if the disk is full
            free_mib = shutil.disk_usage(self._run_dir).free / 2**20
            shutil.rmtree(whole.with_suffix(UNFINISHED), ignore_errors=True)  # free the space that it takes
            raise CheckpointError(
                f"The checkpoint of step {step} cannot be written to {whole} ({free_mib:.1f} MiB are free): {error}\n"
                f"Free some space or fix the folder. Then {resuming(self._run_dir)} resumes from the checkpoint before "
                "it."
            ) from error
        if rank() == 0:
            if fault:
                files.set_health(whole, DOUBTED)
            self._drop_old()

    @contextmanager
    def advice(self) -> Iterator[None]:
        """A context that adds to a DivergedError how to resume from the last healthy checkpoint."""
        try:
            yield
        except DivergedError as error:
            healthy = [folder for folder in whole_checkpoints(self._run_dir) if files.health(folder) == PROVED]
            if rank() == 0:
                self._doubt_unproved()
            lower = f"optimizer.lr={self._config.optimizer.lr / 10:g}"
            if healthy:
                advice = (
                    f"The last healthy checkpoint is {healthy[0].name}. Resume from it with a lower learning rate: "
                    f"r1zero {self._command} {resuming(self._run_dir)} {lower} resume.allow=[optimizer.lr]"
                )
            else:
                advice = f"No healthy checkpoint was saved before. Start again in another run.dir with {lower}."
            raise DivergedError(f"{error} {advice}") from error

    def _judge_earlier(self, step: int, fault: str | None) -> None:
        """Record what this step shows about the checkpoints before it."""
        if fault:
            self._doubt_unproved()
            return
        earlier = [folder for folder in whole_checkpoints(self._run_dir) if step_of(folder) < step]
        if earlier and files.health(earlier[0]) != PROVED:
            for folder in earlier:
                files.set_health(folder, PROVED)
            self._drop_old()

    def _doubt_unproved(self) -> None:
        for folder in whole_checkpoints(self._run_dir):
            if files.health(folder) == PROVED:
                break
            files.set_health(folder, DOUBTED)

    def _is_best(self, metrics: Mapping[str, float]) -> bool:
        name = self._config.checkpoint.keep_best
        if not math.isfinite(metrics.get(name, math.nan)):
            return False
        is_best = False
        if rank() == 0:  # the only rank that adds and deletes folders
            folders = whole_checkpoints(self._run_dir)
            before = [value for folder in folders if (value := _metric(folder, name)) is not None]
            is_best = not before or _rising(name, metrics[name]) > max(before)
        return gather(is_best)[0]

    def _write(
        self, whole: Path, step: int, learner: Learner, sampler: EpochSampler, metrics: Mapping[str, float]
    ) -> None:
        partial = whole.with_suffix(UNFINISHED)
        if rank() == 0:
            shutil.rmtree(partial, ignore_errors=True)
            (partial / "random").mkdir(parents=True)
            id, place = kept_id(self._run_dir)
            state = {
                "command": self._command,
                "step": step,
                "sampler": sampler.state_dict(),
                "metrics": {name: value for name, value in metrics.items() if name.startswith("eval/")},
                "wandb": {"id": id, "step": step, "run_dir": place},
                "world_size": world_size(),
                "zero_stage": self._config.cluster.zero_stage,
            }
            (partial / "state.json").write_text(json_text(state, indent=1), encoding="utf-8")
            (partial / "config.yaml").write_text(frozen_text(self._config), encoding="utf-8")
        gather(None)  # wait until the folder exists
        learner.save(partial / "deepspeed")
        save_random_states(partial / "random", rank())
        gather(None)  # wait until all files are written
        entries = gather({name: files.entry(partial / name) for name in files.share_of_rank(files.files_in(partial))})
        if rank() == 0:
            listed = {name: entry for share in entries for name, entry in share.items()}
            (partial / MANIFEST).write_text(signed_manifest(listed), encoding="utf-8")
            for path in [partial / MANIFEST, *files.folders_in(partial)]:
                files.sync(path)
            if whole.exists():
                files.remove(whole)
            partial.rename(whole)
            files.sync(self._folder)
        gather(None)  # wait until the checkpoint has its final name

    def _drop_old(self) -> None:
        keep = self._config.checkpoint
        folders = whole_checkpoints(self._run_dir)
        kept = set(folders[: keep.keep_last])
        kept |= set([folder for folder in folders if files.health(folder) == PROVED][:1])
        if keep.keep_every:
            kept |= {folder for folder in folders if step_of(folder) % keep.keep_every == 0}
        if keep.keep_best is not None:
            values = {folder: value for folder in folders if (value := _metric(folder, keep.keep_best)) is not None}
            kept |= {max(values, key=lambda folder: (values[folder], -step_of(folder)))} if values else set()
        for folder in folders:
            if folder not in kept and (fault := files.remove(folder)):
                self._say(f"warning: the old checkpoint {folder.name} cannot be removed: {fault}. The run continues.")

    def load_latest(self, learner: Learner, sampler: EpochSampler) -> int:
        """Load the last complete checkpoint into learner, sampler and random generators. Called on all ranks.

        Returns its step, or 0 if there is no checkpoint. A checkpoint after which the run diverged is skipped if an
        earlier one is healthy. Deletes unfinished checkpoints, renames damaged and skipped ones, and logs all of this.
        Raises CheckpointError if there are checkpoints but none is complete.
        """
        found = checkpoint_folders(self._run_dir)
        unfinished = sorted(path for end in (UNFINISHED, files.REMOVED) for path in self._folder.glob(f"step_*{end}"))
        doubted = gather([folder for folder in found if files.health(folder) == DOUBTED])[0]
        faults: dict[Path, str] = {}
        for folder in [*(path for path in found if path not in doubted), *doubted]:
            if fault := files.damage_seen_by_all(folder):
                faults[folder] = fault
                continue
            break
        else:
            folder = None
        gather(None)  # wait until every rank has checked the folders
        if rank() == 0:
            for leftover in unfinished:
                self._say(f"{leftover} was being written or removed when an earlier run ended. It is removed.")
                if fault := files.remove(leftover):
                    self._say(f"warning: it cannot be removed: {fault}. The run continues.")
        if folder is None:
            if faults:
                listed = "\n".join(faults.values())
                raise CheckpointError(
                    f"No checkpoint of {self._run_dir} is complete:\n{listed}\nRestore a copy of one, or start again "
                    "in another run.dir."
                )
            return 0
        if rank() == 0:
            for damaged, fault in faults.items():
                aside = files.put_aside(damaged, ".damaged")
                self._say(f"{fault} It is renamed to {aside.name}, and the run resumes from {folder.name}.")
            if folder in doubted:
                self._say(f"warning: the run diverged after {folder.name}, and there is no earlier checkpoint.")
            for later in (path for path in doubted if path not in faults and step_of(path) > step_of(folder)):
                aside = files.put_aside(later, ".diverged")
                self._say(
                    f"The run diverged after {later.name}. It is renamed to {aside.name}, and the run resumes from "
                    f"{folder.name}."
                )
        return self._load(folder, learner, sampler)

    def _check_signed(self, folder: Path) -> None:
        """Raise CheckpointError on all ranks if rank 0 finds that this account did not write the checkpoint."""
        fault = None
        if rank() == 0:
            try:
                check_signed(folder, "resume.trust", self._config.resume.trust)
            except CheckpointError as error:
                fault = str(error)
        if fault := gather(fault)[0]:
            raise CheckpointError(fault)

    def _load(self, folder: Path, learner: Learner, sampler: EpochSampler) -> int:
        self._check_signed(folder)
        changed = changes(settings_in(folder / "config.yaml", self._command), self._config, self._command)
        try:
            state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
            was_resharded = learner.load(folder / "deepspeed")
            load_random_states(folder / "random", rank())
        except (OSError, ValueError, KeyError, RuntimeError, UnpicklingError) as error:
            raise CheckpointError(
                f"{folder} cannot be read: {type(error).__name__}: {error}\nMove it away to resume from the one "
                "before it."
            ) from error
        for key, (before, after) in changed.items():
            self._say(f"From step {state['step'] + 1} on: {key}={after} ({before} before)")
        if not sampler.load_state_dict(state["sampler"], may_differ=any(key.startswith(DATA) for key in changed)):
            self._say(f"From step {state['step'] + 1} on: other data, from the beginning of their first epoch")
        if was_resharded:
            self._say(
                f"{folder} was written by {state['world_size']} rank(s) at ZeRO stage {state['zero_stage']} and is "
                "being resharded. Results match an uninterrupted run up to rounding."
            )
        if rank() == 0 and (id := state["wandb"]["id"]):
            restore_id(self._run_dir, id, state["wandb"].get("run_dir"))
        return state["step"]


def _metric(folder: Path, name: str) -> float | None:
    """A metric of the evaluation at a checkpoint's step, such that higher is better; None if it is not finite."""
    value = json.loads((folder / "state.json").read_text(encoding="utf-8"))["metrics"].get(name)
    return None if value is None or not math.isfinite(value) else _rising(name, value)


def _rising(name: str, value: float) -> float:
    return -value if is_better_low(name) else value
