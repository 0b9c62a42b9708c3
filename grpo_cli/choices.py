"""What a setting can be chosen from: every enum, each defined here alone. Free of torch."""

from enum import StrEnum, auto


class Device(StrEnum):
    cpu = auto()
    cuda = auto()


class DType(StrEnum):
    fp32 = auto()
    bf16 = auto()


class AnswerMarker(StrEnum):
    """Where a template asks the model to put its final answer."""

    answer_tag = auto()  # <answer> ... </answer>
    boxed = auto()  # \boxed{...}
    text = auto()  # anywhere: the last box, else a stated final answer, else the last expression


class Grader(StrEnum):
    math = auto()  # mathematical equality with the gold answer
    expression = auto()  # an arithmetic expression that uses each given number once and has the right value
    code = auto()  # a program that passes the tests that are the gold
    model = auto()  # a general prompt without a checkable answer: the reward's model term alone tells


class AdvantageReward(StrEnum):
    """What the advantage is made of."""

    total = auto()  # the weighted sum of all reward terms
    accuracy = auto()  # 1 for a correct answer, else 0


class OnBadGold(StrEnum):
    """What becomes of a problem whose answer cannot be graded."""

    drop = auto()  # with a warning
    error = auto()


class Baseline(StrEnum):
    group_mean = auto()
    leave_one_out = auto()
    batch_mean = auto()
    none = auto()


class AdvantageScale(StrEnum):
    group_std = auto()
    batch_std = auto()  # of the centred rewards
    raw_batch_std = auto()  # of the rewards as they are
    none = auto()


class Select(StrEnum):
    """The responses that are trained on; the others are as if they had not been sampled."""

    all = auto()
    correct = auto()


class Overlong(StrEnum):
    """What a response counts for that was cut at rollout.max_new_tokens."""

    none = auto()  # what it earned
    zero_reward = auto()  # a reward and an accuracy of 0
    mask = auto()  # its reward in its group's statistics, and nothing in the objective


class Weighting(StrEnum):
    """What a token's term is divided by, over the B responses of one optimizer step."""

    sequence_mean = auto()  # B * its response's length
    constant = auto()  # B * rollout.max_new_tokens
    token_mean = auto()  # the number of response tokens
    sum = auto()  # B


class RatioLevel(StrEnum):
    token = auto()
    sequence = auto()


class Surrogate(StrEnum):
    clip = auto()  # PPO's clipped ratio
    cispo = auto()  # log-probability, weighted by the ratio below its upper bound
    none = auto()  # log-probability


class KLEstimator(StrEnum):
    k1 = auto()
    k2 = auto()
    k3 = auto()
    k3_unbiased = auto()  # times the ratio


class KLPlacement(StrEnum):
    loss = auto()  # of each token
    reward = auto()  # of the whole response, without gradient, taken off before the baseline
    reward_to_go = auto()  # of a token and all that follow it, without gradient, taken off its advantage


class SamplerCorrection(StrEnum):
    """Importance weights from vLLM's probabilities to the trainer's, of the same policy."""

    none = auto()
    token_truncate = auto()  # each token's ratio, at most the cap
    token_mask = auto()  # each token's ratio, or 0 outside floor and cap: IcePop
    sequence_mask = auto()  # the response's ratio, or 0 above the cap
    auto = "auto"  # token_truncate in bf16, where vLLM and the trainer round differently; none in fp32


class Schedule(StrEnum):
    constant = auto()
    cosine = auto()


class WandbMode(StrEnum):
    auto = "auto"  # as WANDB_MODE says; unless set, online where an API key is found, else offline
    online = "online"
    offline = "offline"


class Layout(StrEnum):
    """How a benchmark's rows become problems."""

    answer = auto()  # a column each for the problem and its answer
    multiple_choice = auto()  # GPQA's: a question, its right answer and three wrong ones; the answer is a letter
    humaneval = auto()  # a function to complete, and tests of it
    mbpp = auto()  # a task in words, and assert statements
    livecodebench = auto()  # a task in words, and test cases by call or by standard input and output


class KeepRule(StrEnum):
    """What a response must be, to be kept."""

    correct = auto()  # by the verifier's verdict
    well_formed = auto()  # it keeps to its template
    one_language = auto()  # it mixes no scripts of several languages, and is in sample.language where that is set


class Language(StrEnum):
    """The language that a response should reason in, told by its script."""

    en = auto()
    zh = auto()
    ja = auto()
    ko = auto()
    ru = auto()
    ar = auto()
    hi = auto()


class CodeScoring(StrEnum):
    all = auto()  # 1 where every test passes, else 0
    share = auto()  # the share of tests that pass


class Sandbox(StrEnum):
    bwrap = auto()  # bubblewrap
    none = auto()  # model-written code runs as the user: only for code that is trusted


class ScoredPrompts(StrEnum):
    """The prompts whose responses a reward model scores."""

    general = auto()  # those without a checkable answer
    all = auto()
