"""The groups of responses that a page shows: as many of those in `rollouts/` as fit into its size."""

import json
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any

from grpo_cli.jsonl import read_objects
from grpo_cli.runs.rollouts import Split, TokenValues, kept_steps, rollout_file

SPLITS = {Split.heldout: 0.35, Split.train: 1.0}  # the share of the room that is left for each, in this order
LEAST_GROUPS = {Split.heldout: 8, Split.train: 2}  # of a step, if a run has too many to show all
HEAD, TAIL = 4000, 2000  # characters of a longer response that are shown
TOKEN_VALUES = tuple(field.name for field in fields(TokenValues))

Group = dict[str, Any]


@dataclass(frozen=True)
class Kept:
    """`groups` by step; `notes` say what is not shown."""

    groups: list[Group]
    notes: list[str]


def read_kept(run_dir: Path, room: int) -> Kept:
    """Groups of `<run_dir>/rollouts/` that need about `room` bytes when they are compressed.

    Steps are added from the ends to the middle (first, last, half, quarters, ...) until the room is used, so that only
    what is shown is read. All steps show the same number of groups; held-out ones come first. Raises DataError if a
    file is damaged.
    """
    groups: list[Group] = []
    notes: list[str] = []
    for split, share in SPLITS.items():
        files = [rollout_file(run_dir, split, step) for step in kept_steps(run_dir, split)]
        found, used, note = _read_split(split, files, int(share * room))
        groups += found
        notes += note
        room -= used
    if any(response.get("cut") for group in groups for response in group["responses"]):
        notes.append(f"The first {HEAD:,} and the last {TAIL:,} characters of a longer response.")
    return Kept(sorted(groups, key=lambda group: group["step"]), notes)


def _read_split(split: Split, files: Sequence[Path], room: int) -> tuple[list[Group], int, list[str]]:
    """The groups, their compressed size, and what is left out."""
    if not files:
        return [], 0, []
    on_disk = sum(file.stat().st_size for file in files)
    if on_disk <= room:
        return [group for file in files for group in _groups(file)], on_disk, []
    first = list(_groups(files[0]))
    size = max(1, _size(first) // max(1, len(first)))
    most = max(LEAST_GROUPS[split], room // size // len(files))
    groups: list[Group] = []
    used = num_files = 0
    is_cut = False
    for number in spread(len(files)):
        found = list(islice(_groups(files[number]), most + 1))
        shown = found[:most]
        needed = _size(shown)
        if used + needed > room and num_files:
            break
        groups += shown
        used += needed
        num_files += 1
        is_cut |= len(found) > most
    name = {"heldout": "held-out", "train": "training"}[split]
    notes = []
    if num_files < len(files):
        notes.append(f"{num_files} of {len(files)} steps with {name} groups, evenly spread.")
    if is_cut:
        notes.append(f"The first {most} {name} groups of a step.")
    return groups, used, notes


def _groups(file: Path) -> Iterator[Group]:
    for _, row in read_objects(file, drop_unfinished=True):
        yield row | {"responses": [_trimmed(response) for response in row["responses"]]}


def _trimmed(response: Mapping[str, Any]) -> dict[str, Any]:
    """The response as the page needs it: long texts are cut in the middle, numbers rounded."""
    trimmed = {key: value for key, value in response.items() if key not in TOKEN_VALUES}
    trimmed |= {name: _rounded(response.get(name), 5) for name in ("reward", "advantage")}
    trimmed["terms"] = {name: _rounded(value, 4) for name, value in response["terms"].items()}
    if "token_texts" in response:
        trimmed |= {key: [_rounded(value, 3) for value in response[key]] for key in TOKEN_VALUES if response.get(key)}
    if len(text := response["text"]) > HEAD + TAIL:
        trimmed |= {"text": text[:HEAD], "tail": text[-TAIL:], "cut": len(text) - HEAD - TAIL}
    return trimmed


def _rounded(value: Any, digits: int) -> Any:
    """A number with fewer digits, null for nan; texts as they are."""
    if isinstance(value, float):
        return round(value, digits) if math.isfinite(value) else None
    return value


def _size(groups: Sequence[Group]) -> int:
    return len(zlib.compress(json.dumps(groups).encode(), 1))


def spread(num: int) -> Iterator[int]:
    """The numbers 0 to num - 1, so that each beginning of the list is spread evenly.

    >>> list(spread(6))
    [0, 5, 2, 1, 3, 4]
    """
    given = set()
    for number in (0, num - 1):
        if 0 <= number < num and number not in given:
            given.add(number)
            yield number
    gaps = [(0, num - 1)]
    while gaps:
        low, high = gaps.pop(0)
        if high - low > 1:
            middle = (low + high) // 2
            if middle not in given:
                given.add(middle)
                yield middle
            gaps += [(low, middle), (middle, high)]
