"""Every enum of the settings, defined here once. The comments say what each choice means. Does not import torch."""

from enum import StrEnum, auto


class Device(StrEnum):
    cpu = auto()
    cuda = auto()


class DType(StrEnum):
    fp32 = auto()
    bf16 = auto()


class AnswerMarker(StrEnum):
    """Where a template asks the model to put its final answer."""

    answer_tag = auto()  # in <answer> ... </answer>
    boxed = auto()  # in \boxed{...}
    text = auto()  # anywhere: the last box, otherwise a stated final answer, otherwise the last expression


class Grader(StrEnum):
    """What makes an answer correct."""

    math = auto()  # it equals the gold answer mathematically
    expression = auto()  # it is an arithmetic expression that uses each given number once and has the right value
    code = auto()  # it is a program that passes the tests, which are the gold answer
    model = auto()  # no rule can tell (a general prompt); only a reward model scores the response


class AdvantageReward(StrEnum):
    """The reward that the advantage is computed from."""

    total = auto()  # the weighted sum of all reward terms
    accuracy = auto()  # 1 for a correct answer, otherwise 0
    none = auto()  # always 0: only the KL counts, as in distillation


class OnBadGold(StrEnum):
    """What happens to a problem whose gold answer cannot be graded."""

    drop = auto()  # it is left out, with a warning
    error = auto()  # the command stops with an error


class AdvantageKind(StrEnum):
    """What a response is compared with."""

    rewards = auto()  # other rewards of the rollout: one advantage for the whole response
    gae = auto()  # a critic's values: one advantage for each token (generalised advantage estimation)


class Baseline(StrEnum):
    """What is subtracted from each reward."""

    group_mean = auto()  # the mean reward of its group
    leave_one_out = auto()  # the mean reward of the other responses of its group
    batch_mean = auto()  # the mean reward of the batch
    none = auto()


class AdvantageScale(StrEnum):
    """What the centred rewards are divided by."""

    group_std = auto()  # the standard deviation of the group's rewards
    batch_std = auto()  # the standard deviation of the centred rewards in the batch
    raw_batch_std = auto()  # the standard deviation of the rewards in the batch, before centring
    none = auto()


class Select(StrEnum):
    """The responses to train on; the others are ignored, as if they had not been sampled."""

    all = auto()
    correct = auto()  # only those with a correct answer


class Overlong(StrEnum):
    """How a response counts that was cut at rollout.max_new_tokens."""

    none = auto()  # like any other response
    zero_reward = auto()  # its reward and accuracy become 0
    mask = auto()  # its reward counts in its group's statistics, but its tokens are left out of the objective


class Weighting(StrEnum):
    """What each token's term is divided by. B is the number of responses in one optimizer step."""

    sequence_mean = auto()  # B * the length of the token's response
    constant = auto()  # B * rollout.max_new_tokens
    token_mean = auto()  # the number of response tokens
    sum = auto()  # B


class RatioLevel(StrEnum):
    """What has its own ratio of new to old probability."""

    token = auto()  # each token
    sequence = auto()  # each response: the geometric mean over its tokens


class Surrogate(StrEnum):
    """The objective of one token."""

    clip = auto()  # PPO's clipped ratio
    cispo = auto()  # the log-probability, weighted by the ratio, which is cut at its upper bound
    none = auto()  # the log-probability


class KLEstimator(StrEnum):
    """How the KL to the reference is estimated from one sample (http://joschu.net/blog/kl-approx.html)."""

    k1 = auto()
    k2 = auto()
    k3 = auto()
    k3_unbiased = auto()  # k3 times the ratio


class KLPlacement(StrEnum):
    """Where the KL penalty enters the objective."""

    loss = auto()  # each token's KL is added to its loss
    reward = auto()  # the whole response's KL is subtracted from its reward, before the baseline; no gradient
    reward_to_go = auto()  # the KL of a token and all later ones is subtracted from its advantage; no gradient


class SamplerCorrection(StrEnum):
    """Importance weights that correct vLLM's probabilities to the trainer's; both are of the same policy."""

    none = auto()
    token_truncate = auto()  # each token's ratio, cut at the cap
    token_mask = auto()  # each token's ratio, or 0 if it is outside floor and cap (IcePop)
    sequence_mask = auto()  # the response's ratio, or 0 if it is above the cap
    auto = "auto"  # token_truncate in bf16, where vLLM and the trainer round differently; none in fp32


class Schedule(StrEnum):
    """The learning rate after warm-up."""

    constant = auto()
    cosine = auto()


class TrackerName(StrEnum):
    """A service that shows the metrics of runs."""

    wandb = auto()  # Weights & Biases
    tensorboard = auto()  # event files in the run folder
    trackio = auto()  # a local database, or a Hugging Face Space if TRACKIO_SPACE_ID is set


class WandbMode(StrEnum):
    """Whether W&B uploads a run."""

    auto = "auto"  # as WANDB_MODE says; if it is not set, online if there is an API key, otherwise offline
    online = "online"
    offline = "offline"


class Layout(StrEnum):
    """How a benchmark's rows become problems."""

    answer = auto()  # one column holds the problem, another the answer
    multiple_choice = auto()  # a question, its right answer and three wrong ones, as in GPQA; the answer is a letter
    humaneval = auto()  # a function to complete, and its tests
    mbpp = auto()  # a task in words, and assert statements
    livecodebench = auto()  # a task in words, and test cases: function calls, or standard input and output


class KeepRule(StrEnum):
    """What a response must be to be kept."""

    correct = auto()  # the verifier says that its answer is correct
    well_formed = auto()  # it has the format that its template asks for
    one_language = auto()  # it does not mix the scripts of several languages, and is in sample.language if that is set


class Language(StrEnum):
    """The language that a response should reason in; its script is what is checked."""

    en = auto()
    zh = auto()
    ja = auto()
    ko = auto()
    ru = auto()
    ar = auto()
    hi = auto()


class CodeScoring(StrEnum):
    """The reward of a program."""

    all = auto()  # 1 if every test passes, otherwise 0
    share = auto()  # the share of tests that pass


class Sandbox(StrEnum):
    """Where model-written code runs."""

    bwrap = auto()  # in bubblewrap
    none = auto()  # directly, with all your rights: only for code that you trust


class ScoredPrompts(StrEnum):
    """The prompts whose responses a reward model scores."""

    general = auto()  # only prompts without a checkable answer
    all = auto()
