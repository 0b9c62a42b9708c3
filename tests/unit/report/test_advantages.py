"""The advantages that the page computes, in a real browser, against the trainer's."""

import random
from itertools import product

import torch

from grpo_cli.algorithm.advantage import group_advantages, whitened
from grpo_cli.algorithm.weighting import token_weights
from grpo_cli.choices import AdvantageScale, Baseline, Weighting
from grpo_cli.report.settings import algorithms


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
            if len({value for each in rewards for value in each}) == 1 and settings["baseline"] != "none":
                assert not any(value for each in ours for value in each), name  # exactly 0: no rounding is a signal
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
