"""Fixtures of the tests that open a page in a browser. Without one, they are skipped."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from report_run import RIGHT, group, learning_groups, learning_rows, response, write_run

from grpo_cli.config.compose import conf_dir, register_schemas, to_typed
from grpo_cli.report.page import write_page

FINDING = '{"step": 4, "name": "equal rewards in groups", "words": "Most agree.", "fix": "Raise G."}\n'
CODE = (
    '[{"version": "0.1.0", "commit": "0123456789abcdef", "changed": true},'
    '{"version": "0.2.0", "commit": null, "changed": null}]'
)


@pytest.fixture(scope="session")
def attack() -> str:
    """A text that runs a script if the page reads it as HTML."""
    return "<img src=x onerror='window.attacked=1'></script><script>window.attacked=1</script>"


@pytest.fixture(scope="module")
def config() -> Any:
    register_schemas()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return to_typed(compose("train", ["run.dir=unused", "steps=20", "algorithm.advantage.std_ddof=1"]), "train")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, config: Any, attack: str) -> tuple[Path, Path]:
    """The folders of two runs; the responses of the first attack the page."""
    folder = tmp_path_factory.mktemp("runs")
    tokens = {"token_texts": ["no", " wait"], "sampler_logprobs": [-0.1, -2.0], "trainer_logprobs": [-0.1, -2.1]}
    attacker = response(attack, correct=False, extracted=attack, truncated=True, reward=None)
    attacker |= tokens | {"entropies": [0.1, 0.9], "updated_logprobs": [-0.1, -2.5]}
    attacked = group(15, attack, [attacker, response(RIGHT, correct=True)])
    first = write_run(folder / "first", config, learning_rows(), [*learning_groups(), attacked])
    (first / "health.jsonl").write_text(FINDING)
    (first / "code.json").write_text(CODE)
    return first, write_run(folder / "second", config, learning_rows(), learning_groups())


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, driven by playwright; closed after each file, since its event loop would stop later asyncio tests."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the Python package playwright")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def faults() -> Callable[[Any], list[str]]:
    """A function that returns the serious and critical faults that axe-core finds on an open page."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python").Axe()

    def found(page: Any) -> list[str]:
        violations = axe.run(page).response["violations"]
        return [
            f"{violation['id']}: {node['html'][:200]}"
            for violation in violations
            if violation["impact"] in ("serious", "critical")
            for node in violation["nodes"]
        ]

    return found


@pytest.fixture(scope="module")
def file(runs: tuple[Path, Path]) -> Path:
    write_page(runs[:1], runs[0] / "report.html")
    return runs[0] / "report.html"


@pytest.fixture
def open_page(browser: Any, file: Path) -> Iterator[Any]:
    """A function that opens the page in a separate context; its console must stay silent."""
    errors: list[str] = []
    contexts = []

    def opened(file: Path = file, link: str = "", **options: Any) -> Any:
        contexts.append(browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | options)))
        page = contexts[-1].new_page()
        page.on("console", lambda message: errors.append(message.text))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"{file.as_uri()}{link}")
        page.wait_for_selector("html[data-ready]", state="attached", timeout=60_000)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert errors == []
