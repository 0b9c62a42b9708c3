"""One HTML file from the facts and groups of runs: it needs no network, and no text in it can run as a script."""

import base64
import gzip
import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from grpo_cli.files import write_whole
from grpo_cli.jsonl import json_text
from grpo_cli.report.aids import aids
from grpo_cli.report.comparison import comparison
from grpo_cli.report.facts import run_facts
from grpo_cli.report.kept import Group, read_kept
from grpo_cli.report.settings import algorithms
from grpo_cli.runs.listing import State

PAGE = "report.html"  # in a run folder
ROOM = 6 * 10**6  # bytes of a page
OTHER = 5 * 10**5  # of them for everything but groups
BASE64 = 4 / 3
REFRESH_SHARE = 0.005  # of the time of a run that writing its page again and again may take
SCRIPTS = (
    "uplot/uPlot.iife.min.js",
    *("base.js", "top.js", "charts.js", "curves.js"),
    *("groups.js", "response.js", "problem.js", "says.js", "advantage.js", "explorer.js"),
    *("tokens.js", "aids.js", "compare.js", "cost.js", "sweep.js", "science.js", "start.js"),
)
STYLES = ("uplot/uPlot.min.css", "style.css")


def write_page(folders: Sequence[Path], file: Path, *, state: State | None = None, room: int = ROOM) -> dict[str, Any]:
    """Write the page of the runs to `file`, in about `room` bytes; returns its facts.

    `state` is the state of the run, if its own process asks.
    """
    document, groups = collect(folders, state=state, room=room)
    write_whole(file, page(document, groups))
    return document


def refresh_page(run_dir: Path, state: State, say: Callable[[str], None]) -> None:
    """Write the page of this process' own run. A fault never stops the run: it becomes one message."""
    try:
        write_page([run_dir], run_dir / PAGE, state=state)
    except Exception as fault:  # of any kind: a page is not worth a run
        say(f"{run_dir / PAGE} was not written: {fault!r}. The run continues; `r1zero report {run_dir}` tries again.")


def page_refresher(run_dir: Path, say: Callable[[str], None]) -> Callable[[], None]:
    """A function for this process' own run, which writes the page of the unfinished run unless that is too early.

    A page that took t seconds is not written again in the next t / REFRESH_SHARE seconds.
    """
    due = -math.inf

    def refresh() -> None:
        nonlocal due
        start = time.monotonic()
        if start >= due:
            refresh_page(run_dir, State.running, say)
            end = time.monotonic()
            due = end + (end - start) / REFRESH_SHARE

    return refresh


def collect(
    folders: Sequence[Path], *, state: State | None = None, room: int = ROOM
) -> tuple[dict[str, Any], list[list[Group]]]:
    """The document with the facts of all runs, and the groups of each."""
    each = int((room - OTHER) / BASE64 / len(folders))
    kept = [read_kept(folder, each) for folder in folders]
    runs = [
        run_facts(folder, state) | {"shown": of_run.notes, "aids": aids(of_run.groups)}
        for folder, of_run in zip(folders, kept, strict=True)
    ]
    names = [run["run"]["name"] for run in runs]
    if len(set(names)) < len(names):  # a link names its run
        for run in runs:
            run["run"]["name"] = run["run"]["folder"]
    document = {"runs": runs, "algorithms": algorithms()}
    groups = [of_run.groups for of_run in kept]
    return document | ({"comparison": comparison(runs, groups)} if len(runs) > 1 else {}), groups


def page(document: Mapping[str, Any], groups: Sequence[Sequence[Group]]) -> str:
    """The HTML of a document and of the groups of each run."""
    script = "\n".join(_asset(name) for name in SCRIPTS)
    style = "\n".join(_asset(name) for name in STYLES)
    packed = base64.b64encode(gzip.compress(json.dumps(_packed(groups), allow_nan=False).encode(), 6, mtime=0)).decode()
    parts = {
        "STYLE": style,
        "STYLE_HASH": _hash(style),
        "SCRIPT": script,
        "SCRIPT_HASH": _hash(script),
        "FACTS": _inert(document),
        "GROUPS": packed,
        "TITLE": escape(document.get("title") or " and ".join(run["run"]["name"] for run in document["runs"])),
    }
    pieces = _asset("page.html").split("@@")  # text and names by turns, so that no value can hold another's place
    return "".join(parts[piece] if number % 2 else piece for number, piece in enumerate(pieces))


def _packed(groups: Sequence[Sequence[Group]]) -> list[dict[str, Any]]:
    """Each run's problems, written once, and its groups."""
    packed = []
    for of_run in groups:
        problems = {group["problem"]: {key: group[key] for key in ("question", "prompt", "answer")} for group in of_run}
        rows = [{key: group[key] for key in ("step", "split", "problem", "responses")} for group in of_run]
        packed.append({"problems": problems, "groups": rows})
    return packed


def _inert(value: Any) -> str:
    """JSON that cannot end the element it stands in: `<` is written as an escape."""
    return json_text(value).replace("<", "\\u003c")


def _asset(name: str) -> str:
    return (files("grpo_cli.report") / "assets" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """For the page's content security policy, which lets exactly this text run."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
