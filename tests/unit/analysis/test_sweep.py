import csv
import json
from pathlib import Path

import pytest

from grpo_cli.analysis.sweep import effects, last_error, rank_settings, read_sweep, short_names, write_csv
from grpo_cli.errors import DataError
from grpo_cli.jsonl import json_text
from grpo_cli.report.sweep import sweep_facts


def add_job(sweep: Path, number: int, *, objective: float | None = None, error: str | None = None, **swept: str):
    """A run of two steps of 100 tokens and 2 s, evaluated before and after."""
    folder = sweep / f"{number}_{'_'.join(f'{key}-{value}' for key, value in swept.items())}"
    folder.mkdir(parents=True)
    keys = {"beta": "algorithm.beta", "epsilon": "algorithm.epsilon"}
    record = {"swept": {keys.get(key, key): value for key, value in swept.items()}}
    step = {"rollout/tokens": 100.0, "time/step": 2.0}
    rows = [{"step": 0, "eval/heldout/avg": 0.1, "eval/heldout/greedy": 0.2}, {"step": 1, **step}]
    if objective is not None:
        record["objective"] = objective
        rows.append({"step": 2, **step, "eval/heldout/avg": objective, "eval/heldout/greedy": objective / 2})
    if error is not None:
        (folder / "error.txt").write_text(error)
    (folder / "job.json").write_text(json.dumps(record))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_job_is_read_from_its_folder(tmp_path):
    add_job(tmp_path, 0, objective=0.5, epsilon="0.1")
    (job,) = read_sweep(tmp_path)
    assert job.status == "finished"
    assert (job.objective, job.greedy) == (0.5, 0.25)
    assert (job.tokens, job.seconds) == (200, 4.0)  # two steps of 100 tokens and 2 s
    assert job.curve == ((0, 0.1), (2, 0.5))


def test_a_job_of_sft_has_no_sampled_tokens(tmp_path):
    add_job(tmp_path, 0, objective=-0.2, lr="0.1")
    rows = [{"step": 0, "eval/heldout/loss": 0.3}, {"step": 1, "time/step": 2.0, "eval/heldout/loss": 0.2}]
    (tmp_path / "0_lr-0.1" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (job,) = read_sweep(tmp_path)
    assert (job.objective, job.tokens, job.seconds, job.curve) == (-0.2, None, 2.0, ())


def test_jobs_come_in_the_order_of_their_numbers(tmp_path):
    for number in (10, 2, 0):
        add_job(tmp_path, number, epsilon="0.1")
    assert [job.folder.name[:2] for job in read_sweep(tmp_path)] == ["0_", "2_", "10"]


def test_the_best_setting_comes_first_and_one_without_a_result_last(tmp_path):
    add_job(tmp_path, 0, error="Out of luck.", epsilon="0.1")
    add_job(tmp_path, 1, objective=0.0, epsilon="0.2")
    add_job(tmp_path, 2, objective=0.4, epsilon="0.3")
    add_job(tmp_path, 3, epsilon="0.4")  # interrupted
    jobs = read_sweep(tmp_path)
    assert [setting.swept["algorithm.epsilon"] for setting in rank_settings(jobs)] == ["0.3", "0.2", "0.1", "0.4"]
    assert [job.status for job in jobs] == ["failed", "finished", "finished", "unfinished"]


def test_seeds_are_one_setting_with_mean_and_spread(tmp_path):
    # 0.2 and 0.6: mean 0.4, and a sample standard deviation of sqrt((0.04 + 0.04) / 1) = 0.2828
    add_job(tmp_path, 0, objective=0.2, epsilon="0.1", seed="0")
    add_job(tmp_path, 1, objective=0.6, epsilon="0.1", seed="1")
    add_job(tmp_path, 2, error="no", epsilon="0.1", seed="2")
    add_job(tmp_path, 3, objective=0.3, epsilon="0.2", seed="0")
    best, other = rank_settings(read_sweep(tmp_path))
    assert best.swept == {"algorithm.epsilon": "0.1"}
    assert (len(best.jobs), len(best.finished)) == (3, 2)
    assert best.mean == pytest.approx(0.4)
    assert best.spread == pytest.approx(0.08**0.5)
    assert other.spread is None


def test_the_effect_of_a_value_is_the_mean_over_all_other_settings(tmp_path):
    for number, (epsilon, beta, objective) in enumerate(
        [("0.1", "0", 0.1), ("0.1", "0.04", 0.2), ("0.2", "0", 0.5), ("0.2", "0.04", None)]
    ):
        add_job(tmp_path, number, objective=objective, epsilon=epsilon, beta=beta)
    # epsilon 0.1: (0.1 + 0.2) / 2; beta 0: (0.1 + 0.5) / 2; the job without a result counts nowhere
    assert [
        (effect.key, effect.value, round(effect.mean, 6), effect.num_jobs) for effect in effects(read_sweep(tmp_path))
    ] == [
        ("algorithm.epsilon", "0.1", 0.15, 2),
        ("algorithm.epsilon", "0.2", 0.5, 1),
        ("algorithm.beta", "0", 0.3, 2),
        ("algorithm.beta", "0.04", 0.2, 1),
    ]


def test_values_of_a_parameter_are_in_numeric_order(tmp_path):
    for number, (epsilon, seed) in enumerate([("10", "0"), ("2", "0"), ("1e-6", "0"), ("10", "1")]):
        add_job(tmp_path, number, objective=0.5, epsilon=epsilon, seed=seed)
    assert [effect.value for effect in effects(read_sweep(tmp_path))] == ["1e-6", "2", "10"]


def test_a_sweep_of_one_parameter_has_a_leaderboard_but_no_effects(tmp_path):
    add_job(tmp_path, 0, objective=0.1, epsilon="0.1")
    add_job(tmp_path, 1, objective=0.2, epsilon="0.2")
    assert effects(read_sweep(tmp_path)) == []


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("Rank 0 ended with exit code -9.\n", "Rank 0 ended with exit code -9."),
        (
            "There is a mistake in the settings:\nsteps=0: must be 1.\n",
            "There is a mistake in the settings: steps=0: must be 1.",
        ),
        (
            'Traceback (most recent call last):\n  File "a.py", line 1\nKeyError: 1\n\nDuring handling:\n\n'
            "Traceback (most recent call last):\n  File\na.b.BadError: Field 'x':\n    expected int\n\n"
            "The whole log: logs/",
            "a.b.BadError: Field 'x': expected int",
        ),
        ("Traceback (most recent call last):\n  File\nAssertionError\n", "AssertionError"),
        ("", "no message"),
    ],
)
def test_an_error_is_shown_in_one_line(text, line):
    assert last_error(text) == line


def test_a_key_is_shortened_to_its_last_part_if_that_is_unique():
    assert short_names(["algorithm.beta", "eval.temperature", "rollout.temperature"]) == {
        "algorithm.beta": "beta",
        "eval.temperature": "eval.temperature",
        "rollout.temperature": "rollout.temperature",
    }


def test_the_csv_has_a_row_per_job_with_the_figures_of_its_setting(tmp_path):
    add_job(tmp_path, 0, objective=0.25, epsilon="0.1", seed="0")
    add_job(tmp_path, 1, objective=0.75, epsilon="0.1", seed="1")
    add_job(tmp_path, 2, error="Out of luck.", epsilon="0.2", seed="0")
    (
        tmp_path / "2_epsilon-0.2_seed-0" / "metrics.jsonl"
    ).unlink()  # this job has no tokens; those of the others stay whole numbers
    write_csv(read_sweep(tmp_path), tmp_path / "sweep.csv")
    with (tmp_path / "sweep.csv").open(newline="") as stream:
        first, second, failed = csv.DictReader(stream)
    assert first["job"] == "0_epsilon-0.1_seed-0"
    assert (first["algorithm.epsilon"], first["seed"], first["eval/heldout/avg"]) == ("0.1", "0", "0.25")
    assert (first["rollout/tokens"], first["time/s"]) == ("200", "4.0")
    assert second["eval/heldout/avg/mean"] == first["eval/heldout/avg/mean"] == "0.5"
    assert (first["seeds"], failed["seeds"]) == ("2", "0")
    assert (failed["status"], failed["error"]) == ("failed", "Out of luck.")


def test_the_facts_of_a_page_hold_every_setting_and_what_did_not_finish(tmp_path):
    for number, (epsilon, beta) in enumerate([("0.1", "0"), ("0.1", "0.04"), ("0.2", "0")]):
        add_job(tmp_path, number, objective=0.25 * (number + 1), epsilon=epsilon, beta=beta)
    add_job(tmp_path, 3, error="ValueError: nan in the loss", epsilon="0.2", beta="0.04")
    facts = json.loads(json_text(sweep_facts("mine", read_sweep(tmp_path))))
    assert [key["name"] for key in facts["keys"]] == ["epsilon", "beta"]
    assert [setting["values"] for setting in facts["settings"]] == [
        ["0.2", "0"],
        ["0.1", "0.04"],
        ["0.1", "0"],
        ["0.2", "0.04"],
    ]
    assert facts["settings"][0]["curves"] == [[[0, 2], [0.1, 0.75]]]
    assert facts["effects"][0] == ["epsilon", "0.1", 0.375, 2]
    assert facts["unfinished"] == [
        {"name": "3_epsilon-0.2_beta-0.04", "status": "failed", "error": "ValueError: nan in the loss"}
    ]


def test_the_facts_of_jobs_that_all_failed_have_no_curves(tmp_path):
    add_job(tmp_path, 0, error="no", epsilon="0.1")
    (tmp_path / "0_epsilon-0.1" / "metrics.jsonl").unlink()
    (setting,) = sweep_facts("sweep", read_sweep(tmp_path))["settings"]
    assert (setting["curves"], setting["mean"]) == ([], None)


def test_a_folder_without_jobs_is_rejected(tmp_path):
    with pytest.raises(DataError, match="contains no jobs of a sweep"):
        read_sweep(tmp_path)


def test_the_error_names_an_unreadable_record(tmp_path):
    add_job(tmp_path, 0, epsilon="0.1")
    (tmp_path / "0_epsilon-0.1" / "job.json").write_text("{")
    with pytest.raises(DataError, match=r"0_epsilon-0\.1 cannot be read"):
        read_sweep(tmp_path)
