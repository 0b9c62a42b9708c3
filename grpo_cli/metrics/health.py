"""Detects common problems of RL runs from their metrics, while there is still time to fix them."""

import math
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

FORMAT, ACCURACY = "reward_term/format/mean", "reward_term/accuracy/mean"

WINDOW = 5  # steps that a metric is averaged over, so that one noisy step is not a finding
LONG_WINDOW = 100  # steps after which a reward that has not changed counts as stuck

TRUNCATED = 0.5  # share of responses that were cut; the policy then mostly learns from unfinished answers
AGREEING = 0.9  # share of groups; only a tenth of the batch then gives a gradient
ENTROPY_LEFT = 0.1  # of the entropy at the start; there is then little exploration, and it does not recover
KL = 1.0  # nats per token; the reference then gives a sampled token a third of the policy's probability
MISMATCH = 0.5  # of the limit at which the run stops
FORMAT_SOLVED = 0.9  # mean format reward
ACCURACY_LOW = 0.2  # mean accuracy; a stuck accuracy above it may be the best that the problems allow
STUCK = 0.02  # change between the halves of the long window; about three standard errors for 128 responses per step
SKIPPED = 1  # optimizer steps in a window; normally none
UNPARSABLE = 0.98  # share of answers; even an untrained model finds the right place more often
LOSS = 0.01  # absolute; the KL term and unequal lengths make it differ from 0
TIMED_OUT = 0.05  # share of responses; right answers among them are trained as wrong ones


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem, with the metric's value and the settings to change; without `fix`, a note that nothing is wrong."""

    name: str
    words: str
    fix: str = ""

    @property
    def text(self) -> str:
        return f"{self.words} {self.fix}".strip()


class Health:
    """Reads a run's metrics row by row, and nothing else, so that the same rows always give the same findings.

    `mismatch_limit` is the limit at which the run stops; a finding warns before it is reached.
    """

    def __init__(self, mismatch_limit: float | None = None) -> None:
        self._mismatch_limit = math.nan if mismatch_limit is None else mismatch_limit
        self._rows: deque[Mapping[str, float]] = deque(maxlen=LONG_WINDOW)
        self._first_entropies: list[float] = []
        self._last_true_at: dict[str, float] = {}  # the last step at which a finding was true

    def update(self, row: Mapping[str, float]) -> list[Finding]:
        """The findings that become true with this step. A finding is reported again only after a window without it."""
        step = row["step"]
        if step == 0:  # the evaluation before training
            return []
        self._rows.append(row)
        if len(self._first_entropies) < WINDOW and "policy/entropy" in row:
            self._first_entropies.append(row["policy/entropy"])
        findings = list(self._findings())
        new = [finding for finding in findings if step - self._last_true_at.get(finding.name, -math.inf) > WINDOW]
        self._last_true_at |= {finding.name: step for finding in findings}
        return new

    def _findings(self) -> Iterator[Finding]:
        if (cut := self._mean("length/truncated")) >= TRUNCATED:
            yield Finding(
                "responses are cut",
                f"{_percent(cut)} of the responses were cut at the limit.",
                "Raise rollout.max_new_tokens, or set algorithm.overlong to say how they count.",
            )
        has_teacher = "policy/kl_teacher" in self._rows[-1]  # every token then has a signal
        if (agreeing := self._mean("group/agreeing")) >= AGREEING and not has_teacher:
            right, wrong = self._mean("group/all_right"), self._mean("group/all_wrong")
            yield Finding(
                "equal rewards in groups",
                f"in {_percent(agreeing)} of the groups all responses have the same reward, which gives no gradient "
                f"({_percent(right)} are all right, {_percent(wrong)} all wrong).",
                "Choose problems by data.pass_rate, or raise algorithm.dynamic_sampling.max_refills or "
                "rollout.group_size.",
            )
        entropy, first = self._mean("policy/entropy"), sum(self._first_entropies) / WINDOW
        if entropy < ENTROPY_LEFT * first:
            yield Finding(
                "entropy collapsed",
                f"the policy's entropy fell from {first:.2g} to {entropy:.2g} nats per token: it no longer explores.",
                "Raise algorithm.epsilon_high, algorithm.beta or rollout.temperature.",
            )
        if (kl := self._mean("policy/kl_ref")) >= KL:
            yield Finding(
                "KL exploded",
                f"the KL to the reference is {kl:.3g} nats per token.",
                "Raise algorithm.beta or lower optimizer.lr.",
            )
        if (mismatch := self._mean("sampler/logprob_diff_mean")) >= MISMATCH * self._mismatch_limit:
            yield Finding(
                "sampler and trainer disagree",
                f"the sampler's and the trainer's log-probabilities differ by {mismatch:.2g} on average; the run stops "
                f"at rollout.mismatch_limit={self._mismatch_limit:g}.",
                "Look at cluster.dtype, or correct for it with algorithm.sampler_correction.method.",
            )
        form, accuracy = self._mean(FORMAT, LONG_WINDOW), self._mean(ACCURACY, LONG_WINDOW)
        is_stuck = self._change(FORMAT) < STUCK and self._change(ACCURACY) < STUCK
        if form >= FORMAT_SOLVED and accuracy < ACCURACY_LOW and is_stuck:
            yield Finding(
                "only the format is learned",
                f"the format reward is solved ({form:.2f}) and the accuracy has not moved from {accuracy:.2f} in "
                f"{LONG_WINDOW} steps.",
                "Lower reward.terms.format.weight, or look at data (are the problems too hard?) and template.",
            )
        skipped = sum(row.get("policy/skipped_steps", 0) for row in list(self._rows)[-WINDOW:])
        if skipped >= SKIPPED:
            yield Finding(
                "optimizer steps are skipped",
                f"the gradient of {skipped:g} optimizer steps was not finite, and they were skipped.",
                "Lower optimizer.lr, or set cluster.dtype=fp32.",
            )
        unparsable = self._mean("verify/unparsable")
        if unparsable >= UNPARSABLE and cut < TRUNCATED:  # a response that was cut has no answer either
            yield Finding(
                "no answer is found",
                f"{_percent(unparsable)} of the responses have no answer where the reward looks for it: at "
                "template.answer, or at reward.terms.accuracy.marker if that is set.",
                "`r1zero grade <the run's folder>` shows what they say. If they answer in another place, set it to "
                "that place (answer_tag, boxed or text), or let template.text ask for the right one. If they give no "
                "answer, use a template that the model knows, or start with `r1zero sft`.",
            )
        if (timed_out := self._mean("verify/timeout")) >= TIMED_OUT:
            yield Finding(
                "answers time out",
                f"{_percent(timed_out)} of the answers were not judged in time and count as wrong.",
                "Raise reward.timeout_s.",
            )
        loss, has_signal = (
            self._mean("policy/loss"),
            not agreeing >= AGREEING,
        )  # otherwise 0 means that nothing is learned
        if has_signal and len(self._rows) == WINDOW and abs(loss) < LOSS and "reward/group_std" in self._rows[-1]:
            yield Finding(
                "loss is near 0",
                f"policy/loss is near 0 ({loss:.1g}), as it must be with one minibatch and one epoch: the advantages "
                "add up to 0. It says nothing about progress; reward/mean and eval/heldout/avg do.",
            )

    def _last(self, name: str, num: int) -> list[float]:
        return [row[name] for row in self._rows if name in row][-num:]

    def _mean(self, name: str, num: int = WINDOW) -> float:
        """The mean over the last `num` steps. If there are fewer: nan, for which every comparison is False."""
        values = self._last(name, num)
        return sum(values) / num if len(values) == num else math.nan

    def _change(self, name: str) -> float:
        """The difference between the means of the long window's halves; nan if there are fewer steps."""
        half = LONG_WINDOW // 2
        return abs(2 * (self._mean(name, LONG_WINDOW) - self._mean(name, half)))


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
