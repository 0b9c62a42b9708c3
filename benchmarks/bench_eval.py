"""What storing the samples of an evaluation costs, compared with generating them: 5,000 problems x 8 samples of the
built-in model.

    python benchmarks/bench_eval.py

Generation is timed alone, on the real engine. Storing is everything else except grading: seeds, one line per sample on
disk, reading them back, the final file, and the metrics with their spread.
"""

import io
import os
import tempfile
import time
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"}
os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "ERROR", "OMP_WAIT_POLICY": "PASSIVE"}

from rich.console import Console

from grpo_cli.choices import AnswerMarker, DType
from grpo_cli.config.cluster import ClusterConfig, VLLMConfig
from grpo_cli.config.model import ModelConfig
from grpo_cli.config.sampling import EvalConfig
from grpo_cli.config.template import TemplateConfig
from grpo_cli.data import make_zero
from grpo_cli.evaluation.completion import Series, complete, engine_responders
from grpo_cli.evaluation.measures import measure
from grpo_cli.evaluation.responses import questions
from grpo_cli.model import load_base_model
from grpo_cli.ranks import start_ranks
from grpo_cli.types import Score, Verdict

NUM_PROBLEMS, N = 5_000, 8


class Ungraded:
    """A reward with fixed verdicts: every eighth answer is right."""

    def __init__(self) -> None:
        self._count = 0

    def submit(self, problem, completion) -> Future[Score]:
        self._count += 1
        verdict = Verdict.correct if self._count % 8 == 0 else Verdict.wrong
        score: Future[Score] = Future()
        score.set_result(Score(0.0, {}, verdict, completion.text[-20:]))
        return score


def main() -> None:
    start_ranks("cpu")
    base = make_zero.problems()
    problems = [replace(base[i % len(base)], id=f"p{i}") for i in range(NUM_PROBLEMS)]
    template = TemplateConfig(text="{problem} :", answer=AnswerMarker.answer_tag)
    series = Series("bench", problems, template, N)
    cluster = ClusterConfig(dtype=DType.fp32, vllm=VLLMConfig(enforce_eager=True))
    console = Console(file=io.StringIO())
    model = load_base_model(ModelConfig(name="tiny", path="builtin:make_zero"))
    respond = engine_responders([series], model, EvalConfig(N, 1.0), cluster, console)["bench"]

    asked = questions("bench", problems, N, seed=0)
    started = time.perf_counter()
    responses = list(respond(asked))
    generation_s = time.perf_counter() - started

    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        generated = {"bench": lambda asked: iter(responses)}
        completed = complete([series], lambda: generated, {"bench": Ungraded()}, Path(folder), 0, console)
        measure(completed["bench"].samples, lambda one, other: one == other)
        storing_s = time.perf_counter() - started
    print(f"{NUM_PROBLEMS} problems x {N}: generation {generation_s:.1f} s, storing {storing_s:.2f} s")
    print(f"storing / generation: {storing_s / generation_s:.1%}")


if __name__ == "__main__":
    main()
