"""The page in a real browser, opened from disk. Skipped without Chromium or playwright."""

import random
import shutil
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from report_run import RIGHT, group, learning_groups, learning_rows, response, write_run

from grpo_cli.algorithm.advantage import group_advantages, whitened
from grpo_cli.algorithm.weighting import token_weights
from grpo_cli.choices import AdvantageScale, Baseline, Weighting
from grpo_cli.config.compose import conf_dir, register_schemas, to_typed
from grpo_cli.report.page import write_page
from grpo_cli.report.settings import algorithms

playwright = pytest.importorskip("playwright.sync_api", reason="needs the Python package playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")

ATTACK = "<img src=x onerror='window.attacked=1'></script><script>window.attacked=1</script>"
PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
# The texts whose contrast with what is behind them is below 4.5 (WCAG 2.2, 1.4.3).
FAINT_TEXTS = """() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const part = (value) => (value <= 10 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4);
  const light = ([red, green, blue]) => 0.2126 * part(red) + 0.7152 * part(green) + 0.0722 * part(blue);
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const colour = rgb(getComputedStyle(node).backgroundColor);
      if (colour.length === 3 || colour[3] > 0.9) return colour;
    }
    return [255, 255, 255];
  };
  const faint = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const [text, node] = [texts.currentNode.textContent.trim(), texts.currentNode.parentElement];
    if (!text || node.closest("script, noscript, .hidden") || !node.getClientRects().length) continue;
    const [more, less] = [rgb(getComputedStyle(node).color), behind(node)].map(light).sort((a, b) => b - a);
    if ((more + 0.05) / (less + 0.05) < 4.5) faint.push(`${text.slice(0, 30)}: ${node.className}`);
  }
  return faint;
}"""
UNNAMED_CONTROLS = """() => [...document.querySelectorAll("button, input, select, a, [role=img], [tabindex]")]
  .filter((node) => !node.textContent.trim() && !node.getAttribute("aria-label") && !node.labels?.length)
  .map((node) => node.outerHTML)"""
REPEATED_IDS = """() => [...document.querySelectorAll("[id]")].map((node) => node.id)
  .filter((id, place, all) => all.indexOf(id) !== place)"""
FINDING = '{"step": 4, "name": "groups agree", "words": "Most agree.", "fix": "Raise G."}\n'


@pytest.fixture(scope="module")
def config() -> Any:
    register_schemas()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return to_typed(compose("train", ["run.dir=unused", "steps=20", "algorithm.advantage.std_ddof=1"]), "train")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, config: Any) -> tuple[Path, Path]:
    """The folders of two runs; the responses of the first attack the page."""
    folder = tmp_path_factory.mktemp("runs")
    tokens = {"token_texts": ["no", " wait"], "sampler_logprobs": [-0.1, -2.0], "trainer_logprobs": [-0.1, -2.1]}
    attack = (
        response(ATTACK, correct=False, extracted=ATTACK, truncated=True, reward=None)
        | tokens
        | {"entropies": [0.1, 0.9]}
    )
    attacked = group(15, ATTACK, [attack, response(RIGHT, correct=True)])
    first = write_run(folder / "first", config, learning_rows(), [*learning_groups(), attacked])
    (first / "health.jsonl").write_text(
        '{"step": 4, "name": "groups agree", "words": "Most agree.", "fix": "Raise G."}\n'
    )
    return first, write_run(folder / "second", config, learning_rows(), learning_groups())


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def file(runs: tuple[Path, Path]) -> Path:
    write_page(runs[:1], runs[0] / "report.html")
    return runs[0] / "report.html"


@pytest.fixture
def open_page(browser: Any, file: Path) -> Iterator[Any]:
    """A function that opens the page in a context of its own; its console must stay silent."""
    errors: list[str] = []
    contexts = []

    def opened(file: Path = file, link: str = "", **options: Any) -> Any:
        contexts.append(browser.new_context(**({"viewport": DESKTOP} | options)))
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


def test_every_view_opens_from_disk_and_charts_are_drawn(open_page):
    page = open_page()
    assert page.locator("h1").inner_text().replace("\u2011", "-").startswith("It is learning: held-out accuracy rose")
    page.wait_for_selector(".u-over")
    assert page.locator(".panel").count() == page.locator(".panel canvas").count() > 3
    assert page.locator("nav a").count() == page.locator("section").count()
    assert "Raise G." in page.locator(".findings").inner_text()


def test_text_of_a_response_does_not_run(open_page):
    page = open_page(link="#split=train&step=15")
    page.locator(".problems button", has_text=ATTACK[:20]).click()
    assert ATTACK in page.locator("#sample-0 .text").inner_text()
    assert page.evaluate("window.attacked") is None
    assert page.locator("img").count() == 0


def test_sliders_show_the_values_and_groups_of_a_step(open_page):
    page = open_page()
    page.wait_for_selector(".u-over")
    page.locator("#curve-step").fill("0")
    assert page.locator(".control output").first.inner_text() == "step 0"
    assert page.locator(".legend output").first.inner_text() == "20.0 %"
    page.get_by_role("button", name="Training", exact=True).click()
    page.locator("#step").fill("4")
    assert page.locator(".problem .eyebrow").inner_text().endswith("step 5")
    page.get_by_role("button", name="Next step").click()
    assert page.locator(".problems .question").all_inner_texts() == ["What is 3+6?", "What is 4+6?"]


def test_one_slider_plays_a_problem_through_training(open_page):
    page = open_page()
    page.get_by_role("button", name="Held-out", exact=True).click()
    way = page.locator("#way")
    way.fill("0")
    assert page.locator("output[for=way]").inner_text() == "step 0: 0 of 1 right"
    assert page.locator(".response mark").inner_text() == "wait"
    way.press("ArrowRight")
    assert page.locator("output[for=way]").inner_text() == "step 10: 1 of 1 right"
    assert page.locator(".badge").all_inner_texts() == ["✕ wrong", "✓ right"]  # at first, and now


def test_filters_and_search_choose_groups(open_page):
    page = open_page(link="#split=train&step=3")
    count = page.locator(".count")
    assert count.inner_text() == "2 groups"
    page.get_by_role("button", name="Mixed").click()
    assert count.inner_text() == "1 group"
    page.get_by_role("button", name="All steps").click()
    assert count.inner_text() == "21 groups"
    page.get_by_role("button", name="Cut at the limit").click()
    assert count.inner_text() == "1 group"
    page.get_by_role("button", name="All", exact=True).click()
    page.locator("#search").fill("4+1")
    assert count.inner_text() == "11 groups"  # 4+1, 4+10 to 4+19
    page.get_by_role("button", name="Held-out", exact=True).click()
    page.locator("#search").fill("")
    page.get_by_role("button", name="Newly solved").click()
    assert page.locator(".problems .tally").all_inner_texts() == ["1 of 1 right · step 10"]


def test_a_link_restores_a_response(open_page):
    page = open_page()
    page.get_by_role("button", name="Training", exact=True).click()
    page.locator("#step").fill("7")
    page.locator(".problems button").first.click()
    page.locator("#sample-2 header a").click()
    address = page.url
    assert address.endswith("#split=train&step=8&problem=3%2B8&sample=2")
    again = open_page(link=address[address.index("#") :])
    assert again.locator(".problem .eyebrow").inner_text() == "3+8 · step 8"
    assert again.locator(".response.chosen").get_attribute("id") == "sample-2"
    page.evaluate("location.hash = '#split=heldout&step=10&problem=held'")
    page.wait_for_function("document.querySelector('.problem .eyebrow').textContent === 'held · step 10'")


def test_the_page_computes_the_advantages_and_weights_of_the_trainer(open_page):
    page, draw = open_page(), random.Random(0)
    batches = [[[draw.choice([0.0, 0.1, 1.0, 1.1]) for _ in range(4)] for _ in range(3)] for _ in range(4)]
    batches += [[[0.1] * 16] * 2, [[1.1] * 4] * 2, [[0.0] * 4] * 2, [[1.0, 0.0, 0.0, 0.0]]]
    for name, settings in algorithms().items():
        for rewards in batches:
            lengths = [[draw.randrange(1, 50) for _ in each] for each in rewards]
            ours = page.evaluate("([r, l, s]) => advantagesOf(r, l, s)", [rewards, lengths, settings])
            advantages = group_advantages(
                torch.tensor(rewards, dtype=torch.float64),
                baseline=Baseline(settings["baseline"]),
                scale=AdvantageScale(settings["scale"]),
                std_ddof=settings["std_ddof"],
                eps=settings["eps"],
            )
            flat = [value for each in lengths for value in each]
            if settings["whiten"]:
                values = whitened(list(advantages.flatten()), flat, [True] * len(flat), eps=settings["eps"])
                advantages = torch.stack(values).view(advantages.shape)
            torch.testing.assert_close(torch.tensor(ours).double(), advantages, rtol=1e-5, atol=1e-9, msg=name)
            weights = page.evaluate("([l, s]) => tokenWeights(l, s, 64)", [flat, settings])
            theirs = token_weights(torch.tensor(flat), weighting=Weighting(settings["weighting"]), max_new_tokens=64)
            torch.testing.assert_close(torch.tensor(weights), theirs)


def test_every_baseline_and_scale_is_known(open_page):
    page, rewards = open_page(), [[1.0, 0.0, 0.5], [0.0, 0.0, 1.0]]
    for baseline, scale in product(Baseline, AdvantageScale):
        settings = {"baseline": baseline.value, "scale": scale.value, "std_ddof": 1, "eps": 1e-6}
        expected = group_advantages(torch.tensor(rewards).double(), baseline=baseline, scale=scale, std_ddof=1)
        ours = page.evaluate("([r, s]) => groupAdvantages(r, s)", [rewards, settings])
        torch.testing.assert_close(torch.tensor(ours).double(), expected, rtol=1e-5, atol=1e-9)


def test_a_group_that_is_all_right_or_all_wrong_teaches_nothing(open_page):
    page = open_page(link="#split=train&step=3&problem=3%2B3")
    advantages = page.locator(".explorer .amount b")
    assert [float(text.replace("\u2212", "-")) for text in advantages.all_inner_texts()] == [
        1.15,
        -0.58,
        -0.58,
    ]  # ddof 1
    page.locator("#method").select_option("dr_grpo")
    assert advantages.all_inner_texts() == ["+0.67", "\u22120.33", "\u22120.33"]
    for preset in ("all right", "all wrong"):
        page.get_by_role("button", name=preset).click()
        assert advantages.all_inner_texts() == ["0.00"] * 3
        assert "the group teaches nothing" in page.locator("#advantages").inner_text()
    page.get_by_role("slider", name="Reward of response 1").fill("1.1")
    assert advantages.nth(1).inner_text() == "+0.73"  # 1.1 - 1.1 / 3


def test_tokens_are_coloured_by_what_the_model_thought(open_page):
    page = open_page(link="#split=train&step=15")
    page.locator(".problems button", has_text=ATTACK[:20]).click()
    page.get_by_role("button", name="log-probability").click()
    tokens = page.locator("#sample-0 .token")
    assert tokens.all_inner_texts() == ["no", " wait"]
    colours = [tokens.nth(n).evaluate("node => node.style.getPropertyValue('--strength')") for n in (0, 1)]
    assert colours == ["2%", "38%"]


def test_signs_of_reward_hacking_lead_to_responses(open_page):
    page = open_page()
    page.locator("#hacking").get_by_role("button", name="5 tokens, step 17").first.click()
    assert page.url.endswith("#split=train&step=17&problem=4%2B17&sample=0")
    assert page.locator(".response.chosen").get_attribute("id") == "sample-0"


def test_two_runs_are_compared_on_one_page(open_page, runs, tmp_path):
    write_page(runs, tmp_path / "both.html")
    page = open_page(tmp_path / "both.html", viewport=PHONE)
    assert "are equal: held-out accuracy 80.0 %" in page.locator("h1").inner_text().replace("\u2011", "-")
    page.wait_for_selector(".u-over")
    assert page.locator(".panel").first.locator(".key").all_inner_texts() == ["first80.0 %", "second80.0 %"]
    page.get_by_role("button", name="second", exact=True).click()
    assert "run=second" in page.url
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [PHONE, DESKTOP])
def test_the_page_is_readable(open_page, viewport, scheme):
    page = open_page(viewport=viewport, color_scheme=scheme)
    page.get_by_role("button", name="Training", exact=True).click()
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    assert page.evaluate(FAINT_TEXTS) == []


def test_controls_have_names_and_ids_are_unique(open_page):
    page = open_page(link="#split=train&step=15")
    assert page.evaluate(UNNAMED_CONTROLS) == []
    assert page.evaluate(REPEATED_IDS) == []
    assert page.locator("h1").count() == 1
