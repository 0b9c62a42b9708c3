"""The exact rollouts of a run, for `replay=<run folder>`: `<run folder>/rollouts/replay_<step>.npz`, one file per step.

Does not import torch.
"""

import io
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from grpo_cli.config.compose import plain
from grpo_cli.config.train import TrainConfig
from grpo_cli.errors import DataError
from grpo_cli.files import write_whole
from grpo_cli.jsonl import json_text
from grpo_cli.runs.rollouts import FOLDER
from grpo_cli.types import Completion


@dataclass(frozen=True, slots=True)
class StoredGroup:
    """Which prompt a group answers, and its place in the step."""

    problem: str  # its id
    prompt_ids: tuple[int, ...]
    rank: int  # that sampled it
    position: int | None  # among the groups of all ranks; None: dynamic sampling has discarded the group


def sampling_settings(config: TrainConfig) -> dict[str, Any]:
    """The settings by key that describe a step's responses. A run that trains on these responses needs the same."""
    no_effect = (
        "mismatch_limit",
        "max_prompt_tokens",
        "max_staleness",
        "oversample",
        "segment_tokens",
        "restart_engines",
    )
    settings = {f"rollout.{name}": value for name, value in plain(config.rollout).items() if name not in no_effect}
    if config.rollout.max_new_tokens_schedule:  # it counts optimizer steps
        settings |= {f"algorithm.{name}": getattr(config.algorithm, name) for name in ("num_minibatches", "num_epochs")}
    return json.loads(json_text(settings))


def replay_file(run_dir: Path, step: int) -> Path:
    """The file of the rollout of one step."""
    return run_dir / FOLDER / f"replay_{step:06d}.npz"


def write_step(file: Path, config: TrainConfig, groups: Sequence[tuple[StoredGroup, Sequence[Completion]]]) -> None:
    """Write the groups of a step with their responses. The same groups give the same bytes."""
    completions = [completion for _, of_group in groups for completion in of_group]
    logprobs = np.array([logprob for completion in completions for logprob in completion.logprobs], np.float64)
    single = logprobs.astype(np.float32)
    supports = [of_token for completion in completions for of_token in completion.support or ()]
    header = {"settings": sampling_settings(config), "groups": [asdict(group) for group, _ in groups]}
    content = io.BytesIO()
    np.savez_compressed(
        content,
        header=np.frombuffer(json_text(header).encode(), np.uint8),
        texts=np.frombuffer(json_text([completion.text for completion in completions]).encode(), np.uint8),
        truncated=np.array([completion.truncated for completion in completions]),
        group_size=np.array(len(groups[0][1])),
        lengths=np.array([len(completion.token_ids) for completion in completions]),
        token_ids=np.array([token for completion in completions for token in completion.token_ids], np.int32),
        has_support=np.array([completion.support is not None for completion in completions]),
        support_lengths=np.array([len(of_token) for of_token in supports], np.int32),
        supports=np.frombuffer(b"".join(supports), np.uint8),
        logprobs=single if np.array_equal(single, logprobs, equal_nan=True) else logprobs,
    )
    file.parent.mkdir(exist_ok=True)
    write_whole(file, content.getvalue())


def read_groups(file: Path) -> tuple[dict[str, Any], list[StoredGroup]]:
    """The `sampling_settings` of the run that wrote a step, and the groups. Raises DataError if the file is damaged."""
    with _arrays(file) as arrays:
        header = json.loads(arrays["header"].tobytes())
        groups = [StoredGroup(**row | {"prompt_ids": tuple(row["prompt_ids"])}) for row in header["groups"]]
        return header["settings"], groups


def read_completions(file: Path) -> list[tuple[Completion, ...]]:
    """The responses of each group of a step, exactly as they were sampled. Raises DataError if the file is damaged."""
    with _arrays(file) as arrays:
        ends = np.cumsum(arrays["lengths"])[:-1]
        columns = (
            [tuple(token_ids.tolist()) for token_ids in np.split(arrays["token_ids"], ends)],
            [tuple(logprobs.tolist()) for logprobs in np.split(arrays["logprobs"], ends)],
            json.loads(arrays["texts"].tobytes()),
            arrays["truncated"].tolist(),
            _supports(arrays),
        )
        completions = [Completion(*fields) for fields in zip(*columns, strict=True)]
        group_size = int(arrays["group_size"])
        return [tuple(completions[first : first + group_size]) for first in range(0, len(completions), group_size)]


def _supports(arrays: Mapping[str, np.ndarray]) -> list[tuple[bytes, ...] | None]:
    """The supports of each response's tokens; None if it was sampled from the whole vocabulary."""
    ends, content = np.cumsum(arrays["support_lengths"]).tolist(), arrays["supports"].tobytes()
    of_tokens = iter([content[first:end] for first, end in zip([0, *ends], ends, strict=False)])
    lengths = zip(arrays["has_support"].tolist(), arrays["lengths"].tolist(), strict=True)
    return [tuple(islice(of_tokens, length)) if has_support else None for has_support, length in lengths]


@contextmanager
def _arrays(file: Path) -> Iterator[Mapping[str, np.ndarray]]:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            yield arrays
    except (OSError, EOFError, BadZipFile, zlib.error, ValueError, KeyError, TypeError) as fault:
        raise DataError(
            f"{file} cannot be read: {getattr(fault, 'strerror', None) or fault}. Restore a copy of it, or lower steps "
            "to replay only the steps before it."
        ) from fault
