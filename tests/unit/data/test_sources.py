"""Rows from files and from the hub, and the errors for invalid ones."""

import gzip
import json
import time

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants

from grpo_cli.data.sources import flatten, read_hub, read_path
from grpo_cli.errors import DataError, SetupError

ROWS = [{"id": "a", "problem": "1+1?", "answer": "2"}, {"id": "b", "problem": "2+2?", "answer": "4"}]
NUMBERED = {"row 1": ROWS[0], "row 2": ROWS[1]}


def jsonl(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


GOOD = jsonl(ROWS[0])


def write(path, content):
    path.write_bytes(content)
    return str(path)


def from_file(path, split="train"):
    return read_path(path, split, "data")


def from_hub(source, subset=None, file=None, revision=None, split="train"):
    return read_hub(source, subset, file, revision, split, "data")


# ------------------------------------------------------------ files


def test_a_jsonl_row_is_named_by_its_line_and_blank_lines_count(tmp_path):
    path = write(tmp_path / "a.jsonl", b"\xef\xbb\xbf" + jsonl(ROWS[0]) + b"\n\r\n" + jsonl(ROWS[1]))
    assert from_file(path) == {"line 1": ROWS[0], "line 4": ROWS[1]}


@pytest.mark.parametrize("indent", [None, 2])
def test_a_json_array_is_read_as_rows(tmp_path, indent):
    assert from_file(write(tmp_path / "a.json", json.dumps(ROWS, indent=indent).encode())) == NUMBERED


def test_json_values_keep_their_types(tmp_path):
    # A reader that guesses types would turn these into a timestamp, a float or a number.
    answers = ["2020-01-01", 12345678901234567890123, "007", 5]
    rows = from_file(write(tmp_path / "a.jsonl", jsonl(*({"answer": a} for a in answers))))
    assert [row["answer"] for row in rows.values()] == answers


def test_a_parquet_file_is_read_as_rows(tmp_path):
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a[1].parquet")
    assert from_file(str(tmp_path / "a[1].parquet")) == NUMBERED


def test_a_csv_file_gives_text_as_it_is_written(tmp_path):
    content = '\ufeffid,problem,answer\n7,"A, ""quoted""\ntext",007\n8,é,\n'.encode()
    expected = {
        "line 3": {"id": "7", "problem": 'A, "quoted"\ntext', "answer": "007"},
        "line 4": {"id": "8", "problem": "é", "answer": ""},
    }
    assert from_file(write(tmp_path / "a.csv", content)) == expected
    assert from_file(write(tmp_path / "a.csv.gz", gzip.compress(content))) == expected


def test_compressed_json_is_read_like_the_plain_file(tmp_path):
    for name, content in (("a.jsonl", jsonl(*ROWS)), ("a.json", json.dumps(ROWS * 200).encode())):
        compressed = write(tmp_path / f"{name}.gz", gzip.compress(content))
        assert from_file(compressed) == from_file(write(tmp_path / name, content))


def test_a_file_without_rows_gives_no_rows(tmp_path):
    pq.write_table(pa.Table.from_pylist(ROWS).slice(0, 0), tmp_path / "a.parquet")
    assert from_file(str(tmp_path / "a.parquet")) == {}
    assert from_file(write(tmp_path / "a.jsonl", b"\n")) == {}
    assert from_file(write(tmp_path / "a.json", b"[]")) == {}


def test_an_arrow_folder_is_read_as_rows_whatever_the_split(tmp_path):
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "a")
    assert from_file(str(tmp_path / "a"), "validation") == NUMBERED


def test_an_arrow_folder_with_splits_gives_the_requested_one(tmp_path):
    splits = {"train": datasets.Dataset.from_list(ROWS), "test": datasets.Dataset.from_list(ROWS[1:])}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "a")
    assert from_file(str(tmp_path / "a")) == NUMBERED
    assert from_file(str(tmp_path / "a"), "test") == {"row 1": ROWS[1]}
    with pytest.raises(DataError, match=r"no split 'dev', only \['train', 'test'\]. Set data.split=train"):
        from_file(str(tmp_path / "a"), "dev")


def test_nested_fields_get_dotted_names():
    row = {"id": 7, "extra_info": {"answer": "72"}, "prompt": [{"content": "How many?"}]}
    assert flatten(row) == {"id": 7, "extra_info.answer": "72", "prompt.0.content": "How many?"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.jsonl",
            GOOD + b'{"problem": "x", "answer"\n' + GOOD,
            "a.jsonl, line 2 is not JSON: Expecting ':'",
        ),
        ("a.jsonl", GOOD + b'{"problem": "cut sho', "a.jsonl, line 2 is not JSON: Unterminated string"),
        ("a.jsonl", GOOD + '{"problem": "é"}'.encode("latin-1"), "a.jsonl, line 2 is not UTF-8"),
        ("a.jsonl", GOOD + b'"text"', 'a.jsonl, line 2: "text" is not a JSON object'),
        ("a.jsonl", GOOD + b"null", "a.jsonl, line 2: null is not a JSON object"),
        ("a.json", b'[{"id": "x"},\n {"id": }]', "a.json is not JSON: Expecting value at line 2, column 9"),
        ("a.json", b"[1]", "a.json, row 1: 1 is not a JSON object"),
        ("a.parquet", b"PAR1 and no more", "a.parquet cannot be read as a parquet file"),
        ("a.parquet", b"", "a.parquet cannot be read as a parquet file"),
        ("a.txt", b"problem,answer", "a.txt: unsupported file type. Give a .jsonl"),
        ("a.gz", b"", "a.gz: unsupported file type. Give a .jsonl"),
        ("a.csv", b"problem,answer\n1+1?\n", "a.csv, line 2: it has another number of columns than the first line"),
        ("a.csv", b"problem,answer\n1+1?,2,3\n", "a.csv, line 2: it has another number of columns"),
        ("a.csv", "problem,answer\né,2\n".encode("latin-1"), "a.csv cannot be read as a CSV file: 'utf-8' codec"),
        ("a.jsonl.gz", gzip.compress(GOOD, mtime=0)[:-9], "a.jsonl.gz cannot be read"),
        ("a.json.gz", b"no gzip", "a.json.gz cannot be read"),
    ],
)
def test_the_error_for_an_invalid_file_says_where_and_what_is_wrong(tmp_path, name, content, message):
    with pytest.raises(DataError) as error:
        from_file(write(tmp_path / name, content))
    assert message in str(error.value)


def test_the_error_for_a_missing_file_says_where_it_was_searched(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=rf"no/such.jsonl: .*looked in {tmp_path}.*data.path"):
        from_file("no/such.jsonl")


def test_the_error_for_a_folder_that_is_not_arrow_says_what_to_give(tmp_path):
    with pytest.raises(DataError, match=r"not an arrow folder: .* save_to_disk .* or a .jsonl, .csv or .parquet file"):
        from_file(str(tmp_path))


def test_a_tilde_stands_for_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "a.jsonl", jsonl(*ROWS))
    assert len(from_file("~/a.jsonl")) == 2


# ------------------------------------------------------------ the hub


def test_a_split_of_a_hub_data_set_is_read(hub):
    hub.files["me/sums"] = {"train.jsonl": jsonl(*ROWS), "test.jsonl": jsonl(ROWS[1])}
    assert from_hub("me/sums") == NUMBERED
    assert from_hub("me/sums", split="test") == {"row 1": ROWS[1]}


def test_a_subset_of_a_hub_data_set_is_read(hub):
    configs = [{"config_name": name, "data_files": f"{name}.jsonl"} for name in ("hard", "easy")]
    card = f"---\n{json.dumps({'configs': configs})}\n---"
    files = {
        "README.md": card.encode(),
        "hard.jsonl": jsonl(*ROWS),
        "easy.jsonl": jsonl(ROWS[1]),
    }
    hub.files["me/sums"] = files
    assert from_hub("me/sums", subset="easy") == {"row 1": ROWS[1]}
    with pytest.raises(DataError, match=r"me/sums .*data.subset=medium.*\['hard', 'easy'\]"):
        from_hub("me/sums", subset="medium")


def test_one_file_of_a_hub_data_set_is_read(hub):
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(ROWS), sink)
    hub.files["me/sums"] = {"hard/train.parquet": sink.getvalue().to_pybytes()}
    assert from_hub("me/sums", file="hard/train.parquet") == NUMBERED


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (
            {"source": "me/typo"},
            r"does not have me/typo, or does not show it to you.*data.source.*hf auth login",
        ),
        ({"source": "a/b/c"}, r"does not have a/b/c"),
        ({"source": "me/sums", "revision": "v2"}, r"does not have me/sums, revision v2"),
        ({"source": "me/sums", "file": "b.jsonl"}, r"does not have me/sums, file b.jsonl"),
        ({"source": "me/sums", "split": "dev"}, r"me/sums cannot be loaded .*data.split=dev.*\['train'\]"),
    ],
)
def test_the_error_for_missing_hub_data_names_them_and_the_setting_to_change(hub, wanted, message):
    hub.files["me/sums"] = {"train.jsonl": jsonl(*ROWS)}
    with pytest.raises(DataError, match=f"(?s){message}"):
        from_hub(**wanted)


@pytest.mark.parametrize("state", ["no network", "503", "HF_HUB_OFFLINE"])
def test_an_unreachable_hub_fails_quickly_and_the_error_gives_both_fixes(hub, monkeypatch, state):
    if state == "no network":
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    hub.broken = state == "503"
    if state == "HF_HUB_OFFLINE":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    hub.files["me/sums"] = {"train.jsonl": jsonl(*ROWS)}
    for file in (None, "train.jsonl"):
        started = time.monotonic()
        with pytest.raises(SetupError, match=r"(?s)me/sums .*data.path=<file>\. Or .*set HF_HUB_OFFLINE=1"):
            from_hub("me/sums", file=file)
        assert time.monotonic() - started < 3


def test_data_loaded_before_are_available_offline(hub, monkeypatch):
    hub.files["me/sums"] = {"train.jsonl": jsonl(*ROWS)}
    from_hub("me/sums")
    from_hub("me/sums", file="train.jsonl")
    hub.files.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    assert from_hub("me/sums") == NUMBERED
    assert from_hub("me/sums", file="train.jsonl") == {"line 1": ROWS[0], "line 2": ROWS[1]}
