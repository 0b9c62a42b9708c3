"""Compares the grading of r1zero and lm-evaluation-harness on one file of generated responses, as described in
docs/grading_against_a_peer.md.

`make` and `diff` need only the standard library; `peer` needs a separate environment with `lm_eval[math]`.
"""

import argparse
import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

FILES = {"gsm8k": "gsm8k_test.jsonl", "math500": "math500.jsonl"}
TASKS = {"gsm8k": "gsm8k/gsm8k.yaml", "math500": "minerva_math/minerva_math500.yaml"}  # in lm_eval/tasks
GSM8K_ENDS = ("#### {}", "#### {}.", "The answer is {}.\n#### {}", "This makes ${} in all.\n#### {}")
MATH_END = "\nFinal Answer: The final answer is ${}$. I hope it is correct."  # as in lm_eval's few-shot examples
RESPELT_WHOLE = ("{}.0", "x = {}", r"{}\text{ cm}", r"{}^\circ", r"\${}")
NOT_ONE_EXPRESSION = re.compile(r"[,=_%$]|\\text|\\circ|\\pm|\\in|\\cup|\\begin")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parts = parser.add_subparsers(required=True)
    for part, *files in ((make, "data", "out"), (peer, "data", "responses", "out"), (diff, "ours", "peers")):
        subparser = parts.add_parser(part.__name__, help=part.__doc__.replace("%", "%%"))
        for file in files:
            subparser.add_argument(file, type=Path)
        subparser.set_defaults(part=part)
    parts.choices["make"].add_argument("--seed", type=int, default=0)
    arguments = vars(parser.parse_args())
    arguments.pop("part")(**arguments)


def make(data: Path, out: Path, seed: int) -> None:
    """Write a response to each problem, 40 % of them wrong."""
    rng = random.Random(seed)
    rows = []
    for benchmark, respond in (("gsm8k", _gsm8k_response), ("math500", _math_response)):
        problems = _problems(data, benchmark)
        wrong = {problem["id"] for problem in rng.sample(problems, len(problems) * 2 // 5)}
        for problem in problems:
            origin = {"benchmark": benchmark, "id": problem["id"], "altered": problem["id"] in wrong}
            rows.append(origin | {"text": respond(problem, origin["altered"], rng)})
    out.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _gsm8k_response(problem: dict, wrong: bool, rng: random.Random) -> str:
    number = int(problem["answer"])
    if wrong:
        number = rng.choice([number + 1, number - 1, number + 0.5, number * 10 + 1, -number or 2])
    end = rng.choice(GSM8K_ENDS).replace("{}", rng.choice([f"{number}", f"{number:,}"]))
    return f"The question is worked out step by step.\n{end}"


def _math_response(problem: dict, wrong: bool, rng: random.Random) -> str:
    """The reference solution, its answer unchanged, respelt or without its box, and the end that minerva_math needs."""
    answer = _altered(problem["answer"], rng) if wrong else problem["answer"]
    way = rng.choice(["as it is", "respelt", "unboxed"])
    answer = _respelt(answer, rng) if way == "respelt" else answer
    stated = answer if way == "unboxed" else rf"\boxed{{{answer}}}"
    return problem["solution"].replace(rf"\boxed{{{problem['answer']}}}", stated) + MATH_END.replace("{}", answer)


def _altered(answer: str, rng: random.Random) -> str:
    """Another value: a digit changed, the sign swapped, or 1 added; words are replaced by other words."""
    altered = []
    if digits := list(re.finditer(r"\d", answer)):
        digit = rng.choice(digits)
        altered.append(answer[: digit.start()] + rng.choice("123456789".replace(digit[0], "")) + answer[digit.end() :])
    if not NOT_ONE_EXPRESSION.search(answer):
        altered.append(f"{answer} + 1")
        if answer != "0":
            altered.append(answer[1:] if answer.startswith("-") else f"-{answer}")
    return rng.choice(altered or [r"\text{odd}", r"\text{Angela}", r"\text{(D)}"])


def _respelt(answer: str, rng: random.Random) -> str:
    """The same value in another spelling that minerva_math's rules or its parser treat as equal."""
    if answer.lstrip("-").isdigit():
        return rng.choice(RESPELT_WHOLE).replace("{}", answer)
    answer = re.sub(r"^(-?)\\frac\{(\d+)\}\{(\d+)\}$", r"\1\2/\3", answer)
    return re.sub(r"\\left|\\right|\^\\circ|\\\$|,\\! ?", "", answer).replace(r"\frac{", r"\dfrac{")


def peer(data: Path, responses: Path, out: Path) -> None:
    """Score responses with lm_eval's metrics; writes one line per response and metric."""
    rows = []
    for benchmark in TASKS:
        problems = {problem["id"]: problem for problem in _problems(data, benchmark)}
        stored = [row for row in _read(responses) if row["benchmark"] == benchmark]
        scores = _lm_eval(benchmark, [problems[row["id"]] for row in stored], [row["text"] for row in stored])
        for row, score in zip(stored, scores, strict=True):
            origin = {key: row[key] for key in ("benchmark", "id", "altered")} | {"gold": problems[row["id"]]["answer"]}
            rows += [origin | {"metric": metric, "peer": int(right)} for metric, right in score.items()]
    out.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _lm_eval(benchmark: str, problems: list[dict], texts: list[str]) -> Iterator[dict[str, float]]:
    """For each response, the scores of lm_eval's task by metric, or by filter if the task has filters."""
    import datasets
    import lm_eval.tasks
    from lm_eval.api.instance import Instance
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks._yaml_loader import load_yaml

    docs = [problem | {"question": problem["problem"], "answer": problem["solution"]} for problem in problems]
    config = load_yaml(Path(lm_eval.tasks.__file__).parent / TASKS[benchmark])
    config["custom_dataset"] = lambda **_: {"test": datasets.Dataset.from_list(docs)}
    task = ConfigurableTask(config=config | {"num_fewshot": 0, "training_split": None, "fewshot_split": None})
    responses = enumerate(zip(task.test_docs(), texts, strict=True))
    task._instances = [Instance("generate_until", doc, ("", {}), i, resps=[text]) for i, (doc, text) in responses]
    task.apply_filters()
    for instance in task.instances:
        scores = {name: task.process_results(instance.doc, [kept]) for name, kept in instance.filtered_resps.items()}
        yield scores.get("none") or {name: score["exact_match"] for name, score in scores.items()}


def diff(ours: Path, peers: Path) -> None:
    """List the disagreements of `r1zero eval --rescore` and lm_eval. A fault is a verdict that contradicts how the
    response was made.
    """
    samples = {(name, row["id"]): row for name in FILES for row in _read(ours / f"{name}.jsonl")}
    counts, disagreements = defaultdict(Counter), defaultdict(list)
    for row in _read(peers):
        sample, count = samples[row["benchmark"], row["id"]], counts[row["benchmark"], row["metric"]]
        us, them, truth = int(sample["verdict"] == "correct"), row["peer"], int(not row["altered"])
        count.update(responses=1, agreed=us == them, our_faults=us != truth, their_faults=them != truth)
        if us != them:
            disagreements[row["id"], us, row["gold"], sample["extracted"]].append(row["metric"])
    for (benchmark, metric), count in counts.items():
        print(f"{benchmark} {metric}:", ", ".join(f"{name} {number}" for name, number in count.items()))
    for (id, us, gold, extracted), metrics in disagreements.items():
        print(f"{id}: ours {us}, {' and '.join(metrics)} {1 - us}; gold {gold}, extracted {extracted}")


def _problems(data: Path, benchmark: str) -> list[dict]:
    """The problems with `solution`. gsm8k_test.jsonl has none: there it is the last line of a GSM8K solution."""
    problems = _read(data / "eval" / FILES[benchmark])
    if benchmark == "gsm8k":
        return [problem | {"solution": f"#### {problem['answer']}"} for problem in problems]
    solutions = {row["problem"]: row["solution"] for row in _read(data / "eval" / "math_test_5k.jsonl")}
    return [problem | {"solution": solutions[problem["problem"]]} for problem in problems]


def _read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


if __name__ == "__main__":
    main()
