"""The files of a rejection sampling: one line per kept response, one line per pair, and the card of the data set."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCardData

from grpo_cli.config.tasks import SampleTask
from grpo_cli.errors import ConfigError
from grpo_cli.evaluation.cards import card_text, fact_table, markdown_table, prompt_section
from grpo_cli.evaluation.provenance import files_hash
from grpo_cli.evaluation.samples import Sample
from grpo_cli.types import Prompt


def trace(sample: Sample, prompt: Prompt, config: SampleTask) -> dict[str, Any]:
    """A line of traces.jsonl: prompt and response, also as turns of a conversation, and how they were made."""
    sampling = config.sample
    return {
        "id": sample.id,
        "problem": prompt.problem.text,
        "prompt": prompt.text,
        "response": sample.text,
        "messages": [
            {"role": "user", "content": prompt.problem.text},
            {"role": "assistant", "content": config.template.response_prefix + sample.text},
        ],
        "answer": prompt.problem.answer,
        "extracted": sample.extracted,
        "verdict": sample.verdict.value,
        "prompt_tokens": len(prompt.token_ids),
        "response_tokens": sample.num_tokens,
        "sample": sample.sample,
        "seed": sample.seed,
        "source": config.data.name,
        "sampling": {
            "model": config.model.name,
            "checkpoint": config.checkpoint or config.model.path,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_new_tokens": sampling.max_new_tokens,
        },
    }


def pair(chosen: Sample, rejected: Sample, problem: str) -> dict[str, str]:
    """A line of pairs.jsonl."""
    return {"id": chosen.id, "problem": problem, "chosen": chosen.text, "rejected": rejected.text}


def data_card(config: SampleTask, results: Mapping[str, Any]) -> str:
    """The card of the traces, from the contents of sample.json: how they were made, and why others were dropped."""
    sampling, counts = config.sample, results["yield"]
    limits = {key: getattr(sampling, key) for key in ("min_tokens", "max_tokens", "per_problem")}
    repeats = f"similarity below {sampling.max_similarity:g}" if sampling.max_similarity < 1 else "no repeats"
    rules = [*(rule.value for rule in sampling.keep), *(f"{key} {value}" for key, value in limits.items() if value)]
    facts = {
        "model": f"{config.model.name}, weights sha256 {results['model']['weights_sha256']}",
        "problems": f"{counts['num_problems']} of {config.data.name}, sha256 {results['data']['problems_sha256']}",
        "sampling": f"{sampling.n} per problem, temperature {sampling.temperature:g}, top_p {sampling.top_p:g}, "
        f"at most {sampling.max_new_tokens} tokens, seed {config.seed}",
        "rules": ", ".join([*rules, repeats]),
        "language": sampling.language.value if sampling.language else "",
        "kept": f"{counts['kept']} of {counts['num_samples']} responses, to {counts['kept_problems']} problems",
        "traces": f"sha256 {results['files']['traces']}",
        "written by": ", ".join(f"{name} {number}" for name, number in results["versions"].items()),
    }
    title = f"Responses of {config.model.name} to {config.data.name}"
    metadata = DatasetCardData(pretty_name=title, task_categories=["text-generation"], tags=["r1zero"])
    sections = [
        f"# {title}",
        "Sampled, graded and filtered by rules with `r1zero sample`; one line per response.",
        fact_table(facts),
        "## Dropped\n\nA response counts for the first rule that it breaks.",
        markdown_table(yield_rows(results)),
        "## By difficulty",
        markdown_table(difficulty_rows(results)),
        prompt_section(config.template),
    ]
    return card_text(metadata, sections)


def yield_rows(results: Mapping[str, Any]) -> list[dict[str, str]]:
    """What was sampled, what each rule dropped, and what is kept, one row each."""
    counts = results["yield"]
    total = counts["num_samples"]
    dropped = [(f"dropped: {rule}", number, "") for rule, number in counts["dropped"].items()]
    rows = [
        ("sampled", total, f"{counts['num_problems']:,}"),
        *dropped,
        ("kept", counts["kept"], f"{counts['kept_problems']:,}"),
    ]
    return [
        {"rule": name, "responses": f"{number:,}", "share": f"{number / total:.1%}", "problems": problems}
        for name, number, problems in rows
    ]


def difficulty_rows(results: Mapping[str, Any]) -> list[dict[str, str]]:
    """The problems by how many of their samples are right, one row per class."""
    return [
        {
            "samples right": name,
            "problems": f"{row['problems']:,}",
            "share": f"{row['share']:.1%}",
            "kept": f"{row['kept']:,}",
        }
        for name, row in results["difficulty"].items()
    ]


def traces_file(config: SampleTask) -> Path:
    """The file of the traces."""
    return Path(config.to).expanduser() if config.to else Path(config.run.dir) / "traces.jsonl"


def card_of(traces: Path) -> Path:
    """The file of the card, next to the traces."""
    return traces.with_suffix(".md")


def check_overwrite(config: SampleTask) -> None:
    """Raise ConfigError if the traces or their card would replace a file that this run did not write."""
    results = Path(config.run.dir) / "sample.json"
    written = json.loads(results.read_text(encoding="utf-8"))["files"] if results.exists() else {}
    traces = traces_file(config)
    for file, hash in {traces: written.get("traces"), card_of(traces): written.get("card")}.items():
        if file.exists() and files_hash([file]) != hash:
            raise ConfigError(
                f"{file} exists, but this run did not write it or it was changed since: it is not overwritten. Move it "
                "away, or give another file, as in to=other.jsonl."
            )
