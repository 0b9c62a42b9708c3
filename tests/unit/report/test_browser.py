"""The page in a real browser, opened from disk."""

import json

import pytest
from report_run import RIGHT, WRONG

from grpo_cli.analysis.sweep import SweepJob
from grpo_cli.report.page import write_page
from grpo_cli.report.sweep import sweep_page
from grpo_cli.science.claims import read_claim
from grpo_cli.science.experiment import FOLDER
from grpo_cli.science.report import claim_facts, science_page

PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
REPEATED_IDS = """() => [...document.querySelectorAll("[id]")].map((node) => node.id)
  .filter((id, place, all) => all.indexOf(id) !== place)"""


def test_every_view_opens_from_disk_and_charts_are_drawn(open_page):
    page = open_page()
    assert page.locator("h1").inner_text().replace("\u2011", "-").startswith("It is learning: held-out accuracy rose")
    page.wait_for_selector(".u-over")
    assert page.locator(".panel").count() == page.locator(".panel canvas").count() > 3
    assert page.locator("nav a").count() == page.locator("section").count()
    assert "Raise G." in page.locator(".findings").inner_text()
    code = "r1zero 0.1.0, commit 0123456789 with local changes; then r1zero 0.2.0"
    assert page.locator(".about dd").last.inner_text() == code


def test_text_of_a_response_does_not_run(open_page, attack):
    page = open_page(link="#split=train&step=15")
    page.locator(".problems button", has_text=attack[:20]).click()
    assert attack in page.locator("#sample-0 .text").inner_text()
    assert page.evaluate("window.attacked") is None
    assert page.locator("img").count() == 0


def test_the_top_says_what_the_model_said_at_first_and_says_now(open_page):
    page = open_page(viewport=PHONE)
    cards = page.locator("#says .response")
    assert page.locator("#says h2").inner_text() == "What it says to What is held?"
    assert cards.nth(0).inner_text().split() == ["before", "training", "✕", "wrong", "open", *WRONG.split()]
    assert cards.nth(1).inner_text().split() == ["step", "20", "✓", "right", "open", *RIGHT.split()]
    assert cards.nth(0).locator("mark").all_inner_texts() == ["wait"]
    assert cards.nth(1).bounding_box()["y"] < PHONE["height"]  # seen without scrolling
    parts = page.evaluate(
        "brief({text: 'a'.repeat(300), tail: 'b'.repeat(300)}).map((each) => each.textContent ?? each)"
    )
    assert "".join(parts) == "a" * 240 + " … " + "b" * 240
    cards.nth(0).get_by_role("link").click()
    assert page.url.endswith("#split=heldout&step=0&problem=held&sample=0")
    assert page.locator(".response.chosen").get_attribute("id") == "sample-0"


def test_sliders_show_the_values_and_groups_of_a_step(open_page):
    page = open_page()
    page.wait_for_selector(".u-over")
    page.locator("#curve-step").fill("0")
    assert page.locator(".control output").first.inner_text() == "step 0"
    assert page.locator(".legend output").first.inner_text() == "20.0\xa0%"
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
    assert page.locator("output[for=way]").inner_text() == "step 0: wrong"
    assert page.locator("#detail mark").inner_text() == "wait"
    way.press("ArrowRight")
    assert page.locator("output[for=way]").inner_text() == "step 10: right"
    assert page.locator("#detail .badge").all_inner_texts() == ["✕ wrong", "✓ right"]  # at first, and now


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
    assert page.locator(".problems .tally").all_inner_texts() == ["right · step 10"]


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


def test_tokens_are_coloured_by_what_the_model_thought_and_what_the_update_did(open_page, attack):
    page = open_page(link="#split=train&step=15")
    page.locator(".problems button", has_text=attack[:20]).click()
    page.get_by_role("button", name="log-probability").click()
    tokens = page.locator("#sample-0 .token")
    assert tokens.all_inner_texts() == ["no", " wait"]
    colours = [tokens.nth(n).evaluate("node => node.style.getPropertyValue('--strength')") for n in (0, 1)]
    assert colours == ["2%", "38%"]
    page.get_by_role("button", name="after / before the update").click()
    assert page.locator("#sample-0 .token.clipped").all_inner_texts() == [" wait"]  # exp(-2.5 + 2.1) < 0.8, wrong
    assert "below 0.8 with a negative advantage, or above 1.2" in page.locator("#groups .calm").inner_text()


def test_signs_of_reward_hacking_lead_to_responses(open_page):
    page = open_page()
    page.locator("#hacking").get_by_role("button", name="5 tokens, step 17").first.click()
    assert page.url.endswith("#split=train&step=17&problem=4%2B17&sample=0")
    assert page.locator(".response.chosen").get_attribute("id") == "sample-0"


def test_two_runs_are_compared_on_one_page(open_page, faults, runs, tmp_path):
    write_page(runs, tmp_path / "both.html")
    page = open_page(tmp_path / "both.html", viewport=PHONE)
    assert "are equal: held-out accuracy 80.0\xa0%" in page.locator("h1").inner_text().replace("\u2011", "-")
    page.wait_for_selector(".u-over")
    assert page.locator(".panel").first.locator(".key").all_inner_texts() == ["first80.0\xa0%", "second80.0\xa0%"]
    page.get_by_role("button", name="second", exact=True).click()
    assert "run=second" in page.url
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert faults(page) == []


def test_a_sweep_shows_every_setting(open_page, faults, tmp_path, attack):
    curve = ((0, 0.1), (5, 0.3))
    jobs = [
        SweepJob(tmp_path / str(n), {"beta": str(n), "text": attack}, 0.3 * (n + 1), None, None, 9, 1.0, curve)
        for n in range(3)
    ]
    failed = SweepJob(tmp_path / "3", {"beta": "3", "text": ""}, None, None, attack, None, None, ())
    (tmp_path / "sweep.html").write_text(sweep_page("mine", [*jobs, failed]))
    page = open_page(tmp_path / "sweep.html", viewport=PHONE)
    page.wait_for_selector(".u-over")
    assert page.locator("h1").inner_text() == f"Best is beta\xa02, text\xa0{attack}: 0.900."
    assert page.locator("#leaderboard tbody th").all_inner_texts() == ["2", "1", "0", "3"]
    assert page.locator("#leaderboard a").first.get_attribute("href") == "2/report.html"
    assert page.locator("#unfinished li").inner_text().startswith("3 failed")
    assert page.locator(".panel canvas").count() == 3
    assert page.locator("svg .line").count() == 3
    assert page.evaluate("window.attacked") is None
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert faults(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_claims_show_their_verdict_and_every_seed(open_page, faults, tmp_path, monkeypatch, scheme):
    monkeypatch.chdir(tmp_path)
    claim = read_claim("three_curves")
    progress = {}
    for seed in [0, *claim.seeds.confirmation]:
        folder = tmp_path / FOLDER / claim.name / f"rl_{seed}"
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text("rollout: {group_size: 8}\n")
        rows = [{"step": step} | dict.fromkeys(claim.options["metrics"], step + seed) for step in (0, 5, 9)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        progress[folder.name] = {"words": [], "seconds": 60, "done": True}
    (tmp_path / FOLDER / claim.name / "pipeline.json").write_text(json.dumps(progress))
    (tmp_path / "science.html").write_text(science_page([claim_facts(claim), claim_facts(read_claim("epsilon_10"))]))
    page = open_page(tmp_path / "science.html", viewport=PHONE, color_scheme=scheme)
    page.wait_for_selector(".u-over")
    assert page.locator("h1").inner_text() == "1 confirmed, 1 no verdict yet."
    assert page.locator("#claims tbody tr").all_inner_texts() == [
        "three_curves\tconfirmed\t+1.000\t+1.000 to +1.000\t8 of 8\t9 min",
        "epsilon_10\tno verdict yet\t\u2013\t\u2013\t0 of 8\t0 s",
    ]
    assert page.locator("svg .seed").count() == 9
    assert page.locator(".panel").first.locator(".key").all_inner_texts() == ["rl, median of 9 seeds112"]
    assert page.locator(".panel canvas").count() == 3
    assert "r1zero science three_curves seeds=confirm" in page.locator("pre").all_inner_texts()
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert faults(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [PHONE, DESKTOP])
def test_the_page_is_readable(open_page, faults, viewport, scheme):
    page = open_page(viewport=viewport, color_scheme=scheme)
    page.get_by_role("button", name="Training", exact=True).click()
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    assert faults(page) == []


def test_ids_are_unique_and_there_is_one_main_heading(open_page):
    page = open_page(link="#split=train&step=15")
    assert page.evaluate(REPEATED_IDS) == []
    assert page.locator("h1").count() == 1
