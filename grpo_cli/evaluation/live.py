"""Evaluation while a model is trained: the held-out problems and the benchmarks, on the live engine."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from grpo_cli.analysis.reflection import count_self_corrections
from grpo_cli.config.supervised import SFTTask
from grpo_cli.config.train import TrainConfig
from grpo_cli.evaluation.benchmark import answer_equality, judged_samples
from grpo_cli.evaluation.measures import measure
from grpo_cli.evaluation.responses import EngineResponder, questions
from grpo_cli.ranks import gather, rank, world_size
from grpo_cli.reward.reward import Reward
from grpo_cli.types import Prompt, Sampling

if TYPE_CHECKING:
    from grpo_cli.rollout.vllm_engine import RolloutEngine


class LiveEvaluation:
    """What `r1zero eval` measures, of the policy as it is. The seeds are the evaluation's own, the same at every
    step, so that it changes no training sample and steps compare on equal draws.
    """

    def __init__(
        self,
        engine: "RolloutEngine",
        reward: Reward,
        heldout: Sequence[Prompt],
        benchmarks: Mapping[str, Sequence[Prompt]],
        config: TrainConfig | SFTTask,
        max_model_len: int,
    ) -> None:
        self._engine = engine
        self._reward = reward
        self._heldout = heldout
        self._benchmarks = benchmarks
        self._config = config
        self._max_model_len = max_model_len

    def __call__(self, sampling: Sampling) -> dict[str, float]:
        """`eval/<benchmark>/<metric>`; called on all ranks, each of which samples its share.

        The held-out problems, where there are any, are sampled once as in training but for the seeds, and once greedily
        (`greedy`).
        """
        metrics = {}
        if self._heldout:
            metrics = self._measured("heldout", self._heldout, replace(sampling, temperature=1.0, top_p=1.0), n=1)
            greedy = self._measured("heldout", self._heldout, replace(sampling, temperature=0.0, top_p=1.0), n=1)
            metrics["eval/heldout/greedy"] = greedy["eval/heldout/avg"]
        settings = self._config.eval
        of_benchmarks = Sampling(settings.temperature, settings.top_p, settings.max_new_tokens, sampling.stop)
        for name, prompts in self._benchmarks.items():
            metrics |= self._measured(name, prompts, of_benchmarks, settings.n)
        return metrics

    def _measured(self, name: str, prompts: Sequence[Prompt], sampling: Sampling, n: int) -> dict[str, float]:
        problems = [prompt.problem for prompt in prompts]
        asked = questions(name, problems, n, self._config.seed)
        respond = EngineResponder(self._engine, prompts, sampling, self._max_model_len)
        mine = judged_samples(asked[rank() :: world_size()], respond, self._reward, self._config.template)
        by_question = {(sample.id, sample.sample): sample for part in gather(list(mine)) for sample in part}
        samples = [by_question[question.problem.id, question.sample] for question in asked]
        same_answer = answer_equality(problems[0].grader, self._reward)
        metrics = measure(samples, same_answer, self._config.eval.language)
        metrics["wait_rate"] = sum(count_self_corrections(sample.text) for sample in samples) / len(samples)
        return {f"eval/{name}/{key}": value for key, value in metrics.items()}
