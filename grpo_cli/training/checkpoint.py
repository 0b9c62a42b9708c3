"""Checkpoints of a run: weights, optimizer, the position in the data, random states, the step, the settings.

`<run folder>/checkpoints/step_000100/` holds DeepSpeed's files in `deepspeed/`, each rank's random states in `random/`,
`state.json`, `config.yaml`, and `manifest.json` with the size and the hash of every other file. It is written beside,
brought to the disk and moved into place, so that a folder of that name is whole unless something damaged it later.
"""

import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy
import torch
from omegaconf import OmegaConf

from grpo_cli.data.sampler import EpochSampler
from grpo_cli.errors import CheckpointError
from grpo_cli.ranks import gather, rank, world_size

MANIFEST = "manifest.json"
NAME = "step_" + "[0-9]" * 6
UNFINISHED, REMOVED = ".partial", ".removed"


class Learner(Protocol):
    """What learns: it writes its whole state to a folder, each rank its part, and takes it up again."""

    def save(self, folder: Path) -> None: ...

    def load(self, folder: Path) -> bool:
        """Whether the state had to be shared out anew."""


class Checkpoints:
    """The checkpoints of one run of `command`, of which `config` holds all settings."""

    def __init__(self, config: Any, command: str) -> None:
        self._config = config
        self._command = command
        self._run_dir = Path(config.run.dir)
        self._folder = self._run_dir / "checkpoints"

    def maybe_save(
        self, step: int, learner: Learner, sampler: EpochSampler, metrics: Mapping[str, float], *, must: bool
    ) -> None:
        """Save where `must` or the settings say so; then drop what they do not keep. Called on all ranks.

        `metrics` are those of the step, on all ranks. Raises CheckpointError where the disk does not take it; what was
        saved before is untouched then.
        """
        every = self._config.checkpoint.every_steps
        if not (must or (every and step % every == 0) or self._is_best(metrics)):
            return
        whole = self._folder / f"step_{step:06d}"
        try:
            self._write(whole, step, learner, sampler, metrics)
        except (OSError, RuntimeError) as error:  # torch makes a RuntimeError of a full disk
            free_mib = shutil.disk_usage(self._run_dir).free / 2**20
            shutil.rmtree(whole.with_suffix(UNFINISHED), ignore_errors=True)  # it may hold the room that is missing
            raise CheckpointError(
                f"The checkpoint of step {step} cannot be written to {whole} ({free_mib:.1f} MiB are free): {error}\n"
                "Make room or mend the folder. The same command with resume=auto then goes on from the checkpoint "
                "before it."
            ) from error
        if rank() == 0:
            self._drop_old()

    def _is_best(self, metrics: Mapping[str, float]) -> bool:
        name = self._config.checkpoint.keep_best
        if name not in metrics:
            return False
        is_best = False
        if rank() == 0:  # which alone adds and drops folders
            folders = whole_checkpoints(self._run_dir)
            before = [value for folder in folders if (value := _metric(folder, name)) is not None]
            is_best = not before or metrics[name] > max(before)
        return gather(is_best)[0]

    def _write(
        self, whole: Path, step: int, learner: Learner, sampler: EpochSampler, metrics: Mapping[str, float]
    ) -> None:
        partial = whole.with_suffix(UNFINISHED)
        if rank() == 0:
            shutil.rmtree(partial, ignore_errors=True)
            (partial / "random").mkdir(parents=True)
            state = {
                "command": self._command,
                "step": step,
                "sampler": sampler.state_dict(),
                "metrics": {name: value for name, value in metrics.items() if name.startswith("eval/")},
                "wandb": {"id": _wandb_id(self._run_dir), "step": step},
                "world_size": world_size(),
                "zero_stage": self._config.cluster.zero_stage,
            }
            (partial / "state.json").write_text(json.dumps(state, indent=1))
            OmegaConf.save(OmegaConf.structured(self._config), partial / "config.yaml")
        gather(None)  # the folder is there
        learner.save(partial / "deepspeed")
        torch.save(_random_states(), partial / "random" / f"rank_{rank():05d}.pt")
        gather(None)  # so are all files
        entries = gather({name: _entry(partial / name) for name in _share(_files(partial))})
        if rank() == 0:
            files = {name: entry for share in entries for name, entry in share.items()}
            (partial / MANIFEST).write_text(json.dumps({"files": files}, indent=1, sort_keys=True))
            for path in [partial / MANIFEST, *_folders(partial)]:
                _sync(path)
            _remove(whole)
            partial.rename(whole)
            _sync(self._folder)
        gather(None)  # no rank goes on before the checkpoint is in place

    def _drop_old(self) -> None:
        keep = self._config.checkpoint
        folders = whole_checkpoints(self._run_dir)
        kept = set(folders[: keep.keep_last])
        if keep.keep_every:
            kept |= {folder for folder in folders if _step(folder) % keep.keep_every == 0}
        if keep.keep_best is not None:
            values = {folder: value for folder in folders if (value := _metric(folder, keep.keep_best)) is not None}
            kept |= {max(values, key=lambda folder: (values[folder], -_step(folder)))} if values else set()
        for folder in folders:
            if folder not in kept:
                _remove(folder)

    def load_latest(self, learner: Learner, sampler: EpochSampler, say: Callable[[str], None]) -> int:
        """Bring learner, sampler and random states to the last whole checkpoint; the step it was taken after, 0 where
        there is none. Called on all ranks.

        What is left of one that was not finished is removed, and one that is damaged is put aside; both are said.
        Raises CheckpointError where there are checkpoints and none is whole.
        """
        found = sorted(self._folder.glob(NAME), reverse=True)
        left_over = sorted(path for end in (UNFINISHED, REMOVED) for path in self._folder.glob(NAME + end))
        faults = {}
        for folder in found:
            if fault := _damage_seen_by_all(folder):
                faults[folder] = fault
                continue
            break
        else:
            folder = None
        gather(None)  # every rank has seen the folders as they were
        if rank() == 0:
            for left in left_over:
                say(f"{left} was being written or removed when an earlier start ended. It is removed.")
                shutil.rmtree(left)
        if folder is None:
            if faults:
                listed = "\n".join(faults.values())
                raise CheckpointError(
                    f"No checkpoint of {self._run_dir} is whole:\n{listed}\nBring back a copy of one, or begin anew "
                    "in another run.dir."
                )
            return 0
        if rank() == 0:
            for damaged, fault in faults.items():
                aside = damaged.with_suffix(".damaged")
                shutil.rmtree(aside, ignore_errors=True)
                damaged.rename(aside)
                say(f"{fault} It is put aside as {aside.name}, and the run goes on from {folder.name}.")
        return self._load(folder, learner, sampler, say)

    def _load(self, folder: Path, learner: Learner, sampler: EpochSampler, say: Callable[[str], None]) -> int:
        try:
            state = json.loads((folder / "state.json").read_text())
            is_converted = learner.load(folder / "deepspeed")
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise CheckpointError(
                f"{folder} cannot be read: {type(error).__name__}: {error}\nMove it away to go on from the one "
                "before it."
            ) from error
        sampler.load_state_dict(state["sampler"])
        if is_converted:
            say(
                f"{folder} was written by {state['world_size']} rank(s) at ZeRO stage {state['zero_stage']} and is "
                "shared out anew. What follows is what an undisturbed run would do but for rounding."
            )
        states = folder / "random" / f"rank_{rank():05d}.pt"
        if states.is_file():
            _set_random_states(torch.load(states, weights_only=False))
        if rank() == 0 and (id := state["wandb"]["id"]) and _wandb_id(self._run_dir) is None:
            (self._run_dir / "wandb").mkdir(exist_ok=True)
            (self._run_dir / "wandb" / "run_id").write_text(id)
        return state["step"]


def whole_checkpoints(run_dir: Path) -> list[Path]:
    """The folders of a run's checkpoints, the newest first."""
    return sorted((path.parent for path in (run_dir / "checkpoints").glob(f"{NAME}/{MANIFEST}")), reverse=True)


def check_whole(checkpoint: Path) -> None:
    """Raise CheckpointError where a file of a checkpoint is missing or is not what was written."""
    if fault := _damage(checkpoint, share=lambda names: names):
        raise CheckpointError(f"{fault} Give another checkpoint of the run.")


def _damage_seen_by_all(folder: Path) -> str | None:
    """What is wrong with a checkpoint; each rank looks at its share of the files. Called on all ranks."""
    return next(filter(None, gather(_damage(folder, _share))), None)


def _damage(folder: Path, share: Callable[[Sequence[str]], Sequence[str]]) -> str | None:
    try:
        files = json.loads((folder / MANIFEST).read_text())["files"]
    except FileNotFoundError:
        return f"{folder} is not whole: it has no {MANIFEST}, which is written last."
    except (OSError, ValueError, KeyError) as error:
        return f"{folder} is damaged: {MANIFEST} cannot be read ({error})."
    for name in share(sorted(files)):
        path, wanted = folder / name, files[name]
        try:
            size = path.stat().st_size
            if size != wanted["size"]:
                return f"{folder} is damaged: {name} has {size} bytes, and {wanted['size']} were written."
            if _hash(path) != wanted["sha256"]:
                return f"{folder} is damaged: {name} is not what was written (another SHA-256)."
        except OSError as error:
            return f"{folder} is damaged: {name} cannot be read ({error.strerror})."
    return None


def _share(names: Sequence[str]) -> Sequence[str]:
    """This rank's part of the files, so that no rank reads them all."""
    return names[rank() :: world_size()]


def _files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def _folders(folder: Path) -> list[Path]:
    return [folder, *(path for path in folder.rglob("*") if path.is_dir())]


def _entry(path: Path) -> dict[str, Any]:
    """A file's line in the manifest, once it has reached the disk."""
    _sync(path)
    return {"size": path.stat().st_size, "sha256": _hash(path)}


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Let what was written to a file, or the names in a folder, outlive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(folder: Path) -> None:
    """Not in its place: what is left of a folder that was half removed must not look whole."""
    if folder.exists():
        doomed = folder.with_suffix(REMOVED)
        shutil.rmtree(doomed, ignore_errors=True)
        folder.rename(doomed)
        shutil.rmtree(doomed)


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step_"))


def _metric(folder: Path, name: str) -> float | None:
    """An evaluation's figure at the step of a checkpoint."""
    return json.loads((folder / "state.json").read_text())["metrics"].get(name)


def _wandb_id(run_dir: Path) -> str | None:
    path = run_dir / "wandb" / "run_id"
    return path.read_text() if path.is_file() else None


def _random_states() -> dict[str, Any]:
    return {
        "python": random.getstate(),
        "numpy": numpy.random.get_state(),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def _set_random_states(states: Mapping[str, Any]) -> None:
    random.setstate(states["python"])
    numpy.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"])
    if states["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
