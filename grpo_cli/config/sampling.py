"""`rollout.*`, `eval.*`, `analyze.*` and `sample.*`: how responses are sampled."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from grpo_cli.bounds import number
from grpo_cli.choices import KeepRule, Language
from grpo_cli.config.model import model_folder_faults

MAX_TOP_K = 512
MIN_TEMPERATURE = 0.01  # vLLM replaces lower values, except 0, by this one


@dataclass
class RolloutConfig:
    """How responses are sampled for training."""

    prompts_per_step: int = number(128, at_least=1)
    """Prompts in one step, over all ranks."""
    group_size: int = number(8, at_least=1)
    """Responses to each prompt: G."""
    temperature: float = number(1.0, at_least=0.01, at_most=2, note="vLLM's range")
    """Sampling temperature."""
    top_p: float = number(1.0, above=0, at_most=1)
    """Nucleus sampling: the share of probability that is kept. Below 1, at most `top_k` tokens are kept; 512 if `top_k`
    is 0. The trainer renormalises over the same tokens."""
    top_k: int = number(0, at_least=0, at_most=MAX_TOP_K, note="0: all")
    """Keep only so many of the most likely tokens; 0: all. The trainer renormalises over the same tokens."""
    max_prompt_tokens: int = number(1024, at_least=1)
    """Longer prompts are dropped and counted."""
    max_new_tokens: int = number(3000, at_least=1)
    """Token limit of a response."""
    max_new_tokens_schedule: dict[int, int] = number({}, at_least=1)
    """New values of max_new_tokens by the optimizer step from which they apply, as in {8200: 65536} for the second
    stage of DeepSeek-R1-Zero."""
    max_staleness: int = number(0, at_least=0)
    """By how many updates the weights that sample a token may be older than the newest ones. With
    cluster.rollout_ranks, 1 or more: the next step is sampled while one is trained. 0: always the newest weights."""
    oversample: int = number(0, at_least=0)
    """Prompts that are sampled in addition to prompts_per_step. A step ends when prompts_per_step groups are complete;
    the others are continued in the next step (partial rollouts). Needs max_staleness."""
    segment_tokens: int | None = number(None, at_least=1)
    """With oversample: tokens of each response between two checks whether enough groups are complete; an eighth of
    max_new_tokens if not set."""
    restart_engines: bool = False
    """A rank that only generates (cluster.rollout_ranks) and dies is started again, up to 5 times, and the run
    continues; false: the run ends. Weights then go to the engines through CPU memory. Only on one machine."""
    mismatch_limit: float | None = number(None, above=0)
    """Mean difference of the sampler's and the trainer's log-probabilities that stops the run; if not set, 1e-4 in
    fp32 and 0.1 in bf16."""

    def faults(self, key: str) -> Iterator[str]:
        if self.top_k == 1:
            yield f"{key}top_k=1: all responses to a prompt would be the same. Set {key}top_k=0 (all), or 2 or more."

    @property
    def largest_support(self) -> int:
        """How many tokens sampling may choose from; 0: the whole vocabulary."""
        return self.top_k or (MAX_TOP_K if self.top_p < 1 else 0)

    def max_new_tokens_at(self, optimizer_step: int) -> int:
        """The token limit after `optimizer_step` optimizer steps."""
        reached = [step for step in self.max_new_tokens_schedule if step <= optimizer_step]
        return self.max_new_tokens_schedule[max(reached)] if reached else self.max_new_tokens

    @property
    def longest_sequence(self) -> int:
        """Prompt and response together, in tokens, at any time of the run."""
        return self.max_prompt_tokens + max(self.max_new_tokens, *self.max_new_tokens_schedule.values(), 0)


@dataclass
class EvalConfig:
    """How a model is sampled on benchmarks."""

    n: int = number(1, at_least=1)
    """Responses to each problem."""
    temperature: float = number(0.0, at_least=0, at_most=2, note="vLLM's range")
    """Sampling temperature; 0 is greedy."""
    top_p: float = number(1.0, above=0, at_most=1)
    """Nucleus sampling: the share of probability that is kept."""
    max_new_tokens: int = number(3000, at_least=1)
    """Token limit of a response; less if the model's context is shorter."""
    language: Language | None = None
    """Also report the share of the responses in this language."""

    def faults(self, key: str) -> Iterator[str]:
        if 0 < self.temperature < MIN_TEMPERATURE:
            yield (
                f"{key}temperature={self.temperature}: vLLM samples at {MIN_TEMPERATURE} or more. Set "
                f"{key}temperature={MIN_TEMPERATURE}, or 0, which is greedy."
            )
        if self.n > 1 and self.temperature == 0:
            yield (
                f"{key}n={self.n} samples at {key}temperature=0 would all be the same. Set {key}temperature=0.6, for "
                f"example, or {key}n=1."
            )


@dataclass
class TrainEvalConfig(EvalConfig):
    """How the model is evaluated while it is trained."""

    every_steps: int = number(50, at_least=0)
    """Steps between evaluations, besides those before the first and after the last step; 0: only those two."""


@dataclass
class AnalyzeConfig:
    """What `r1zero analyze` looks at in a base model."""

    num_problems: int = number(0, at_least=0)
    """Problems to draw; 0: all."""
    group_sizes: list[int] = number([8, 16, 64], at_least=2)
    """Group sizes for which to report the share with both right and wrong answers."""
    judge: str | None = None
    """A model that tells an answer from a continuation of the question; rules decide if not set."""

    def faults(self, key: str) -> Iterator[str]:
        if not self.group_sizes:
            yield f"{key}group_sizes=[]: has no size. Set {key}group_sizes=[8,16,64], for example."
        if self.judge is not None:
            yield from model_folder_faults(f"{key}judge", self.judge)


@dataclass
class SampleConfig(EvalConfig):
    """How responses to the training problems are sampled, and which are kept. Truncated responses are never kept."""

    n: int = number(8, at_least=1)
    """Responses to each problem."""
    temperature: float = number(1.0, at_least=0, at_most=2)
    """Sampling temperature; 0 is greedy."""
    num_problems: int = number(0, at_least=0)
    """Problems to draw; 0: all."""
    keep: list[KeepRule] = field(default_factory=lambda: [KeepRule.correct])
    """What a response must be to be kept."""
    min_tokens: int | None = number(None, at_least=0)
    """Shortest response to keep."""
    max_tokens: int | None = number(None, at_least=1)
    """Longest response to keep."""
    max_similarity: float = number(1.0, above=0, at_most=1)
    """Drop the later of two responses to a problem if the Jaccard similarity of their word 3-grams reaches this; 1:
    only exact repeats."""
    per_problem: int = number(0, at_least=0)
    """Largest number of responses to keep for a problem; 0: all."""
    pairs_per_problem: int = number(1, at_least=0)
    """Pairs of a kept and a wrong response to write for `r1zero reward-model`."""

    def faults(self, key: str) -> Iterator[str]:
        yield from super().faults(key)
        if self.min_tokens is not None and self.max_tokens is not None and self.min_tokens > self.max_tokens:
            yield (
                f"{key}min_tokens={self.min_tokens} is above {key}max_tokens={self.max_tokens}: no response could be "
                f"kept. Raise {key}max_tokens."
            )
        if self.language is not None and KeepRule.one_language not in self.keep:
            rules = ",".join([*self.keep, KeepRule.one_language])
            yield f"{key}language={self.language.value} has no effect without one_language. Set {key}keep={rules}."
