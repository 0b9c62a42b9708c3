"""The real W&B client: its offline files are read back with its own reader; online runs use a stub server."""

import gzip
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path

import psutil
import pytest
import wandb
from kept_groups import group, response
from rich.console import Console

from grpo_cli.choices import WandbMode
from grpo_cli.config.run import LoggerConfig
from grpo_cli.errors import Stopped
from grpo_cli.metrics import wandb_run
from grpo_cli.metrics.loggers import RunLogger
from grpo_cli.runs.rollouts import KeptGroup
from grpo_cli.types import Verdict


@pytest.fixture(autouse=True)
def fresh_wandb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Only the key and the server that a test sets, and a new W&B service for each test."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "WANDB_DATA_DIR", "WANDB_RUN_ID"):
        monkeypatch.setenv(name, "")  # so that it is restored after the test even if the code sets it
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    wandb.teardown()
    yield
    wandb.teardown()


class Server(ThreadingHTTPServer):
    """The part of W&B's server that one run needs; records what it receives."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.history: list[dict] = []
        self.run: dict = {}  # the run's name, project and other variables
        self.uploads: dict[str, bytes] = {}
        self.exit_codes: list[int] = []

    def answer(self, operation: str, variables: dict) -> dict | None:
        project = {"id": "p", "name": "r1zero", "entity": {"id": "e", "name": "team"}}
        bucket = {"id": "b", "name": variables.get("name"), "project": project, "historyLineCount": 0}
        match operation:
            case "Viewer":
                return {"viewer": {"id": "u", "entity": "team", "username": "me", "flags": "{}"}}
            case "ServerFeaturesQuery" | "ServerInfo":
                return {"serverInfo": {"features": []}}
            case "UpsertBucket":
                self.run |= {name: value for name, value in variables.items() if value is not None}
                return {"upsertBucket": {"bucket": bucket, "inserted": not self.history}}
            case "RunResumeStatus" if self.history:
                seen = {
                    "historyLineCount": len(self.history),
                    "historyTail": json.dumps([json.dumps(self.history[-1])]),
                }
                seen |= {
                    "eventsLineCount": 0,
                    "eventsTail": "[]",
                    "logLineCount": 0,
                    "config": "{}",
                    "wandbConfig": json.dumps({"t": 1}),
                }
                return {"model": project | {"bucket": bucket | seen | {"summaryMetrics": "{}", "tags": []}}}
            case "RunResumeStatus":
                return {"model": None}
            case "CreateRunFiles":
                files = [{"name": name, "uploadUrl": f"{self.url}/upload/{name}"} for name in variables["files"]]
                return {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}}
            case "RunStoppedStatus":
                return {"project": {"run": {"stopped": False}}}
        return None


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._reply({})

    def do_PUT(self) -> None:
        self.server.uploads[self.path.removeprefix("/upload/")] = self._body()
        self._reply({})

    def do_POST(self) -> None:
        body = self._body()
        if self.path == "/graphql":
            query = json.loads(body)
            operation = re.search(r"(?:query|mutation)\s+(\w+)", query["query"])[1]
            data = self.server.answer(operation, query.get("variables") or {})
            self._reply({"data": data} if data else {"data": None, "errors": [{"message": "not in the stub"}]})
            return
        if self.path.endswith("/file_stream"):
            sent = json.loads(body)
            lines = sent.get("files", {}).get("wandb-history.jsonl", {}).get("content", [])
            self.server.history += [json.loads(line) for line in lines]
            if sent.get("complete"):
                self.server.exit_codes.append(sent["exitcode"])
        self._reply({})

    def _body(self) -> bytes:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def _reply(self, value: dict) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
        yield server
        server.shutdown()


def run_logger(run_dir: Path, config: LoggerConfig | None = None, **options) -> tuple[RunLogger, StringIO]:
    """A logger, and the output of its console."""
    shown = StringIO()
    config = config or LoggerConfig(console=False, samples_every=2, group="sweep")
    options = {"run_name": "tiny", "steps": 3, "settings": {"algorithm": {"beta": 0.04}}} | options
    return RunLogger(config, run_dir, console=Console(file=shown, width=200), **options), shown


def groups(step: int) -> list[KeptGroup]:
    wrong = {"verdict": Verdict.unparsable, "extracted": None, "reward": 0.0, "advantage": -0.647}
    return [group(step, response("<think> no wait yes"), response("<think> no", **wrong))]


def log_steps(logger: RunLogger, *steps: int) -> None:
    for step in steps:
        logger.log(step, {"reward/mean": step / 2}, groups(step))


def offline_records(run_dir: Path) -> dict[str, list[dict]]:
    """The records of all offline starts in `run_dir`, by type, from W&B's own reader."""
    records: dict[str, list[dict]] = {}
    for folder in sorted((run_dir / "wandb").glob("offline-run-*")):
        command = [Path(sys.executable).with_name("wandb"), "leet", "inspect", "--json", folder]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        for record in map(json.loads, lines):
            records.setdefault(record["type"], []).append(record[record["type"]])
    return records


def offline_steps(run_dir: Path) -> list[int]:
    return [record["item"]["step"] for record in offline_records(run_dir)["history"]]


def test_an_offline_run_reads_back_with_every_step_once_in_order_and_its_table(tmp_path):
    logger, shown = run_logger(tmp_path)
    with logger:
        log_steps(logger, 0, 1, 2, 3)

    records = offline_records(tmp_path)
    rows = [record["item"] for record in records["history"]]
    assert [(row["step"], row["_step"], row["reward/mean"]) for row in rows] == [
        (0, 0, 0), (1, 1, 0.5), (2, 2, 1), (3, 3, 1.5),
    ]  # fmt: skip
    assert records["metric"] == [
        {"glob_name": "*", "options": {"defined": True, "step_sync": True}, "step_metric": "step"}
    ]
    (run,) = records["run"]
    assert (run["project"], run["run_group"], run["job_type"], run["display_name"]) == (
        "r1zero", "sweep", "train", "tiny",
    )  # fmt: skip
    assert run["config"]["update"]["algorithm"] == {"beta": 0.04}
    assert records["exit"][0].get("exit_code", 0) == 0
    assert [row["step"] for row in rows if "samples.path" in row] == [0, 2]
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    table = json.loads((folder / "files" / rows[2]["samples.path"]).read_text())
    assert table["columns"][:3] == ["step", "prompt", "response"]
    assert table["data"][1] == [2, "3 1 1 1 :", "<think> no", "0", None, "unparsable", 0.0, -0.647]
    assert f"wandb sync {tmp_path}/wandb/offline-run-*" in shown.getvalue()
    assert shown.getvalue().count("W&B") == 1


def test_all_files_that_a_sync_of_an_offline_run_needs_are_in_the_run_folder(tmp_path):
    logger, shown = run_logger(tmp_path)
    with logger:
        log_steps(logger, 2)
    records = offline_records(tmp_path)
    assert "artifact" in records, f"{[*records]}, {shown.getvalue()}"
    (artifact,) = records["artifact"]
    paths = [Path(entry["local_path"]) for entry in artifact["manifest"]["contents"]]
    assert paths
    assert all(path.is_relative_to(tmp_path / "wandb") and path.exists() for path in paths)


def test_histograms_the_learning_curve_and_the_model_are_logged(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    logger, _ = run_logger(tmp_path, LoggerConfig(console=False, upload_model=True), steps=2)
    with logger:
        for step in (1, 2):
            logger.log(step, {"reward/mean": 0.5, "length/mean": 3.0}, values={"length": [1.0, 5.0]})

    records = offline_records(tmp_path)
    first, last = (record["item"] for record in records["history"])
    assert sum(last["histogram/length.values"]) == 2
    assert "learning_curve" not in str(first)
    (image,) = (tmp_path / "wandb").glob("offline-run-*/files/media/images/learning_curve*.png")
    assert image.stat().st_size > 1000
    (artifact,) = (record for record in records["artifact"] if record["type"] == "model")
    assert [Path(entry["path"]).name for entry in artifact["manifest"]["contents"]] == ["config.json"]


def test_a_run_that_was_stopped_does_not_upload_an_older_model(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    logger, _ = run_logger(tmp_path, LoggerConfig(console=False, upload_model=True))
    with pytest.raises(Stopped), logger:
        raise Stopped("on request")
    records = offline_records(tmp_path)
    assert "artifact" not in records
    assert records["exit"][0].get("exit_code", 0) == 0


def test_metrics_are_logged_even_if_the_table_fails(tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise wandb.CommError("the server is unreachable")

    monkeypatch.setattr(wandb, "Table", fail)
    logger, shown = run_logger(tmp_path)
    with logger:
        log_steps(logger, 1, 2, 3)
    assert [record["item"]["step"] for record in offline_records(tmp_path)["history"]] == [1, 2, 3]
    assert "W&B failed" not in shown.getvalue()


def test_a_run_that_fails_is_marked_as_failed(tmp_path):
    logger, _ = run_logger(tmp_path)
    with pytest.raises(KeyError), logger:
        raise KeyError
    assert offline_records(tmp_path)["exit"][0]["exit_code"] == 1


def test_an_online_run_sends_every_step_once_with_its_table(tmp_path, server):
    logger, shown = run_logger(tmp_path)
    with logger:
        log_steps(logger, 1, 2, 3)

    assert [(row["step"], row["_step"], row["reward/mean"]) for row in server.history] == [
        (1, 1, 0.5), (2, 2, 1), (3, 3, 1.5),
    ]  # fmt: skip
    table = json.loads(server.uploads[server.history[1]["samples"]["path"]])
    assert table["data"][0][-2:] == [1.1, 1.725]
    assert (server.run["groupName"], server.run["jobType"], server.run["project"]) == (
        "sweep",
        "train",
        "r1zero",
    )
    assert server.exit_codes == [0]
    assert re.search(r"W&B: \S+/team/r1zero/runs/\S+", shown.getvalue())


def test_a_resumed_online_run_is_the_same_run_and_sends_no_step_twice(tmp_path, server):
    logger, _ = run_logger(tmp_path)
    with logger:
        log_steps(logger, 1, 2, 3)
    first = server.run["name"]
    logger, _ = run_logger(tmp_path, start_step=2, steps=5)  # step 3 came after the last checkpoint
    with logger:
        log_steps(logger, 3, 4, 5)
    assert server.run["name"] == first
    assert [row["step"] for row in server.history] == [1, 2, 3, 4, 5]


def test_with_a_key_but_no_server_the_run_continues_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setattr(wandb_run, "INIT_TIMEOUT_S", 1)
    logger, shown = run_logger(tmp_path)
    with logger:
        log_steps(logger, 1)
    assert "W&B cannot be used online" in shown.getvalue()
    assert [row["item"]["step"] for row in offline_records(tmp_path)["history"]] == [1]


def test_a_server_that_goes_away_delays_neither_the_steps_nor_the_end(tmp_path, server, monkeypatch):
    monkeypatch.setattr(wandb_run, "FINISH_TIMEOUT_S", 1)
    logger, shown = run_logger(tmp_path)
    log_steps(logger, 1)
    server.shutdown()
    server.server_close()
    started = time.monotonic()
    log_steps(logger, 2, 3, 4)  # W&B retries the table of step 2 for 20 s
    assert time.monotonic() - started < 5
    logger.close()
    assert time.monotonic() - started < 40
    assert shown.getvalue().count("W&B failed: ") == 1
    assert f"wandb sync {tmp_path}/wandb/*run-*" in shown.getvalue()


@pytest.mark.parametrize(
    ("mode", "environment", "key", "folders"),
    [
        (WandbMode.auto, None, None, ["offline"]),
        (WandbMode.auto, None, "key", ["run"]),
        (WandbMode.auto, "offline", "key", ["offline"]),
        (WandbMode.auto, "disabled", "key", []),
        (WandbMode.offline, None, "key", ["offline"]),
        (WandbMode.offline, "online", "key", ["offline"]),  # the setting wins
        (WandbMode.online, None, None, ["offline"]),  # instead of asking for a key
        (WandbMode.auto, None, "malformed", ["offline"]),
    ],
)
def test_setting_environment_and_key_decide_whether_a_run_is_online(
    tmp_path, monkeypatch, server, mode, environment, key, folders
):
    monkeypatch.setenv("WANDB_API_KEY", {"key": "a" * 40, "malformed": "a b", None: ""}[key])
    if environment:
        monkeypatch.setenv("WANDB_MODE", environment)
    logger, shown = run_logger(tmp_path, LoggerConfig(console=False, mode=mode))
    with logger:
        log_steps(logger, 1)
    made = sorted(
        path.name.partition("-")[0]
        for path in (tmp_path / "wandb").glob("*run-*")
        if path.is_dir() and not path.is_symlink()
    )
    assert made == folders
    assert "W&B failed" not in shown.getvalue()


@pytest.mark.parametrize(("command", "folders"), [("disabled", []), ("offline", ["offline"])])
def test_the_mode_that_the_wandb_command_has_set_is_used(tmp_path, server, monkeypatch, command, folders):
    monkeypatch.chdir(tmp_path)
    subprocess.run([Path(sys.executable).with_name("wandb"), command], check=True, capture_output=True)
    logger, shown = run_logger(tmp_path, LoggerConfig(console=False))
    with logger:
        log_steps(logger, 1)
    made = [path.name.partition("-")[0] for path in (tmp_path / "wandb").glob("*run-*") if not path.is_symlink()]
    assert [name for name in made if name != "latest"] == folders
    assert ("W&B is disabled" in shown.getvalue()) == (command == "disabled")


def test_wandbs_variables_name_the_run(tmp_path, monkeypatch):
    for name in ("PROJECT", "NAME", "RUN_GROUP", "JOB_TYPE"):
        monkeypatch.setenv(f"WANDB_{name}", f"my {name}")
    logger, _ = run_logger(tmp_path, LoggerConfig(console=False))
    with logger:
        log_steps(logger, 1)
    (run,) = offline_records(tmp_path)["run"][:1]
    assert [run[key] for key in ("project", "display_name", "run_group", "job_type")] == [
        *("my PROJECT", "my NAME", "my RUN_GROUP", "my JOB_TYPE")
    ]


def test_a_killed_wandb_service_does_not_stop_the_run(tmp_path):
    """In a separate process: its exit status and its output at exit are tested too."""
    script = f"""
import time
from pathlib import Path
import psutil
from rich.console import Console
from grpo_cli.config.run import LoggerConfig
from grpo_cli.metrics.loggers import RunLogger

run_dir = Path({str(tmp_path)!r})
with RunLogger(LoggerConfig(), run_dir, run_name="tiny", steps=9, settings={{}}, console=Console()) as logger:
    logger.log(1, {{"reward/mean": 0.5}})
    for child in psutil.Process().children():
        child.kill()
    time.sleep(0.5)
    for step in range(2, 10):
        logger.log(step, {{"reward/mean": 0.5}})
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("W&B failed: ") == 1
    assert "Traceback" not in done.stderr
    assert "wandb:" not in done.stderr
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 10))


def start_and_kill(run_dir: Path, *, start_step: int, kill_after: int, unflushed: bool) -> None:
    """Log from `start_step` on, in a process that is killed after a step, before or after W&B has written the step."""
    script = f"""
import os, time
from pathlib import Path
from rich.console import Console
from grpo_cli.config.run import LoggerConfig
from grpo_cli.metrics import loggers, wandb_run
from kept_groups import group

config = LoggerConfig(console=False, samples_every=2)
options = {{"run_name": "tiny", "steps": 99, "settings": {{}}, "console": Console()}}
logger = loggers.RunLogger(config, Path({str(run_dir)!r}), start_step={start_step}, **options)
for step in range({start_step} + 1, {kill_after} + 1):
    if step == {kill_after} and not {unflushed}:
        time.sleep(2 * wandb_run.FLUSH_S)
    logger.log(step, {{"reward/mean": step / 2, "length/truncated": 1.0}}, [group(step)])
if not {unflushed}:
    time.sleep(2 * wandb_run.FLUSH_S)
os.kill(os.getpid(), 9)
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == -9, done.stderr
    deadline = time.monotonic() + 20
    while any(
        process.info["name"] == "wandb-core" and process.info["status"] != psutil.STATUS_ZOMBIE
        and str(run_dir) in str([file.path for file in process.open_files()])
        for process in psutil.process_iter(["name", "status"])
    ):  # fmt: skip
        assert time.monotonic() < deadline, "W&B's own process outlived its parent"
        time.sleep(0.1)


def test_a_run_that_is_killed_several_times_has_every_step_once_in_all_files_together(tmp_path):
    start_and_kill(tmp_path, start_step=0, kill_after=6, unflushed=False)
    start_and_kill(tmp_path, start_step=0, kill_after=9, unflushed=True)  # without a checkpoint it started again
    start_and_kill(tmp_path, start_step=8, kill_after=12, unflushed=False)
    logger, shown = run_logger(tmp_path, start_step=10, steps=14)
    with logger:
        for step in range(11, 15):
            logger.log(step, {"reward/mean": step / 2, "length/truncated": 1.0}, groups(step))

    assert len(list((tmp_path / "wandb").glob("offline-run-*"))) == 4
    records = offline_records(tmp_path)
    rows = [record["item"] for record in records["history"]]
    assert [(row["step"], row["_step"], row["reward/mean"]) for row in rows] == [
        (step, step, step / 2) for step in range(1, 15)
    ]
    assert [row["step"] for row in rows if "samples.path" in row] == [2, 4, 6, 8, 10, 12, 14]
    assert [alert["text"].partition(":")[0] for alert in records["alert"]] == ["step 5"]
    assert {run["run_id"] for run in records["run"]} == {(tmp_path / "wandb/run_id").read_text()}
    jsonl = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert jsonl == list(range(1, 15))
    assert "cannot be read" not in shown.getvalue()


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda file, _: file[:0], id="empty"),
        pytest.param(lambda file, size: file[: 7 * size // 10], id="cut"),
        pytest.param(lambda file, size: file[: size // 2] + bytes(1000) + file[size // 2 + 1000 :], id="holed"),
    ],
)
def test_steps_missing_in_a_damaged_offline_file_are_logged_again(tmp_path, damage):
    logger, _ = run_logger(tmp_path, LoggerConfig(console=False, samples_every=0))
    with logger:
        for step in range(1, 201):
            logger.log(step, {f"reward/{name}": step / 2 for name in range(20)})
    wandb.teardown()  # until then W&B may still write
    (file,) = (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
    written = file.read_bytes()
    file.write_bytes(damage(written, len(written)))
    steps = [record["item"]["step"] for record in offline_records(tmp_path).get("history", [])]
    assert len(steps) < 200
    logger, shown = run_logger(tmp_path, start_step=190)
    with logger:
        for step in range(191, 204):
            logger.log(step, {f"reward/{name}": step / 2 for name in range(20)})
    assert sorted(offline_steps(tmp_path)) == list(range(1, 204))
    assert "cannot be read" not in shown.getvalue()


def test_an_alert_whose_step_was_lost_is_not_sent_again(tmp_path):
    logger, _ = run_logger(tmp_path)
    metrics = {"length/truncated": 1.0, **{f"reward/{name}": 0.5 for name in range(20)}}
    with logger:
        for step in range(1, 6):
            logger.log(step, metrics)
    wandb.teardown()
    (file,) = (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
    written = file.read_bytes()
    (alert,) = offline_records(tmp_path)["alert"]
    file.write_bytes(written[: written.index(alert["text"].encode()) + len(alert["text"]) + 200])  # within step 5
    assert offline_steps(tmp_path) == [1, 2, 3, 4]
    assert offline_records(tmp_path)["alert"] == [alert]
    logger, _ = run_logger(tmp_path, start_step=4)
    with logger:
        logger.log(5, metrics)
    assert offline_steps(tmp_path) == [1, 2, 3, 4, 5]
    assert offline_records(tmp_path)["alert"] == [alert]


def test_unreadable_earlier_files_are_reported_and_logging_continues(tmp_path, monkeypatch):
    logger, _ = run_logger(tmp_path)
    with logger:
        log_steps(logger, 1, 2, 3)
    monkeypatch.setattr(wandb_run, "READ_TIMEOUT_S", 0)
    logger, shown = run_logger(tmp_path, start_step=2)
    with logger:
        log_steps(logger, 3, 4)
    assert shown.getvalue().count("W&B's earlier files cannot be read") == 1
    assert offline_steps(tmp_path) == [1, 2, 3, 3, 4]


def test_a_server_that_lost_the_last_steps_is_sent_them_on_resume(tmp_path, server):
    logger, _ = run_logger(tmp_path)
    with logger:
        log_steps(logger, 1, 2, 3, 4)
    del server.history[2:]
    logger, _ = run_logger(tmp_path, start_step=4, steps=5)
    with logger:
        log_steps(logger, 5)
    assert [row["step"] for row in server.history] == [1, 2, 3, 4, 5]
    assert "samples" in server.history[3]


def test_a_health_problem_is_printed_and_is_a_wandb_alert(tmp_path, r1zero):
    result = r1zero("train", "experiment=smoke", "steps=5", "run.dir=run", "rollout.max_new_tokens=4", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    alerts = {alert["title"]: alert["text"] for alert in offline_records(tmp_path / "run").get("alert", [])}
    assert alerts.keys() >= {"responses are cut", "equal rewards in groups"}, result.stdout
    for text in alerts.values():
        assert f"health: {text}" in result.stdout
