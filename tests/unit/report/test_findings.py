"""What the facts say about rewards, benchmarks, costs and other runs."""

import pytest
from report_run import RIGHT, WRONG, group, learning_groups, learning_rows, response, write_run

from grpo_cli.report.aids import aids
from grpo_cli.report.comparison import comparison
from grpo_cli.report.cost import cost
from grpo_cli.report.evaluation import evaluations
from grpo_cli.report.page import collect

LOOP = "try it once more or try it once more and try it once more"  # nothing else is repeated


def shares(groups) -> dict[str, tuple[float, float]]:
    return {name: (first, last) for name, first, last in aids(groups)["shares"]}


def test_the_ends_of_training_are_compared():
    """Ten steps: the first and last two are the ends. Later responses earn the format's reward, repeat, and are cut."""
    early = [group(step, "p", [response(RIGHT, correct=True), response(WRONG, correct=False)]) for step in range(1, 9)]
    late = [
        group(
            step,
            "p",
            [response(LOOP, correct=False, extracted=None, truncated=True)] * 4
            + [response("", correct=False, reward=0.0)],
        )
        for step in (9, 10)
    ]
    assert aids(early + late)["first"] == [1, 2]
    assert shares(early + late) == {
        "right": (0.5, 0.0),
        "wrong, but with a positive reward (such as for the format)": (0.5, 0.8),
        "repeats 4 words 3 times or more": (0.0, 0.8),
        "no answer found": (0.0, 0.8),
        "cut at the limit": (0.0, 0.8),
    }
    assert aids(early + late)["ngrams"] == [["try it once more", 8, 3]]


def test_the_most_frequent_answers_come_with_their_accuracy():
    eights = [response(WRONG, correct=False)] * 3
    groups = [group(step, "p", [response(RIGHT, correct=True), *eights]) for step in range(1, 11)]
    assert aids(groups)["answers"] == [["8", 0.75, 0.75, 0.0], ["7", 0.25, 0.25, 1.0]]
    assert aids(groups)["kinds"] == [["whole number", 0.25, 0.25, 8]]


def test_an_answer_of_one_response_in_a_hundred_is_not_frequent():
    rare, common = response("", correct=False, extracted="9"), response("", correct=False, extracted="8")
    assert [row[0] for row in aids([group(1, "p", [rare, *[common] * 99])])["answers"]] == ["8"]
    assert [row[0] for row in aids([group(1, "p", [rare, *[common] * 98])])["answers"]] == ["8", "9"]


def test_examples_point_to_the_shortest_right_and_longest_wrong_responses_and_show_each_text_once():
    sizes = (9, 2, 5, 4, 7, 7, 2)
    sampled = [response(str(size), correct=n in (0, 1, 2, 6), tokens=size) for n, size in enumerate(sizes)]
    found = aids([group(3, "p", sampled)])
    assert [(each["sample"], each["tokens"]) for each in found["shortest_right"]] == [(1, 2), (2, 5), (0, 9)]
    assert [(each["sample"], each["tokens"]) for each in found["longest_wrong"]] == [(4, 7), (3, 4)]


def test_a_run_without_training_groups_has_no_aids():
    assert aids([group(0, "p", [response(RIGHT, correct=True)], split="heldout")]) is None


def test_each_benchmark_has_its_last_evaluation():
    rows = [
        {"step": 0, "eval/amc/avg": 0.1, "eval/heldout/avg": 0.2},
        {"step": 5, "eval/amc/avg": 0.3, "eval/amc/pass@1": 0.3, "eval/amc/pass@4": 0.6, "eval/amc/maj@4": 0.4},
    ]
    amc, heldout = evaluations(rows)
    assert (amc["name"], amc["step"], amc["avg"]) == ("amc", 5, 0.3)
    assert (amc["pass@"], amc["maj@"]) == ([[1, 0.3], [4, 0.6]], [[4, 0.4]])
    assert (heldout["name"], heldout["step"]) == ("heldout", 0)


def test_the_cost_of_ppo_adds_critic_reference_and_reward_model(compose_as):
    """In bf16 with ZeRO-2, 2 bytes for weights, 4 for gradients, 12 for Adam; a frozen network takes 2."""
    found = cost(compose_as("train", "model=qwen2_5_math_7b", "cluster=gpu_1", "algorithm.beta=0"))
    n = found["parameters"]
    assert n == pytest.approx(7.6e9, rel=0.01)
    assert [row[0] for row in found["run"]] == ["policy", "policy in vLLM"]
    assert [row[0] for row in found["with_critic"]] == [
        "policy",
        "critic",
        "reference",
        "reward model",
        "policy in vLLM",
    ]
    assert found["run"][0] == ["policy", 2.0 * n, 4.0 * n, 12.0 * n]
    c = n - 152064 * 3584 + 3584 + 1  # one output instead of the vocabulary's
    assert found["with_critic"][1] == ["critic", 2.0 * c, 4.0 * c, 12.0 * c]
    assert found["with_critic"][3] == ["reward model", 2.0 * n, 0.0, 0.0]


def test_a_run_with_a_critic_pays_for_it_even_if_its_policy_has_adapters(compose_as):
    settings = ("train", "model=qwen2_5_math_7b", "cluster=gpu_1", "algorithm=ppo")
    whole, adapted = (cost(compose_as(*settings, *more))["run"] for more in ([], ["model.lora.rank=8"]))
    assert [row[0] for row in whole] == [row[0] for row in adapted] == ["policy", "critic", "policy in vLLM"]
    assert adapted[1] == whole[1]
    assert sum(adapted[0][1:]) < 0.2 * sum(whole[0][1:])


def test_only_ranks_that_generate_have_an_engine(compose_as):
    both, split = (cost(compose_as("train", f"cluster={name}"))["run"] for name in ("gpu_8", "gpu_8_split"))
    assert split[:-1] == both[:-1]
    assert split[-1] == ["policy in vLLM", both[-1][1] / 2, 0.0, 0.0]


def heldout(right: int, num: int = 40) -> list:
    """The last evaluation of `num` problems, of which the first `right` are solved."""
    answers = [response(RIGHT, correct=True) if n < right else response(WRONG, correct=False) for n in range(num)]
    return [group(20, f"h{n}", [answer], split="heldout") for n, answer in enumerate(answers)]


def compared(tmp_path, compose_as, right: int, after: float, *overrides: str) -> dict:
    """The comparison of a run that solves 20 of 40 held-out problems with one that solves `right`."""
    first = write_run(tmp_path / "first", compose_as("train", "steps=20"), learning_rows(), heldout(20))
    rows = [*learning_rows()[:-1], learning_rows()[-1] | {"eval/heldout/avg": after}]
    second = write_run(tmp_path / "second", compose_as("train", "steps=20", *overrides), rows, heldout(right))
    return collect([first, second])[0]["comparison"]


def test_a_better_run_is_named_with_the_chance_of_the_difference(tmp_path, compose_as):
    found = compared(tmp_path, compose_as, 36, 0.9, "algorithm=dr_grpo")
    assert found["headline"] == "second is better than first: held-out accuracy 90.0 % against 80.0 %."
    assert found["p_value"] < 0.001
    assert found["only_second"] == [f"h{n}" for n in range(20, 36)]
    assert found["only_first"] == []
    assert {row["key"]: row["values"] for row in found["settings"]} == {
        "algorithm.advantage.scale": ["group_std", "none"],
        "algorithm.weighting": ["sequence_mean", "constant"],
    }


def test_a_difference_that_may_be_chance_is_not_called_better(tmp_path, compose_as):
    found = compared(tmp_path, compose_as, 21, 0.82)
    assert found["headline"].startswith("second and first do not differ clearly")
    assert found["settings"] == []


def test_runs_with_the_same_name_are_named_by_their_folders(tmp_path, compose_as):
    folders = [tmp_path / part / "run" for part in "ab"]
    for folder in folders:
        write_run(folder, compose_as("train", "steps=20"), learning_rows(), learning_groups())
    assert collect(folders)[0]["comparison"]["names"] == [str(folder) for folder in folders]


def test_runs_with_different_data_are_not_ranked():
    def run(path: str) -> dict:
        changes = [{"key": "data.path", "value": path, "default": None}]
        point = {"value": 0.5, "low": 0.4, "high": 0.6}
        return {"run": {"name": path, "changes": changes}, "verdict": {"after": point, "metric": "eval/heldout/avg"}}

    assert "different data" in comparison([run("a.jsonl"), run("b.jsonl")], [[], []])["headline"]
    assert "are equal" in comparison([run("a.jsonl"), run("a.jsonl")], [[], []])["headline"]
