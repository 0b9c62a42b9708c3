"""Which division of GPUs trains fastest: `python benchmarks/rollout_layouts.py`.

A simulation of whole steps, not a measurement; it needs no GPU and about two minutes. Engines generate response by
response with lengths that are drawn from a log-normal distribution, or from the responses that a run has kept. Three
layouts are compared: every GPU generates and trains in turn; some GPUs only generate and wait for the others (staleness
0), or generate the next step's responses during the update (staleness 1). With partial rollouts
(`rollout.oversample`), a step ends when enough groups are complete, and the next one continues the others.

Rates are those of `r1zero plan`: a decoding step reads the weights and all keys and values, computes, or waits for
vLLM's Python code, whichever is slowest. docs/rollout_layouts.md has the results and what the simulation leaves out.
"""

import argparse
import math
import random
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from pathlib import Path
from statistics import mean

from layout_cases import PROMPT, PUBLISHED, SIZES, Case
from results import table

from grpo_cli.choices import Device
from grpo_cli.planner.batches import AT_ONCE_LARGE
from grpo_cli.planner.duration import (
    BANDWIDTH_SHARE,
    LINK_SHARE,
    MATRIX_SHARE,
    NODE_LINK,
    SEQUENCE_S,
    SLEEP_S,
    STEP_S,
)
from grpo_cli.planner.memory import GIB, VLLM_ALLOWANCE
from grpo_cli.runs.rollouts import Split, read_groups

STEPS, WARM_UP = 8, 2  # simulated steps, and those before them, until as many responses are carried over as are left
MOST_SPLITS = 16  # numbers of generating GPUs to try for a case
OVERSAMPLE = 1.0  # with partial rollouts: groups in addition to those of a step, as a share of them
SEGMENTS = 8  # of the longest response, with partial rollouts
TRAINING_PASSES = 5  # in forward passes: forward, backward (two), recomputed layers, old log-probabilities
SPLIT_MEMORY = 0.9  # share of a GPU for vLLM, if it only generates
MICROBATCH = 16_384  # tokens


@dataclass(frozen=True)
class Response:
    """A response. Numbers of tokens."""

    prefix: int  # known: the prompt, and what has been generated
    left: int  # to be generated
    cached: int = 0  # of the prefix, in the KV cache

    def segment(self, size: int) -> "Response":
        """What is generated next."""
        return replace(self, left=min(self.left, size))

    def after(self, size: int) -> "Response":
        """The response after that."""
        prefix = self.prefix + min(self.left, size)
        return Response(prefix, self.prefix + self.left - prefix, prefix)


@dataclass(frozen=True)
class Engine:
    """The rates of one engine."""

    case: Case
    memory_share: float

    @property
    def slots(self) -> int:
        """How many responses it generates at the same time."""
        case = self.case
        cache = case.engine_gpus * (self.memory_share * (case.gpu.memory_gib or 0) * GIB - VLLM_ALLOWANCE)
        room = (cache - case.model.weights) / (case.model.kv_token * (PROMPT + case.mean))
        return max(1, min(AT_ONCE_LARGE, int(room)))

    def step_s(self, running: int, context: float) -> float:
        """Seconds for one more token of each running response; `context` counts the tokens that all of them have."""
        model, gpus = self.case.model, self.case.engine_gpus
        read = (model.weights + context * model.kv_token) / (gpus * BANDWIDTH_SHARE * self.case.gpu.bandwidth)
        flops = 2 * model.active * running + model.attention * context
        host = STEP_S[Device.cuda] + SEQUENCE_S[Device.cuda] * running
        return max(read, flops / (gpus * MATRIX_SHARE * self.case.gpu.peak_flops), host)

    def prefill_s(self, tokens: int) -> float:
        flops = 2 * self.case.model.active * tokens + self.case.model.attention * tokens**2 / 2
        return flops / (self.case.engine_gpus * MATRIX_SHARE * self.case.gpu.peak_flops)


def generate(responses: Sequence[Response], engine: Engine, most: int | None = None) -> tuple[float, float]:
    """Seconds until an engine has generated all responses, and the same weighted by the share of its slots in use.

    `most` is how many responses this step has given it at a time; all of these if None.
    """
    slots = min(engine.slots, most or len(responses))
    waiting = deque(responses)
    running: list[tuple[int, int]] = []  # (decoding step after which it is complete, all its tokens)
    seconds = busy = 0.0
    step = context = 0
    while waiting or running:
        while waiting and len(running) < slots:
            response = waiting.popleft()
            prefill = engine.prefill_s(response.prefix - response.cached)
            seconds, busy = seconds + prefill, busy + prefill
            context += response.prefix
            heappush(running, (step + response.left, response.prefix + response.left))
        num_steps = running[0][0] - step
        # The context grows evenly: its mean gives the exact sum while the same rate limits.
        spent = num_steps * engine.step_s(len(running), context + len(running) * num_steps / 2)
        seconds, busy = seconds + spent, busy + spent * len(running) / slots
        step, context = step + num_steps, context + num_steps * len(running)
        while running and running[0][0] == step:
            context -= heappop(running)[1]
    return seconds, busy


def update_s(finished: Sequence[int], case: Case, trainers: int) -> float:
    """Seconds of an update on sequences of so many tokens: computation, and ZeRO-3's exchange for each micro-batch."""
    model = case.model
    forward = sum(2 * model.active * tokens + model.attention * tokens**2 / 2 for tokens in finished)
    computation = TRAINING_PASSES * forward / (trainers * case.training_share * case.gpu.peak_flops)
    num_microbatches = max(case.minibatches, sum(finished) / trainers / MICROBATCH)
    return computation + num_microbatches * 3 * (1 - 1 / trainers) * case.model.weights / _link(case)


def sync_s(case: Case, *, is_split: bool) -> float:
    """Seconds to gather the weights, to send them to other GPUs if these generate, and to load them."""
    loaded = 2 * case.model.weights / case.engine_gpus / (BANDWIDTH_SHARE * case.gpu.bandwidth)
    return loaded + (2 if is_split else 1) * case.model.weights / _link(case) + (0 if is_split else SLEEP_S)


def _link(case: Case) -> float:
    return NODE_LINK if case.gpus > 8 else LINK_SHARE * case.gpu.link


@dataclass(frozen=True)
class Step:
    generation: float  # seconds, until the last engine is ready
    busy: float  # GPU-seconds of generation
    update: float  # seconds
    trained: int  # responses


def steps(case: Case, generating: int, *, is_partial: bool) -> list[Step]:
    """The steps of a run in which `generating` GPUs generate; if it is all of them, they also train.

    With partial rollouts, a group is continued in one later step at most.
    """
    is_split = generating < case.gpus
    engine = Engine(case, SPLIT_MEMORY if is_split else case.colocated_memory)
    num_engines = generating // case.engine_gpus
    num_wanted = case.responses // case.group_size  # groups
    in_flight = num_wanted + int(OVERSAMPLE * num_wanted) if is_partial else num_wanted
    size = math.ceil(case.cap / SEGMENTS) if is_partial else case.cap
    draw, done, waiting = case.lengths(random.Random(0)), [], []
    for _ in range(WARM_UP + STEPS):
        generation = busy = 0.0
        most = 0  # responses of an engine
        num_late = len(waiting)  # the first ones
        groups = [[replace(response, cached=0) for response in group] for group in waiting]  # the weights are new
        while len(groups) < in_flight:
            groups.append([Response(PROMPT, next(draw)) for _ in range(case.group_size)])
        while True:
            complete = [all(response.left == 0 for response in group) for group in groups]
            if sum(complete) >= num_wanted and all(complete[:num_late]):
                break
            asked = [response.segment(size) for group in groups for response in group if response.left]
            most = most or -(-len(asked) // num_engines)
            spent = [generate(asked[place::num_engines], engine, most) for place in range(num_engines)]
            generation += max(seconds for seconds, _ in spent)
            busy += case.engine_gpus * sum(seconds for _, seconds in spent)
            groups = [[response.after(size) for response in group] for group in groups]
        chosen = [place for place, is_complete in enumerate(complete) if is_complete][:num_wanted]
        waiting = [group for place, group in enumerate(groups) if place not in chosen]
        finished = [response.prefix for place in chosen for response in groups[place]]
        update = update_s(finished, case, case.gpus - generating if is_split else case.gpus)
        done.append(Step(generation, busy, update, len(finished)))
    return done[WARM_UP:]


@dataclass(frozen=True)
class Outcome:
    """Means over steps."""

    generating: int  # GPUs
    step: float  # seconds, for as many responses as the case has
    utilisation: float  # share of the GPUs' time


def outcome(case: Case, generating: int, done: Sequence[Step], staleness: int) -> Outcome:
    """The step time of one layout. With staleness, the responses of the next step are generated during an update."""
    is_split = generating < case.gpus
    sync = sync_s(case, is_split=is_split)
    if staleness == 0:
        seconds = sum(step.generation + step.update + sync for step in done)
    else:
        following = [*done[1:], done[0]]
        seconds = sum(max(step.update, later.generation) + sync for step, later in zip(done, following, strict=True))
    trainers = case.gpus - generating if is_split else case.gpus
    busy = sum(step.busy + trainers * step.update + case.gpus * sync for step in done)
    per_response = seconds / sum(step.trained for step in done)
    return Outcome(generating, case.responses * per_response, busy / (case.gpus * seconds))


def layouts(
    case: Case, *, is_partial: bool = False, generating: int | None = None, scale: tuple[float, float] = (1, 1)
) -> tuple[Outcome, Outcome, Outcome]:
    """Every GPU does both; the best split with staleness 0; the best with 1.

    `generating` fixes the splits; `scale` multiplies the seconds of generation and update.
    """

    def scaled(num: int) -> list[Step]:
        done = steps(case, num, is_partial=is_partial)
        by, update = scale
        return [Step(each.generation * by, each.busy * by, each.update * update, each.trained) for each in done]

    together = outcome(case, case.gpus, scaled(case.gpus), 0)
    simulated = {num: scaled(num) for num in ([generating] if generating else split_sizes(case))}

    def best(staleness: int) -> Outcome:
        return min(
            (outcome(case, num, done, staleness) for num, done in simulated.items()), key=lambda found: found.step
        )

    return together, best(0), best(1)


def split_sizes(case: Case) -> Iterator[int]:
    """Numbers of GPUs that generate: multiples of an engine's, evenly spaced."""
    num_engines = case.gpus // case.engine_gpus
    apart = math.ceil(num_engines / MOST_SPLITS)
    yield from (case.engine_gpus * num for num in range(apart, num_engines, apart))


def size_rows(cases: Sequence[Case]) -> Iterator[list[str]]:
    names = ("every GPU does both", "split, staleness 0", "split, staleness 1")
    for case in cases:
        reference = None
        for is_partial in (False, True):
            for name, found in zip(names, layouts(case, is_partial=is_partial), strict=True):
                reference = reference or found.step
                generating = f"{found.generating}" if found.generating < case.gpus else "all"
                yield [
                    f"{case.gpus}",
                    name,
                    "yes" if is_partial else "no",
                    generating,
                    f"{found.step:.0f}",
                    f"{found.utilisation:.0%}",
                    f"{reference / found.step:.2f}",
                ]


def published_rows(cases: Sequence[Case]) -> Iterator[list[str]]:
    for case in cases:
        done, scale = steps(case, case.gpus, is_partial=False), (1.0, 1.0)
        if case.measured:  # how much slower generation and update are than simulated, if every GPU does both
            generation, update = mean(step.generation for step in done), mean(step.update for step in done)
            scale = case.measured[0] / generation, case.measured[1] / update
        together, _, theirs = layouts(case, generating=case.generating, scale=scale)
        if case.is_partial:
            *_, theirs = layouts(case, is_partial=True, generating=case.generating, scale=scale)
        *_, best = layouts(case, is_partial=case.is_partial, scale=scale)
        yield [
            case.name,
            f"{case.generating}",
            case.published,
            f"{together.step / theirs.step:.2f}",
            f"{together.step / best.step:.2f} with {best.generating}",
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    one = SIZES[0]
    parser.add_argument("--mean", type=float, default=one.mean, help="tokens of a response before the cut: %(default)s")
    parser.add_argument("--sigma", type=float, default=one.sigma, help="of the log-normal lengths: %(default)s")
    parser.add_argument("--cap", type=int, default=one.cap, help="token limit of a response: %(default)s")
    parser.add_argument("--per-gpu", type=int, help="responses of a step for each GPU: 64, or 16 on 512 GPUs")
    parser.add_argument("--run", type=Path, help="draw the lengths from the responses that this run has kept instead")
    given = parser.parse_args()
    cases = [replace(case, mean=given.mean, sigma=given.sigma, cap=given.cap) for case in SIZES]
    if given.per_gpu:
        cases = [replace(case, responses=given.per_gpu * case.gpus) for case in cases]
    if given.run:
        kept = tuple(each.tokens for group in read_groups(given.run, Split.train) for each in group.responses)
        if not kept:
            parser.error(f"{given.run} has kept no responses of training steps.")
        cases = [replace(case, kept=kept, mean=mean(kept), cap=max(kept)) for case in cases]
    header = ["GPUs", "layout", "partial rollouts", "GPUs that generate", "s per step", "utilisation", "speed"]
    print(table(header, list(size_rows(cases))))
    header = ["published", "GPUs that generate", "ratio", "simulated", "simulated with the best split"]
    print("\n" + table(header, list(published_rows(PUBLISHED))))


if __name__ == "__main__":
    main()
