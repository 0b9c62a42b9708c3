import json

import pytest

from grpo_cli.commands.sweep_report import main, report_at_end
from grpo_cli.errors import DataError


@pytest.fixture
def sweep(tmp_path):
    """One job that finished, one that failed."""
    for name, record in {
        "0_beta-0": {"swept": {"algorithm.beta": "0"}, "objective": 0.625},
        "1_beta-0.04": {"swept": {"algorithm.beta": "0.04"}},
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "job.json").write_text(json.dumps(record))
    (tmp_path / "1_beta-0.04" / "error.txt").write_text("SetupError: no [bold] GPU\n")
    return tmp_path


def test_the_leaderboard_is_printed_and_written_to_the_sweeps_folder(sweep, capsys):
    main([str(sweep)])
    printed = capsys.readouterr().out
    assert printed.index("0.625") < printed.index("failed")
    assert "1_beta-0.04 failed: SetupError: no [bold] GPU" in printed
    assert "0_beta-0,finished,0,0.625" in (sweep / "sweep.csv").read_text()
    assert "0.625" in (sweep / "sweep.html").read_text()
    assert sorted(path.name for path in sweep.iterdir()) == ["0_beta-0", "1_beta-0.04", "sweep.csv", "sweep.html"]


def test_the_end_of_a_sweep_counts_unfinished_jobs_and_says_how_to_repeat_them(sweep, capsys):
    assert report_at_end(sweep) == 1
    assert f"hydra.sweep.dir={sweep}" in capsys.readouterr().out
    (sweep / "1_beta-0.04" / "job.json").write_text('{"swept": {"algorithm.beta": "0.04"}, "objective": 0.5}')
    assert report_at_end(sweep) == 0


def test_a_sweep_that_ended_before_its_first_job_has_no_report(tmp_path, capsys):
    assert report_at_end(tmp_path) == 0
    assert capsys.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_a_sweep_is_rejected(tmp_path):
    with pytest.raises(DataError, match="contains no jobs of a sweep"):
        main([str(tmp_path)])


def test_help_shows_three_examples(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.partition("examples:")[2].count("\n  r1zero ") == 3
