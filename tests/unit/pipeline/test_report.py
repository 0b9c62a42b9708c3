"""The table of a pipeline, read from the folders of its stages."""

import json

from rich.console import Console

from grpo_cli.pipeline.report import report_table

TABLE = """\
| stage | made | hard: accuracy ± s.e. | easy: accuracy ± s.e. | seconds |
|-------|------|-----------------------|-----------------------|---------|
| base_eval | base_eval/eval.json | 10.0% ± 2.0% | 20.0% ± nan% | 7 |
| draw | 1,030 of 2,400 responses kept | | | 7 |
| learn | learn/model | 30.0% ± 2.0% | | 7 |
| rl | not done | | | 7 |
"""


def entry(command, done=True):
    return {"words": [command], "seconds": 7.2, "done": done}


def test_each_started_stage_has_a_row_with_the_accuracy_of_its_model(tmp_path):
    def save(file, content):
        (tmp_path / file).parent.mkdir()
        (tmp_path / file).write_text(json.dumps(content))

    hard = {"avg": 0.1, "avg_se": 0.02}
    save("base_eval/eval.json", {"benchmarks": {"hard": hard, "easy": {"avg": 0.2, "avg_se": None}}})
    save("learn_eval/eval.json", {"benchmarks": {"hard": hard | {"avg": 0.3}}})
    save("draw/sample.json", {"yield": {"kept": 1030, "num_samples": 2400}})
    progress = {
        "base_eval": entry("eval"),
        "draw": entry("sample"),
        "learn": entry("sft"),
        "learn_eval": entry("eval"),
        "rl": entry("train", done=False),
    }
    console = Console(width=160)
    with console.capture() as captured:
        console.print(report_table(progress, tmp_path))
    words = [line.split() for line in captured.get().splitlines() if line.strip()]
    expected = [line.split() for line in TABLE.splitlines()]
    assert [words[0], *words[2:]] == [expected[0], *expected[2:]]
