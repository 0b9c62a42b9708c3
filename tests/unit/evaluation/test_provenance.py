import hashlib
from dataclasses import replace

from grpo_cli.config.data import BenchmarkConfig
from grpo_cli.evaluation.provenance import data_source, files_hash, model_source
from grpo_cli.types import Problem

PROBLEMS = [Problem("p", "1 + 1?", "2")]


def test_a_local_file_is_identified_by_its_hash(tmp_path):
    (tmp_path / "b.jsonl").write_bytes(b"{}\n")
    source = data_source(BenchmarkConfig(path=str(tmp_path / "b.jsonl")), PROBLEMS)
    assert source["sha256"] == hashlib.sha256(b"{}\n").hexdigest()
    assert source["num_problems"] == 1


def test_problems_are_identified_by_a_hash_of_their_contents():
    config = BenchmarkConfig(source="org/name")
    same, other = [Problem("p", "1 + 1?", "2")], [Problem("p", "1 + 1?", "3")]
    hashes = [data_source(config, problems)["problems_sha256"] for problems in (PROBLEMS, same, other)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_columns_for_reward_functions_are_not_part_of_the_data_of_an_evaluation():
    config = BenchmarkConfig(source="x/y")
    assert data_source(config, PROBLEMS) == data_source(config, [replace(PROBLEMS[0], extra={"hint": "add"})])


def test_a_model_is_identified_by_its_weights_and_if_from_the_hub_by_its_revision(tmp_path):
    snapshot = tmp_path / "snapshots" / "abc123"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").write_bytes(b"weights")
    assert model_source(snapshot) == {
        "revision": "abc123",
        "weights_sha256": hashlib.sha256(b"weights").hexdigest(),
    }
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    assert model_source(tmp_path)["revision"] is None


def test_the_hash_of_several_files_depends_on_their_order(tmp_path):
    one, two = tmp_path / "1", tmp_path / "2"
    one.write_bytes(b"1")
    two.write_bytes(b"2")
    assert files_hash([one, two]) != files_hash([two, one])
