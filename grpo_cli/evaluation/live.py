"""Evaluation during training: the held-out problems and the benchmarks, on the training run's own engine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rich.console import Console

from grpo_cli.analysis.reflection import count_self_corrections
from grpo_cli.config.supervised import SFTTask
from grpo_cli.config.train import TrainConfig
from grpo_cli.evaluation.completion import Judged, judged
from grpo_cli.evaluation.majority import answer_equality
from grpo_cli.evaluation.measures import measure
from grpo_cli.evaluation.responses import EngineResponder, questions
from grpo_cli.progress import progress
from grpo_cli.ranks import gather, rank, world_size
from grpo_cli.reward.reward import Reward
from grpo_cli.rollout.collect import Engine
from grpo_cli.types import Prompt, Sampling, ScoredGroup


@dataclass(frozen=True)
class Evaluated:
    """`eval/<benchmark>/<metric>`, and the greedy responses to the first `logger.heldout_groups` held-out problems."""

    metrics: Mapping[str, float]
    groups: Sequence[ScoredGroup] = ()


@dataclass(frozen=True)
class LiveEvaluation:
    """The metrics of `r1zero eval` for the current policy.

    Its seeds are separate from those of training and the same at every step. So evaluation does not change any training
    sample, and steps are compared on the same random draws.
    """

    engine: Engine
    reward: Reward
    heldout: Sequence[Prompt]
    benchmarks: Mapping[str, Sequence[Prompt]]
    config: TrainConfig | SFTTask
    max_model_len: int
    console: Console

    def __call__(self, sampling: Sampling) -> Evaluated:
        """The evaluation of the current policy; called on all ranks, each of which samples its share.

        The held-out problems, if there are any, get the same number of new tokens and stop strings as in training.
        They are sampled once from the policy itself, at temperature 1 without top_p and top_k, whatever training uses,
        so that runs with different sampling settings can be compared, and once greedily (`greedy`).
        """
        metrics: dict[str, float] = {}
        groups: Sequence[ScoredGroup] = ()
        if self.heldout:
            sampling = replace(sampling, temperature=1.0, top_p=1.0, top_k=0)
            metrics, _ = self._measure("heldout", self.heldout, sampling, n=1)
            greedy, mine = self._measure("heldout", self.heldout, replace(sampling, temperature=0.0), n=1)
            metrics["eval/heldout/greedy"] = greedy["eval/heldout/avg"]
            groups = self._followed(mine)
        settings = self.config.eval
        benchmark_sampling = Sampling(settings.temperature, settings.top_p, settings.max_new_tokens, sampling.stop)
        for name, prompts in self.benchmarks.items():
            metrics |= self._measure(name, prompts, benchmark_sampling, settings.n)[0]
        return Evaluated(metrics, groups)

    def _measure(
        self, name: str, prompts: Sequence[Prompt], sampling: Sampling, n: int
    ) -> tuple[dict[str, float], list[Judged]]:
        """The metrics of all responses, and this rank's responses."""
        problems = [prompt.problem for prompt in prompts]
        asked = questions(name, problems, n, self.config.seed)
        respond = EngineResponder(self.engine, prompts, sampling, self.max_model_len)
        share = asked[rank() :: world_size()]
        mine = []
        with progress(self.console, f"evaluating {name}", len(share)) as count:
            for response in judged(share, respond, self.reward):
                mine.append(response)
                count()
        samples_of_ranks = gather([response.sample(self.config.template) for response in mine])
        by_key = {(sample.id, sample.sample): sample for of_rank in samples_of_ranks for sample in of_rank}
        samples = [by_key[question.key] for question in asked]
        same_answer = answer_equality(problems[0].grader, self.reward)
        metrics = measure(samples, same_answer, self.config.eval.language)
        metrics["wait_rate"] = sum(count_self_corrections(sample.text) for sample in samples) / len(samples)
        return {f"eval/{name}/{key}": value for key, value in metrics.items()}, mine

    def _followed(self, mine: Sequence[Judged]) -> list[ScoredGroup]:
        """The responses of all ranks to the problems that are followed through training, in their order."""
        prompts = {prompt.problem.id: prompt for prompt in self.heldout[: self.config.logger.heldout_groups]}
        groups = {
            id: ScoredGroup(prompts[id], (response.completion,), (response.score,))
            for response in mine
            if (id := response.question.problem.id) in prompts
        }
        of_all_ranks = {id: group for of_rank in gather(groups) for id, group in of_rank.items()}
        return [of_all_ranks[id] for id in prompts]
