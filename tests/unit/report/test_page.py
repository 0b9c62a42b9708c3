"""The page as a file: it is whole, and no text of a run can leave its place."""

import base64
import gzip
import json
import os
import random
import re
from importlib.resources import files
from pathlib import Path

import pytest
from report_run import group, learning_groups, learning_rows, response, write_run

import grpo_cli.report
from grpo_cli.commands import report
from grpo_cli.errors import ConfigError, DataError
from grpo_cli.report import page as report_page
from grpo_cli.report.page import SCRIPTS, page, page_refresher, refresh_page, write_page
from grpo_cli.runs.listing import State

ATTACK = "</script><script>alert(1)</script><!--<img src=x onerror=alert(1)>@@SCRIPT@@ "


def element(html: str, id: str) -> str:
    found = re.search(rf'<script type="[^"]*" id="{id}">(.*?)</script>', html, re.DOTALL)
    assert found
    return found[1]


def test_text_of_a_run_cannot_leave_its_place():
    facts = {"runs": [{"run": {"name": ATTACK}}], "algorithms": {}}
    html = page(facts, [[group(1, "p", [response(ATTACK, correct=True)])]])
    assert html.count("<script") == 3
    assert html.count("</script>") == 3
    assert "<img" not in html
    assert json.loads(element(html, "facts")) == facts
    (run,) = json.loads(gzip.decompress(base64.b64decode(element(html, "packed"))))
    assert run["groups"][0]["responses"][0]["text"] == ATTACK


def test_the_page_loads_nothing_and_runs_only_its_own_script():
    html = page({"runs": [{"run": {"name": "n"}}], "algorithms": {}}, [[]])
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', html)
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r'(src|href)="(?!#)', html)


def test_no_script_writes_html():
    assets = files("grpo_cli.report") / "assets"
    for name in SCRIPTS[1:]:
        text = (assets / name).read_text()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", text), (
            name
        )


def test_each_script_of_the_page_is_a_short_file():
    for file in (Path(grpo_cli.report.__file__).parent / "assets").glob("*.*"):
        assert len(file.read_text().splitlines()) < 300, file
        assert file.suffix != ".js" or file.name in SCRIPTS


def test_the_page_of_a_run_is_written_into_its_folder(tmp_path, compose_as, capsys):
    folder = write_run(tmp_path / "first", compose_as("train", "steps=20"), learning_rows(), learning_groups())
    report.main([str(folder)])
    assert "first: It is learning" in capsys.readouterr().out
    assert (folder / "report.html").stat().st_size < 500_000


def test_json_prints_the_facts_and_writes_nothing(tmp_path, compose_as, capsys):
    folder = write_run(tmp_path / "first", compose_as("train", "steps=20"), learning_rows(), learning_groups())
    report.main([str(folder), "--json"])
    facts = json.loads(capsys.readouterr().out)
    assert facts["runs"][0]["verdict"]["answer"] == "yes"
    assert not (folder / "report.html").exists()


def test_a_page_keeps_to_its_size(tmp_path, compose_as):
    draw = random.Random(0)
    noise = [base64.b64encode(draw.randbytes(3000)).decode() for _ in range(40)]
    groups = [group(step, str(step), [response(f"{step}{text}", correct=True) for text in noise]) for step in range(30)]
    folder = write_run(tmp_path / "first", compose_as("train", "steps=20"), learning_rows(), groups)
    write_page([folder], folder / "report.html", room=1_500_000)
    assert 700_000 < (folder / "report.html").stat().st_size <= 1_500_000


def test_a_page_that_cannot_be_written_does_not_stop_the_run(tmp_path):
    said: list[str] = []
    refresh_page(tmp_path, State.running, said.append)  # there is no config.yaml
    assert "report.html was not written" in said[0]
    assert f"`r1zero report {tmp_path}` tries again" in said[0]


def test_refreshing_a_page_takes_a_small_share_of_the_run(tmp_path, monkeypatch):
    now, written_at = [0.0], []

    def write_in_two_seconds(*_):
        written_at.append(now[0])
        now[0] += 2

    monkeypatch.setattr(report_page, "refresh_page", write_in_two_seconds)
    monkeypatch.setattr(report_page.time, "monotonic", lambda: now[0])
    refresh = page_refresher(tmp_path, print)
    for now[0] in (7, 100, 408, 409, 500, 900):  # 7 + 2 + 2 / 0.005 = 409
        refresh()
    assert written_at == [7, 409, 900]


def test_the_stages_of_a_pipeline_are_on_one_page_in_order(tmp_path, compose_as, capsys):
    for name, command in (("start", "sft"), ("rl", "train")):
        loss = {"step": 3, "eval/heldout/loss": 1.0}
        rows = learning_rows() if command == "train" else [{"step": 0, "eval/heldout/loss": 2.0}, loss]
        required = ["data.file=x.jsonl"] if command == "sft" else []
        folder = write_run(tmp_path / name, compose_as(command, *required), rows, [])
        os.utime(folder / "metrics.jsonl", (len(rows), len(rows)))
        os.utime(folder / "config.yaml", (len(rows), len(rows)))
    report.main([str(tmp_path)])
    assert capsys.readouterr().out.splitlines()[:2] == [
        "start: It is learning: held-out loss fell from 2.000 to 1.000.",
        "rl: It is learning: held-out accuracy rose from 20.0 % to 80.0 %.",
    ]
    facts = json.loads(element((tmp_path / "report.html").read_text(), "facts"))
    assert facts["comparison"]["headline"] == "2 of 2 runs are learning. They have no evaluation in common."


def test_an_evaluation_has_no_page(tmp_path, compose_as):
    folder = write_run(tmp_path / "e", compose_as("eval", "model=tiny", "benchmark=make_zero"), [{"step": 0}], [])
    with pytest.raises(DataError, match="holds a run of `r1zero eval`, which trains nothing"):
        report.main([str(folder)])


def test_a_folder_without_a_run_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"holds no run \(no config.yaml\)"):
        report.main([str(tmp_path)])
