import pytest

from grpo_cli.errors import DataError
from grpo_cli.evaluation.samples import SampleStore, read_samples


def test_stored_samples_are_read_back_unchanged(tmp_path, sample):
    store = SampleStore(tmp_path, "b")
    written = [sample("p", 0, text="né\n"), sample("p", 1, skipped="too long")]
    store.append(written, rank=0)
    assert store.load() == {("p", 0): written[0], ("p", 1): written[1]}


def test_a_sample_whose_line_is_unfinished_is_missing_and_can_be_stored_again(tmp_path, sample):
    store = SampleStore(tmp_path, "b")
    store.append([sample("p", 0), sample("p", 1)], rank=0)
    part = tmp_path / "b.rank_0.part"
    part.write_bytes(part.read_bytes()[:-20])
    assert store.load().keys() == {("p", 0)}
    store.append([sample("p", 1)], rank=0)
    assert store.load().keys() == {("p", 0), ("p", 1)}


def test_every_rank_reads_the_samples_of_all_ranks(tmp_path, sample):
    SampleStore(tmp_path, "b").append([sample("p", 0)], rank=0)
    SampleStore(tmp_path, "b").append([sample("p", 1)], rank=1)
    SampleStore(tmp_path, "bb").append([sample("q", 0)], rank=0)  # another benchmark
    assert SampleStore(tmp_path, "b").load().keys() == {("p", 0), ("p", 1)}


def test_merged_samples_are_one_file_in_the_order_of_the_problems(tmp_path, sample):
    store = SampleStore(tmp_path, "b")
    store.append([sample("q"), sample("p", 1)], rank=1)
    store.append([sample("p"), sample("p", 2)], rank=0)
    store.merge([("p", 0), ("p", 1), ("q", 0)])
    assert [file.name for file in tmp_path.iterdir()] == ["b.jsonl"]
    # Samples that are not asked for this time, for example from a larger n, are kept.
    assert [(s.id, s.sample) for s in read_samples(store.path)] == [("p", 0), ("p", 1), ("q", 0), ("p", 2)]


def test_the_error_names_a_damaged_line(tmp_path):
    (tmp_path / "b.jsonl").write_text('{"id": "p"}\n')
    with pytest.raises(DataError, match=r"b\.jsonl, line 1"):
        SampleStore(tmp_path, "b").load()
