import json

import pytest
from huggingface_hub import DatasetCard

from grpo_cli.choices import KeepRule
from grpo_cli.config.sampling import SampleConfig
from grpo_cli.config.tasks import SampleTask
from grpo_cli.config.template import TemplateConfig
from grpo_cli.errors import ConfigError
from grpo_cli.evaluation.provenance import files_hash
from grpo_cli.rejection.traces import card_of, check_overwrite, data_card, pair, trace, traces_file
from grpo_cli.types import Problem, Prompt, Verdict


@pytest.fixture
def config(tmp_path) -> SampleTask:
    template = TemplateConfig(text="Q: {problem} <think>", response_prefix="<think>")
    config = SampleTask(template=template, to=str(tmp_path / "kept.jsonl"), sample=SampleConfig(n=4, max_tokens=9))
    config.model.name, config.model.path, config.data.name, config.run.dir = "m", "org/m", "d", str(tmp_path)
    return config


def test_a_trace_holds_prompt_response_and_origin(config, sample):
    prompt = Prompt(Problem("p", "1 + 1?", "2"), "Q: 1 + 1? <think>", (5, 6, 7))
    line = trace(sample("p", 3, seed=8, text=" 2 </think>", extracted="2", verdict=Verdict.correct), prompt, config)
    assert json.loads(json.dumps(line)) == {
        "id": "p",
        "problem": "1 + 1?",
        "prompt": "Q: 1 + 1? <think>",
        "response": " 2 </think>",
        "messages": [
            {"role": "user", "content": "1 + 1?"},
            {"role": "assistant", "content": "<think> 2 </think>"},
        ],
        "answer": "2",
        "extracted": "2",
        "verdict": "correct",
        "prompt_tokens": 3,
        "response_tokens": 1,
        "sample": 3,
        "seed": 8,
        "source": "d",
        "sampling": {"model": "m", "checkpoint": "org/m", "temperature": 1.0, "top_p": 1.0, "max_new_tokens": 3000},
    }


def test_a_pair_holds_the_chosen_and_the_rejected_response(sample):
    line = pair(sample("p", text="good"), sample("p", text="bad"), "1 + 1?")
    assert line == {"id": "p", "problem": "1 + 1?", "chosen": "good", "rejected": "bad"}


@pytest.fixture
def results() -> dict:
    return {
        "yield": {"num_problems": 2, "num_samples": 8, "kept": 3, "kept_problems": 1, "dropped": {"correct": 5}},
        "difficulty": {"some": {"problems": 1, "share": 0.5, "kept": 3}},
        "model": {"weights_sha256": "w"},
        "data": {"problems_sha256": "q"},
        "files": {"traces": "t"},
        "versions": {"r1zero": "1"},
    }


def test_the_card_holds_the_rules_the_counts_and_the_prompt(config, results):
    config.sample.keep = [KeepRule.correct, KeepRule.well_formed]
    card = data_card(config, results)
    metadata = DatasetCard(card).data
    assert (metadata.pretty_name, metadata.task_categories, metadata.tags) == (
        "Responses of m to d",
        ["text-generation"],
        ["r1zero"],
    )
    for line in (
        "# Responses of m to d",
        "| sampling | 4 per problem, temperature 1, top_p 1, at most 3000 tokens, seed 0 |",
        "| rules | correct, well_formed, max_tokens 9, no repeats |",
        "| kept | 3 of 8 responses, to 1 problems |",
        "| traces | sha256 t |",
        "| rule | responses | share | problems |\n| --- | --- | --- | --- |\n| sampled | 8 | 100.0% | 2 |",
        "| dropped: correct | 5 | 62.5% |  |\n| kept | 3 | 37.5% | 1 |",
        "| some | 1 | 50.0% | 3 |",
        "```\nQ: {problem} <think>\n```",
    ):
        assert line in card
    assert "| language |" not in card


def test_traces_are_written_to_the_run_folder_unless_another_file_is_given(config, tmp_path):
    assert traces_file(config) == tmp_path / "kept.jsonl"
    config.to = None
    assert traces_file(config) == tmp_path / "traces.jsonl"


@pytest.mark.parametrize("name", ["kept.jsonl", "kept.md"])
def test_a_file_that_this_run_did_not_write_is_not_overwritten(name, config, tmp_path):
    check_overwrite(config)
    (tmp_path / name).write_text("precious")
    with pytest.raises(ConfigError, match=rf"{name} exists, but this run did not write it"):
        check_overwrite(config)


def test_a_file_that_this_run_wrote_is_overwritten_unless_it_was_changed(config, tmp_path):
    traces = tmp_path / "kept.jsonl"
    traces.write_text("{}\n")
    card_of(traces).write_text("# card")
    files = {"traces": files_hash([traces]), "card": files_hash([card_of(traces)])}
    (tmp_path / "sample.json").write_text(json.dumps({"files": files}))
    check_overwrite(config)
    traces.write_text("edited\n")
    with pytest.raises(ConfigError):
        check_overwrite(config)
