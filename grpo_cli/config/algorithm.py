"""`algorithm.*`: the objective. Each published method is a file of conf/algorithm/ that sets these switches."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from grpo_cli.bounds import number
from grpo_cli.choices import (
    AdvantageKind,
    AdvantageReward,
    AdvantageScale,
    Baseline,
    DType,
    KLEstimator,
    KLPlacement,
    Overlong,
    RatioLevel,
    SamplerCorrection,
    Select,
    Surrogate,
    Weighting,
)
from grpo_cli.config.model import model_folder_faults


@dataclass
class AdvantageConfig:
    """How rewards become advantages."""

    kind: AdvantageKind = AdvantageKind.rewards
    """What a response is compared with; gae needs a critic."""
    reward: AdvantageReward = AdvantageReward.total
    """What the advantage is computed from."""
    baseline: Baseline = Baseline.group_mean
    """What is subtracted from each reward."""
    scale: AdvantageScale = AdvantageScale.group_std
    """What the centred rewards are divided by."""
    std_ddof: int = number(0, at_least=0, at_most=1)
    """Standard deviation of the population (0) or of the sample (1); published texts differ."""
    eps: float = number(1e-6, at_least=0)
    """Added to the standard deviation."""
    whiten: bool = False
    """Afterwards, centre and scale by the mean and standard deviation over all tokens of the batch."""
    gamma: float = number(1.0, above=0, at_most=1)
    """Discount of later rewards with kind=gae."""
    gae_lambda: float = number(1.0, at_least=0, at_most=1)
    """1: the rewards that follow, minus the critic's value; smaller: more of the critic's later values instead."""


@dataclass
class RatioConfig:
    """The ratio of the new policy's probability to the sampling policy's."""

    level: RatioLevel = RatioLevel.token
    """One ratio for each token, or one for the whole response (GSPO)."""


@dataclass
class KLConfig:
    """The KL penalty to the reference, if algorithm.beta is above 0."""

    estimator: KLEstimator = KLEstimator.k3
    """Estimator of the KL from one sample."""
    placement: KLPlacement = KLPlacement.loss
    """Where the penalty enters the objective."""


@dataclass
class ReferenceConfig:
    """The reference model of the KL penalty."""

    path: str | None = None
    """A teacher: a folder or Hub id of a model with the same tokens; if not set, the model before training."""
    refresh_steps: int = number(0, at_least=0)
    """Optimizer steps between copies of the policy into the reference; 0: it stays the base model."""


@dataclass
class SamplerCorrectionConfig:
    """Importance weights and masks for the difference between vLLM's and the trainer's probabilities."""

    method: SamplerCorrection = SamplerCorrection.auto
    """How tokens are weighted."""
    cap: float = number(2.0, above=0)
    """Largest ratio; IcePop uses 5."""
    floor: float = number(0.5, at_least=0)
    """Smallest ratio of token_mask."""
    max_kl: float | None = number(None, at_least=0)
    """Responses with a negative advantage are dropped if their mean KL from the sampler is larger (DeepSeek-V3.2)."""

    def faults(self, key: str) -> Iterator[str]:
        if self.method == SamplerCorrection.token_mask and not 0 <= self.floor < 1 < self.cap:
            yield (
                f"{key}method=token_mask with floor={self.floor} and cap={self.cap} would drop tokens on which sampler "
                f"and trainer agree (ratio 1). Set {key}floor=0.5 and {key}cap=5, for example."
            )

    def method_in(self, dtype: DType) -> SamplerCorrection:
        """What `auto` means in `dtype`; any other method is itself."""
        if self.method != SamplerCorrection.auto:
            return self.method
        return SamplerCorrection.none if dtype == DType.fp32 else SamplerCorrection.token_truncate


@dataclass
class FunctionsConfig:
    """Parts of the objective that are Python functions of your own, as in my_objective.py:sapo (docs/algorithms.md)."""

    advantage: str | None = None
    """Computes the advantages, instead of algorithm.advantage.baseline and scale."""
    weighting: str | None = None
    """Computes the weights of responses or tokens, instead of algorithm.weighting."""
    surrogate: str | None = None
    """Computes the terms of the tokens, instead of algorithm.surrogate, with its ratio and epsilon."""


@dataclass
class DynamicSamplingConfig:
    """Replace groups whose responses are all right or all wrong by new prompts (DAPO)."""

    max_refills: int = number(0, at_least=0)
    """Rounds of new prompts in one step; 0: such groups stay."""


@dataclass
class EntropyBonusConfig:
    """A bonus for the entropy of each token, so that the policy keeps exploring."""

    weight: float = number(0.0, at_least=0)
    """Weight of the mean entropy in the objective; with a target, the weight at the start."""
    target: float | None = number(None, at_least=0)
    """Entropy in nats per token. Below it, the weight rises in each step; above it, the weight falls, and there is no
    bonus (Skywork-OR1 has 0.2)."""
    change: float = number(0.005, above=0)
    """How much the weight rises or falls."""


@dataclass
class AlgorithmConfig:
    """The objective of one optimizer step."""

    advantage: AdvantageConfig = field(default_factory=AdvantageConfig)
    select: Select = Select.all
    """Which responses to train on."""
    overlong: Overlong = Overlong.none
    """How a response counts that was cut at rollout.max_new_tokens."""
    dynamic_sampling: DynamicSamplingConfig = field(default_factory=DynamicSamplingConfig)
    weighting: Weighting = Weighting.sequence_mean
    """What a token's term is divided by."""
    surrogate: Surrogate = Surrogate.clip
    """The term of one token."""
    ratio: RatioConfig = field(default_factory=RatioConfig)
    epsilon: float = number(0.2, at_least=0)
    """The ratio is clipped to [1 - epsilon, 1 + epsilon_high]."""
    epsilon_high: float | None = number(None, at_least=0)
    """Upper clipping range; equal to epsilon if not set."""
    dual_clip: float | None = number(None, above=1)
    """Largest ratio of a token with a negative advantage."""
    beta: float = number(0.0, at_least=0)
    """Weight of the KL penalty; at 0 there is no reference model."""
    kl: KLConfig = field(default_factory=KLConfig)
    reference: ReferenceConfig = field(default_factory=ReferenceConfig)
    sampler_correction: SamplerCorrectionConfig = field(default_factory=SamplerCorrectionConfig)
    functions: FunctionsConfig = field(default_factory=FunctionsConfig)
    entropy_bonus: EntropyBonusConfig = field(default_factory=EntropyBonusConfig)
    top_entropy: float = number(1.0, above=0, at_most=1)
    """Share of tokens, those with the highest entropy, that are trained on; the 80/20 paper has 0.2."""
    num_minibatches: int = number(1, at_least=1)
    """Optimizer steps for each rollout and epoch."""
    num_epochs: int = number(1, at_least=1)
    """Passes over each rollout."""

    def faults(self, key: str) -> Iterator[str]:
        advantage = self.advantage
        if advantage.scale == AdvantageScale.group_std and advantage.baseline in (Baseline.none, Baseline.batch_mean):
            yield (
                f"{key}advantage.scale=group_std with {key}advantage.baseline={advantage.baseline.value} would give "
                "huge advantages to groups whose rewards are all equal. Set "
                f"{key}advantage.scale=batch_std, or {key}advantage.baseline=group_mean."
            )
        is_plain = advantage.baseline == Baseline.none and advantage.scale == AdvantageScale.none
        if advantage.kind == AdvantageKind.gae and not (is_plain and self.functions.advantage is None):
            yield (
                f"{key}advantage.kind=gae compares with the critic's values, so nothing else can be subtracted or "
                f"divided by. Set {key}advantage.baseline=none, {key}advantage.scale=none and "
                f"{key}functions.advantage=null; {key}advantage.whiten=true scales the advantages."
            )
        if advantage.reward == AdvantageReward.none and (self.reference.path is None or self.beta == 0):
            yield (
                f"{key}advantage.reward=none leaves only the KL to a teacher to learn from. Name one with "
                f"{key}reference.path=<folder or Hub id> and set {key}beta=1, or set {key}advantage.reward=total."
            )
        if self.reference.path is not None:
            yield from model_folder_faults(f"{key}reference.path", self.reference.path)
            if self.reference.refresh_steps > 0:
                yield (
                    f"{key}reference.refresh_steps={self.reference.refresh_steps} would replace the weights of "
                    f"{key}reference.path={self.reference.path} by the policy's. Set one of them to null or 0."
                )

    def warnings(self) -> Iterator[str]:
        """Combinations that run, but do not do what they seem to do."""
        if self.dual_clip is not None and self.surrogate != Surrogate.clip:
            yield (
                f"algorithm.dual_clip={self.dual_clip:g} has no effect with algorithm.surrogate="
                f"{self.surrogate.value}. Set algorithm.surrogate=clip, or algorithm.dual_clip=null."
            )
        num_steps = self.num_minibatches * self.num_epochs
        # Expert iteration (select=correct) learns a fixed set of responses, whichever policy sampled them.
        has_ratio = self.surrogate != Surrogate.none or self.functions.surrogate is not None
        if not has_ratio and self.select == Select.all and num_steps > 1:
            yield (
                f"algorithm.surrogate=none takes {num_steps} optimizer steps a rollout without a ratio: from the "
                "second on, the policy is not the one that sampled, and the gradient is biased. Set "
                "algorithm.num_minibatches=1 and algorithm.num_epochs=1, or algorithm.surrogate=clip."
            )
        if self.ratio.level == RatioLevel.sequence and self.weighting == Weighting.token_mean:
            yield (
                "algorithm.ratio.level=sequence with algorithm.weighting=token_mean weighs a response's one ratio by "
                "its length: long responses count more. Set algorithm.weighting=sequence_mean, as GSPO does."
            )
        if self.advantage.kind != AdvantageKind.gae and (self.advantage.gamma, self.advantage.gae_lambda) != (1, 1):
            yield (
                "algorithm.advantage.gamma and .gae_lambda have no effect without a critic. Choose algorithm=ppo, or "
                "set both to 1."
            )
        for name, value in (("refresh_steps", self.reference.refresh_steps), ("path", self.reference.path)):
            if value and self.beta == 0:
                yield f"algorithm.reference.{name} has no effect while algorithm.beta is 0."
