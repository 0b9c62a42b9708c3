import math
import sys
import types
from concurrent.futures import Future

import pytest

from grpo_cli.choices import AnswerMarker, Device
from grpo_cli.config.reward import RewardConfig
from grpo_cli.config.template import TemplateConfig
from grpo_cli.errors import ConfigError, TrainingError
from grpo_cli.reward.background import Background
from grpo_cli.reward.reward import Reward, _when_done, gold_fault
from grpo_cli.types import Completion, Problem

SUM = Problem("sum", "What is 17 + 26?", "43")
POEM = Problem("poem", "Write a poem.", "", grader="model")
R1_TEMPLATE = TemplateConfig(response_prefix="<think>", answer=AnswerMarker.answer_tag)
R1 = {"accuracy": {"weight": 1.0}, "format": {"weight": 0.1}}


def completion(text: str, num_tokens: int = 10, truncated: bool = False) -> Completion:
    return Completion((1,) * num_tokens, (0.0,) * num_tokens, text, truncated)


def score(terms, template, problem, *completions, step=1, max_new_tokens=None):
    with Reward(RewardConfig(terms=terms), template, 100, Device.cpu) as reward:
        when = {"step": step, "max_new_tokens": max_new_tokens}
        return [future.result() for future in [reward.submit(problem, each, **when) for each in completions]]


def test_four_completions_of_17_plus_26_are_scored():
    scores = score(
        R1,
        R1_TEMPLATE,
        SUM,
        completion(" 17 + 26 = 43 </think> <answer> 43 </answer>"),
        completion(" 17 + 26 is 43"),
        completion(" 17 + 26 = 42 </think> <answer> 42 </answer>"),
        completion("</answer> <answer> uh"),
    )
    assert [each.total for each in scores] == [1.1, 0.0, 0.1, 0.0]
    assert [each.verdict for each in scores] == ["correct", "unparsable", "wrong", "unparsable"]
    assert [each.extracted for each in scores] == ["43", None, "42", None]
    assert scores[2].terms == {"accuracy": 0.0, "format": 1.0}


def test_the_overlong_penalty_covers_the_last_fifth_by_default():
    [short, long] = score(
        {"overlong": {}}, R1_TEMPLATE, SUM, completion("", num_tokens=80), completion("", num_tokens=90)
    )
    assert [short.total, long.total] == [0, -0.5]


@pytest.mark.parametrize(
    ("term", "by_100", "by_200"),
    [
        ({"overlong": {}}, -0.5, 0.0),  # 90 of 100: halfway through the last fifth; 90 of 200: before it
        ({"length_penalty": {}}, -0.9, -0.45),
        ({"cosine_length": {"short_wrong": 0.0, "long_wrong": -1.0}}, -0.9755, -0.4218),  # (1 + cos(0.9 pi)) / 2 - 1
    ],
)
def test_length_terms_use_the_limit_that_the_response_was_sampled_with(term, by_100, by_200):
    [by_settings] = score(term, R1_TEMPLATE, SUM, completion("", num_tokens=90))
    [by_schedule] = score(term, R1_TEMPLATE, SUM, completion("", num_tokens=90), max_new_tokens=200)
    assert (by_settings.total, by_schedule.total) == (pytest.approx(by_100, abs=1e-4), pytest.approx(by_200, abs=1e-4))


def test_the_marker_of_the_accuracy_term_overrides_the_templates():
    boxed, tagged = completion(r"so \boxed{43}"), completion("<answer> 43 </answer>")
    template = TemplateConfig(answer=AnswerMarker.answer_tag)
    by_template = score({"accuracy": {}}, template, SUM, boxed, tagged)
    by_box = score({"accuracy": {"marker": "boxed"}}, template, SUM, boxed, tagged)
    assert [each.total for each in by_template] == [0, 1]
    assert [each.total for each in by_box] == [1, 0]


def test_a_response_to_the_built_in_task_is_scored():
    [each] = score(
        R1,
        TemplateConfig(),
        Problem("zero", "13 5 6 2", "13 5 6 2 = 0", grader="expression"),
        completion(
            "<think> 13 -5 =8 +6 =14 +2 =16 no wait 13 -5 =8 -6 =2 -2 =0 yes </think> <answer> 13 -5 -6 -2 </answer>"
        ),
    )
    assert each.total == 1.1


def test_a_truncated_response_is_not_correct_even_with_the_right_answer():
    [each] = score(R1, R1_TEMPLATE, SUM, completion("</think> <answer>43</answer>", truncated=True))
    assert each.terms == {"accuracy": 0.0, "format": 1.0}
    assert each.verdict == "unparsable"


@pytest.mark.parametrize(
    ("marker", "text"),
    [
        (AnswerMarker.boxed, r"so \boxed{42} no, \boxed{43}"),
        (AnswerMarker.text, "The answer is 43."),
        (AnswerMarker.answer_tag, "<answer>43</answer>"),
    ],
)
def test_the_answer_is_found_by_the_templates_marker(marker, text):
    [each] = score({"accuracy": {}}, TemplateConfig(answer=marker), SUM, completion(text))
    assert each.total == 1.0


def test_an_answer_that_needs_algebra_is_judged():
    [each] = score({"accuracy": {}}, TemplateConfig(), Problem("a", "", "x+y"), completion("<answer>y+x</answer>"))
    assert each.verdict == "correct"


def test_every_response_is_judged_even_without_an_accuracy_term():
    [each] = score({"format": {}}, R1_TEMPLATE, SUM, completion("</think> <answer>43</answer>"))
    assert each.terms == {"format": 1.0}
    assert each.verdict == "correct"


def test_terms_of_length_language_and_repetition_are_summed():
    terms = {
        "overlong": {"cache_tokens": 20, "weight": 2},
        "length_penalty": {},
        "cosine_length": {},
        "repetition": {"ngram_size": 1},
        "language": {"language": "en"},
        "tag_count": {},
    }
    text = "so so</think> <answer>43</answer>"
    right, wrong = score(terms, R1_TEMPLATE, SUM, completion(text, 90), completion(text.replace("43", "42"), 100))
    assert right.terms == pytest.approx(
        {
            "overlong": -0.5,
            "length_penalty": -0.9,
            "cosine_length": 0.5 + 0.5 * (1 - 0.951056516) / 2,  # cos(0.9 pi) = -0.951
            "repetition": 0.0,
            "language": 1.0,
            "tag_count": 1.0,
        }
    )
    assert right.total == pytest.approx(sum(right.terms.values()) + right.terms["overlong"])
    assert (wrong.terms["overlong"], wrong.terms["cosine_length"]) == (-1.0, pytest.approx(-0.5))


@pytest.fixture
def my_module(monkeypatch):
    module = types.ModuleType("my_rewards")
    module.shortness = lambda completion, problem: 1 / len(completion.text)
    module.lengths = lambda completions, problems: [len(each.text) for each in completions]
    module.fails = lambda completion, problem: 1 / 0
    module.only_ok = lambda completions, **columns: [1.0 if text == "ok" else None for text in completions]
    monkeypatch.setitem(sys.modules, "my_rewards", module)


@pytest.mark.usefixtures("my_module")
def test_users_functions_are_called_one_by_one_or_in_batches():
    terms = {
        "mine": {"function": "my_rewards:shortness", "weight": 2},
        "ours": {"function": "my_rewards:lengths", "batch": True},
    }
    scores = score(terms, R1_TEMPLATE, SUM, completion("four"), completion("to"))
    assert [each.terms for each in scores] == [{"mine": 0.25, "ours": 4.0}, {"mine": 0.5, "ours": 2.0}]
    assert [each.total for each in scores] == [4.5, 3.0]


@pytest.mark.usefixtures("my_module")
def test_an_error_in_a_users_function_reaches_the_caller():
    with pytest.raises(TrainingError, match=r"reward.terms.mine failed, for a response to problem sum:"):
        score({"mine": {"function": "my_rewards:fails"}}, R1_TEMPLATE, SUM, completion("x"))


def test_misspelled_terms_are_rejected():
    with pytest.raises(ConfigError, match="accuracy"):
        Reward(RewardConfig(terms={"acuracy": {}}), R1_TEMPLATE, 100, Device.cpu)


@pytest.mark.parametrize(
    ("grader", "bad", "good"),
    [
        ("math", "[2,5", "[2,5)"),
        ("expression", "13 5 6 2", "13 5 6 2 = 0"),
        ("code", "not python (", '{"fn_name": "f", "inputs": [[1]], "outputs": [2]}'),
    ],
)
def test_an_invalid_gold_is_reported_by_the_problems_grader(grader, bad, good):
    assert bad in gold_fault(Problem("p", "", bad, grader))
    assert gold_fault(Problem("p", "", good, grader)) is None


# ------------------------------------------------------------ step ranges


@pytest.mark.parametrize(
    ("step", "terms"),
    [(2, {"accuracy"}), (3, {"accuracy", "late"}), (4, {"accuracy", "late"}), (5, {"accuracy"}), (None, {"accuracy"})],
)
@pytest.mark.usefixtures("my_module")
def test_a_term_counts_only_in_its_step_range(step, terms):
    config = {"accuracy": {}, "late": {"function": "my_rewards:shortness", "from_step": 3, "to_step": 4, "weight": 27}}
    [each] = score(config, TemplateConfig(), SUM, completion("<answer>43</answer> ok"), step=step)  # 22 characters
    assert each.terms.keys() == terms
    assert each.total == pytest.approx(1 + 27 / 22 if "late" in terms else 1)


@pytest.mark.usefixtures("my_module")
def test_outside_its_step_range_a_users_function_is_not_called():
    terms = {"mine": {"function": "my_rewards:fails", "from_step": 2}}
    [each] = score(terms, TemplateConfig(), SUM, completion("x"), step=1)
    assert (each.total, each.terms) == (0, {})


@pytest.mark.usefixtures("my_module")
def test_a_term_that_returns_none_does_not_count_and_without_any_other_there_is_no_reward():
    trl = {"mine": {"function": "my_rewards:only_ok", "weight": 3.0}}
    ok, other = score(trl, R1_TEMPLATE, SUM, completion("ok"), completion("x"))
    assert (ok.total, ok.terms) == (3.0, {"mine": 1.0})
    assert (math.isnan(other.total), other.terms) == (True, {})
    [other] = score(trl | {"accuracy": {}}, R1_TEMPLATE, SUM, completion("</think><answer>43</answer>"))
    assert (other.total, other.terms) == (1.0, {"accuracy": 1.0})


@pytest.mark.usefixtures("my_module", "rhyme_model")
def test_an_evaluation_calls_no_function_and_no_reward_model():
    terms = {"mine": {"function": "my_rewards:fails"}, "model": {"path": "rhyme_model", "on": "all"}, "accuracy": {}}
    [each] = score(terms, R1_TEMPLATE, SUM, completion("</think><answer>43</answer>"), step=None)
    assert (each.verdict, each.terms) == ("correct", {"accuracy": 1.0})


@pytest.mark.parametrize("fails_before", [True, False])
def test_a_score_fails_as_soon_as_one_of_its_terms_does(fails_before):
    failed, stuck = Future(), Future()
    if fails_before:
        failed.set_exception(ZeroDivisionError())
    total = _when_done([stuck, failed], stuck.result)
    if not fails_before:
        failed.set_exception(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        total.result(timeout=60)
    stuck.set_result(1.0)  # too late to change the total


# ------------------------------------------------------------ general prompts


@pytest.fixture
def rhyme_model(monkeypatch):
    """A reward model that gives 3 for a rhyme and -2 for all other texts."""

    def rhymes(completions, problems, step):
        return [3.0 if "rhyme" in each.text else -2.0 for each in completions]

    monkeypatch.setattr("grpo_cli.reward.reward.reward_model", lambda name, term, device: Background(name, rhymes, 8))


@pytest.mark.filterwarnings("ignore:sandbox=none")
@pytest.mark.usefixtures("rhyme_model")
def test_rules_score_responses_that_they_can_judge_and_the_model_scores_the_rest():
    terms = R1 | {"model": {"weight": 0.5, "path": "rhyme_model"}, "code": {"sandbox": "none"}, "cosine_length": {}}
    texts = [completion(f" so </think> <answer> {answer} </answer>") for answer in ("43", "a rhyme")]
    [right, wrong] = score(terms, R1_TEMPLATE, SUM, *texts)
    assert (right.verdict, wrong.verdict) == ("correct", "wrong")
    assert right.terms.keys() == {"accuracy", "format", "cosine_length"}
    [dull, poem] = score(terms, R1_TEMPLATE, POEM, *texts)
    assert [dull.verdict, poem.verdict] == ["unjudged", "unjudged"]
    assert poem.terms == {"format": 1.0, "model": 3.0}
    assert [dull.total, poem.total] == pytest.approx([0.1 - 0.5 * 2, 0.1 + 0.5 * 3])
    assert poem.extracted is None


@pytest.mark.usefixtures("rhyme_model")
def test_a_model_may_score_all_prompts():
    [wrong] = score(R1 | {"model": {"path": "rhyme_model", "on": "all"}}, R1_TEMPLATE, SUM, completion("a rhyme"))
    assert wrong.terms == {"accuracy": 0.0, "format": 0.0, "model": 3.0}
    assert wrong.total == 3


@pytest.mark.usefixtures("rhyme_model")
def test_a_truncated_response_to_a_general_prompt_is_unjudged():
    [each] = score({"model": {"path": "rhyme_model"}}, R1_TEMPLATE, POEM, completion("a rhyme", truncated=True))
    assert (each.verdict, each.total) == ("unjudged", 3)


def test_a_general_prompt_needs_no_answer():
    assert gold_fault(POEM) is None
