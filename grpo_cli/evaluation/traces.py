"""What is kept of a rejection sampling, as files: a line a response, a line a pair, and the card of the data set."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grpo_cli.config.tasks import SampleTask
from grpo_cli.errors import ConfigError
from grpo_cli.evaluation.cards import markdown_table, shown_prompt
from grpo_cli.evaluation.provenance import files_hash
from grpo_cli.evaluation.samples import Sample
from grpo_cli.types import Prompt


def trace(sample: Sample, prompt: Prompt, config: SampleTask) -> dict[str, Any]:
    """A line of traces.jsonl: what the model saw and said, also as a conversation's turns, and where it is from."""
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
    """The card beside the traces, from what is in sample.json: what they are made of, and what became of the rest."""
    sampling, counts = config.sample, results["yield"]
    limits = {key: getattr(sampling, key) for key in ("min_tokens", "max_tokens", "per_problem")}
    repeats = f"similarity below {sampling.max_similarity:g}" if sampling.max_similarity < 1 else "no repeats"
    rules = [*(rule.value for rule in sampling.keep), *(f"{key} {value}" for key, value in limits.items() if value)]
    facts = {
        "model": f"{config.model.name}, weights sha256 {results['model']['weights_sha256']}",
        "problems": f"{counts['num_problems']} of {config.data.name}, sha256 {results['data']['problems_sha256']}",
        "sampling": f"{sampling.n} a problem, temperature {sampling.temperature:g}, top_p {sampling.top_p:g}, at most "
        f"{sampling.max_new_tokens} tokens, seed {config.seed}",
        "rules": ", ".join([*rules, repeats]),
        "language": sampling.language.value if sampling.language else "",
        "kept": f"{counts['kept']} of {counts['num_samples']} responses, to {counts['kept_problems']} problems",
        "traces": f"sha256 {results['files']['traces']}",
        "written by": ", ".join(f"{name} {number}" for name, number in results["versions"].items()),
    }
    difficulty = [
        (name, *(f"{some[key]:{spec}}" for key, spec in (("problems", "d"), ("share", ".1%"), ("kept", "d"))))
        for name, some in results["difficulty"].items()
    ]
    parts = [
        f"# Responses of {config.model.name} to {config.data.name}",
        "Sampled, judged and kept by rule with `r1zero sample`; a line a response.",
        markdown_table(("", ""), [row for row in facts.items() if row[1]]),
        "## Dropped\n\nA response is counted for the first rule that it breaks.",
        markdown_table(("rule", "responses"), [(rule, str(number)) for rule, number in counts["dropped"].items()]),
        "## By difficulty",
        markdown_table(("samples right", "problems", "share", "responses kept"), difficulty),
        f"## Prompt\n\n{shown_prompt(config.template)}",
    ]
    return "\n\n".join(parts) + "\n"


def traces_file(config: SampleTask) -> Path:
    """Where the traces go."""
    return Path(config.to).expanduser() if config.to else Path(config.run.dir) / "traces.jsonl"


def card_of(traces: Path) -> Path:
    """The card's place, beside the traces."""
    return traces.with_suffix(".md")


def refuse_to_overwrite(config: SampleTask) -> None:
    """Raise ConfigError where the traces or their card would replace a file that this run did not write."""
    results = Path(config.run.dir) / "sample.json"
    ours = json.loads(results.read_text())["files"] if results.exists() else {}
    traces = traces_file(config)
    for file, hash in {traces: ours.get("traces"), card_of(traces): ours.get("card")}.items():
        if file.exists() and files_hash([file]) != hash:
            raise ConfigError(
                f"{file} exists, and is not as this run wrote it: it is never overwritten. Move it away, or give "
                "another file, as in to=other.jsonl."
            )
