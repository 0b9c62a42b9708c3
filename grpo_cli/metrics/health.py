"""What goes wrong in runs of this kind, told from their metrics while there is time to mend it."""

import math
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

WINDOW = 5  # steps that a figure is averaged over: one noisy step is no finding
LONG_WINDOW = 100  # steps after which a reward that has not moved is taken to stand still

TRUNCATED = 0.5  # share of responses cut; then most of what is learned comes from answers without an end
AGREEING = 0.9  # share of groups; a tenth of the batch is left to learn from
ENTROPY_LEFT = 0.1  # of what the run began with; little is left to explore by then, and it does not come back
KL = 1.0  # nats a token; the reference then gives a sampled token a third of the policy's probability
MISMATCH = 0.5  # of the limit at which the run is stopped
FORMAT_SOLVED = 0.9  # mean format reward
ACCURACY_LOW = 0.2  # mean accuracy; one that stands still above it may be all that the problems allow
STILL = 0.02  # change between the halves of the long window; about three standard errors of 128 a step
SKIPPED = 1  # optimizer steps in a window; there should be none
TIMED_OUT = 0.05  # share of responses; a right answer among them is taught as a wrong one


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong, with the figure seen and the settings to look at."""

    title: str
    text: str


class Health:
    """Reads a run's metrics row by row; nothing else goes in, so that the same rows give the same findings.

    With a `mismatch_limit`, at which the run is stopped, it warns below it.
    """

    def __init__(self, mismatch_limit: float | None = None) -> None:
        self._mismatch_limit = math.nan if mismatch_limit is None else mismatch_limit
        self._rows: deque[Mapping[str, float]] = deque(maxlen=LONG_WINDOW)
        self._first_entropies: list[float] = []
        self._held_at: dict[str, float] = {}  # the last step at which a finding held

    def update(self, row: Mapping[str, float]) -> list[Finding]:
        """What begins to hold with this step. It is told again only once it was gone for a window."""
        step = row["step"]
        if step == 0:  # the evaluation before training
            return []
        self._rows.append(row)
        if len(self._first_entropies) < WINDOW and "policy/entropy" in row:
            self._first_entropies.append(row["policy/entropy"])
        found = list(self._findings())
        begun = [finding for finding in found if step - self._held_at.get(finding.title, -math.inf) > WINDOW]
        self._held_at |= {finding.title: step for finding in found}
        return begun

    def _findings(self) -> Iterator[Finding]:
        if (cut := self._mean("length/truncated")) >= TRUNCATED:
            yield Finding(
                "responses are cut",
                f"{_percent(cut)} of the responses were cut at the limit. Raise rollout.max_new_tokens, or set "
                "algorithm.overlong to say what they count for.",
            )
        if (agreeing := self._mean("group/agreeing")) >= AGREEING:
            right, wrong = self._mean("group/all_right"), self._mean("group/all_wrong")
            yield Finding(
                "groups agree",
                f"{_percent(agreeing)} of the groups agree and give no gradient ({_percent(right)} are all right, "
                f"{_percent(wrong)} all wrong). Choose problems by data.pass_rate, or raise "
                "algorithm.dynamic_sampling.max_refills or rollout.group_size.",
            )
        entropy, first = self._mean("policy/entropy"), sum(self._first_entropies) / WINDOW
        if entropy < ENTROPY_LEFT * first:
            yield Finding(
                "entropy collapsed",
                f"the policy's entropy fell from {first:.2g} to {entropy:.2g} nats a token: it no longer explores. "
                "Raise algorithm.epsilon_high, algorithm.beta or rollout.temperature.",
            )
        if (kl := self._mean("policy/kl_ref")) >= KL:
            yield Finding(
                "KL exploded",
                f"the KL to the reference is {kl:.3g} nats a token. Raise algorithm.beta or lower optimizer.lr.",
            )
        if (mismatch := self._mean("sampler/logprob_diff_mean")) >= MISMATCH * self._mismatch_limit:
            yield Finding(
                "sampler and trainer disagree",
                f"the sampler's and the trainer's log-probabilities differ by {mismatch:.2g} on average; the run stops "
                f"at rollout.mismatch_limit={self._mismatch_limit:g}. Look at cluster.dtype, or correct for it by "
                "algorithm.sampler_correction.method.",
            )
        form, accuracy = self._mean("reward/format", LONG_WINDOW), self._mean("reward/accuracy", LONG_WINDOW)
        stands_still = self._change("reward/format") < STILL and self._change("reward/accuracy") < STILL
        if form >= FORMAT_SOLVED and accuracy < ACCURACY_LOW and stands_still:
            yield Finding(
                "only the format is learned",
                f"the format reward is solved ({form:.2f}) and the accuracy has not moved from {accuracy:.2f} in "
                f"{LONG_WINDOW} steps. Lower reward.terms.format.weight, or look at data (are the problems too hard?) "
                "and template.",
            )
        skipped = sum(row.get("policy/skipped_steps", 0) for row in list(self._rows)[-WINDOW:])
        if skipped >= SKIPPED:
            yield Finding(
                "optimizer steps are skipped",
                f"the gradient of {skipped:g} optimizer steps was not finite, and they were skipped. Lower "
                "optimizer.lr, or set cluster.dtype=fp32.",
            )
        if (timed_out := self._mean("verify/timeout")) >= TIMED_OUT:
            yield Finding(
                "answers time out",
                f"{_percent(timed_out)} of the answers were not judged in time and count as wrong. Raise "
                "reward.timeout_s.",
            )

    def _last(self, name: str, num: int) -> list[float]:
        return [row[name] for row in self._rows if name in row][-num:]

    def _mean(self, name: str, num: int = WINDOW) -> float:
        """Over the last `num` steps; nan where there are fewer, and no comparison with it holds."""
        values = self._last(name, num)
        return sum(values) / num if len(values) == num else math.nan

    def _change(self, name: str) -> float:
        """By how much the halves of the long window differ; nan as above."""
        half = LONG_WINDOW // 2
        return abs(2 * (self._mean(name, LONG_WINDOW) - self._mean(name, half)))


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
