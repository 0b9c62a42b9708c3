"""The rows of a data set, from a local file or from the Hub."""

import csv
import glob
import io
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from grpo_cli.errors import DataError, SetupError
from grpo_cli.jsonl import BOM, as_object, open_bytes, parse_json, read_objects

# From the row's place in the source, such as "line 17", to its fields by dotted name.
Rows = dict[str, dict[str, Any]]

HUB_TIMEOUT_S = 10.0


def read_path(path: str, split: str, key: str) -> Rows:
    """The rows of a JSONL, JSON or parquet file, or of an arrow folder; if it has splits, those of `split`.

    `key` is the prefix of the settings in messages, such as "data". Raises DataError, which names an invalid row.
    """
    location = Path(path).expanduser()
    if not location.exists():
        raise DataError(f"{path}: there is no such file or folder (looked in {Path.cwd()}). Fix {key}.path.")
    try:
        return _read_arrow_folder(location, split, key) if location.is_dir() else _read_file(location)
    except (OSError, EOFError, zlib.error) as fault:  # the last two of a damaged .gz
        raise DataError(f"{path} cannot be read: {fault}.") from fault


def read_hub(source: str, subset: str | None, file: str | None, revision: str | None, split: str, key: str) -> Rows:
    """The rows of a split of a Hub data set, or of one `file` in it; read from the cache if HF_HUB_OFFLINE=1.

    `key` is the prefix of the settings in messages, such as "data". Raises DataError if the Hub does not have the data,
    and SetupError if the Hub cannot be reached.
    """
    import datasets
    from huggingface_hub import HfApi, constants, errors, hf_hub_download

    not_found = (
        errors.RepositoryNotFoundError,  # a wrong name, or a private or gated data set
        errors.RevisionNotFoundError,
        errors.EntryNotFoundError,
        errors.HFValidationError,
        datasets.exceptions.DatasetNotFoundError,
    )
    try:
        if not constants.HF_HUB_OFFLINE:
            # Checked first, because load_dataset retries for minutes before it fails.
            HfApi().dataset_info(source, revision=revision, timeout=HUB_TIMEOUT_S)
        if file is None:
            table = datasets.load_dataset(source, subset, split=split, revision=revision)
        else:
            cached = hf_hub_download(source, file, repo_type="dataset", revision=revision)
    except errors.LocalEntryNotFoundError as fault:  # an EntryNotFoundError, but caused by a missing network
        raise _hub_unreachable(source, key, fault) from fault
    except not_found as fault:
        wanted = [source, revision and f"revision {revision}", file and f"file {file}"]
        raise DataError(
            f"The Hub does not have {', '.join(filter(None, wanted))}, or does not show it to you: {fault}\n"
            f"Check the name in {key}.source, log in with `hf auth login` if it is private or gated, or give a "
            f"local copy with {key}.path=<file>."
        ) from fault
    except (ValueError, FileNotFoundError, datasets.exceptions.DatasetsError) as fault:
        raise DataError(
            f"The Hub data set {source} cannot be loaded with {key}.subset={subset or 'null'} and "
            f"{key}.split={split}: {fault.__cause__ or fault}"
        ) from fault
    except (OSError, errors.HTTPError) as fault:
        raise _hub_unreachable(source, key, fault) from fault
    return _number(table) if file is None else _read_file(Path(cached))


def _hub_unreachable(source: str, key: str, fault: Exception) -> SetupError:
    return SetupError(
        f"The data set {source} cannot be downloaded from the Hub ({type(fault).__name__}: {fault}).\n"
        f"Give a local copy with {key}.path=<file>. Or run this once on a machine with a network, copy its folder "
        "HF_HOME (~/.cache/huggingface unless set) to this machine, and set HF_HUB_OFFLINE=1."
    )


def _read_file(path: Path) -> Rows:
    kind = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    if kind in (".jsonl", ".json"):
        return _read_json(path)
    if kind == ".csv":
        return _read_csv(path)
    if path.suffix == ".parquet":
        return _read_parquet(path)
    raise DataError(
        f"{path}: unsupported file type. Give a .jsonl, .json, .csv (or one of these with .gz) or .parquet file, or an "
        "arrow folder."
    )


def _read_json(path: Path) -> Rows:
    # Not with `datasets`: its JSON reader guesses types, and turns dates into timestamps and "007" into a number.
    with open_bytes(path) as file:
        content = file.read(1024).removeprefix(BOM).lstrip()
        if content.startswith(b"["):
            content += file.read()
    if content.startswith(b"["):
        rows = parse_json(content, f"{path}")
        return {f"row {n}": flatten(as_object(row, f"{path}, row {n}")) for n, row in enumerate(rows, start=1)}
    return {f"line {number}": flatten(row) for number, row in read_objects(path)}


def _read_csv(path: Path) -> Rows:
    """Every value is text; an empty one counts as missing."""
    try:
        with io.TextIOWrapper(open_bytes(path), encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            rows: Rows = {f"line {reader.line_num}": row for row in reader}
    except (csv.Error, UnicodeDecodeError) as fault:
        raise DataError(f"{path} cannot be read as a CSV file: {fault}.") from fault
    if uneven := next((place for place, row in rows.items() if None in row or None in row.values()), None):
        raise DataError(f"{path}, {uneven}: it has another number of columns than the first line. Fix it.")
    return rows


def _read_parquet(path: Path) -> Rows:
    import datasets

    name = glob.escape(str(path))  # load_dataset expects a pattern
    try:
        # Streaming leaves no copy in a cache. Without a batch size, a file without rows would be an error.
        table = datasets.load_dataset("parquet", data_files=name, split="train", streaming=True, batch_size=1000)
        return _number(table)
    except (ValueError, datasets.exceptions.DatasetsError) as fault:
        raise DataError(f"{path} cannot be read as a parquet file: {fault}.") from fault


def _read_arrow_folder(path: Path, split: str, key: str) -> Rows:
    import datasets

    try:
        stored = datasets.load_from_disk(str(path))
    except (FileNotFoundError, ValueError) as fault:
        raise DataError(
            f"{path} is not an arrow folder: {fault} Give a folder that save_to_disk of the library `datasets` wrote, "
            "or a .jsonl, .csv or .parquet file."
        ) from fault
    if isinstance(stored, datasets.Dataset):
        return _number(stored)
    if split not in stored:
        splits = list(stored)
        raise DataError(f"{path} has no split {split!r}, only {splits}. Set {key}.split={splits[0]}.")
    return _number(stored[split])


def _number(table: Iterable[Mapping[str, Any]]) -> Rows:
    return {f"row {n}": flatten(row) for n, row in enumerate(table, start=1)}


def flatten(row: Mapping[str, Any] | list[Any], prefix: str = "") -> dict[str, Any]:
    """The fields of a row, with dotted names for nested ones: {"a": {"b": [7]}} becomes {"a.b.0": 7}."""
    flat: dict[str, Any] = {}
    for name, value in row.items() if isinstance(row, Mapping) else enumerate(row):
        if isinstance(value, Mapping | list) and value:
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The reverse of `flatten`: {"a.b.0": 7} becomes {"a": {"b": [7]}}."""
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        head, dot, rest = name.partition(".")
        if dot:
            nested.setdefault(head, {})[rest] = value
        else:
            nested[head] = value
    return {name: value if name in flat else _as_list(unflatten(value)) for name, value in nested.items()}


def _as_list(value: dict[str, Any]) -> dict[str, Any] | list[Any]:
    """A list if the names are its positions."""
    return list(value.values()) if list(value) == [str(n) for n in range(len(value))] else value
