"""Fixtures for the evaluation tests: an engine without a model, which answers each prompt with a fixed response."""

from collections.abc import Callable

import pytest

from grpo_cli.choices import Device
from grpo_cli.config.reward import RewardConfig
from grpo_cli.config.template import TemplateConfig
from grpo_cli.evaluation.samples import Sample
from grpo_cli.reward.reward import Reward
from grpo_cli.types import Completion, Problem, Prompt, Verdict


class FakeEngine:
    """Returns given responses in the order of the requests; the token id of a prompt is the index of its problem."""

    def __init__(self, responses: list[str]) -> None:
        self.responses = responses
        self.seeds: list[int] = []

    def generate(self, requests, sampling):
        for index, request in enumerate(requests):
            self.seeds.append(request.seed)
            text = self.responses[request.token_ids[0]]
            yield index, Completion(tuple(range(len(text.split()))), (), text, truncated=False)


def fake_prompts(problems: list[Problem]) -> list[Prompt]:
    return [Prompt(problem, problem.text, (place,)) for place, problem in enumerate(problems)]


@pytest.fixture
def template() -> TemplateConfig:
    return TemplateConfig(answer="text")


@pytest.fixture
def reward(template):
    with Reward(RewardConfig(terms={"accuracy": {"weight": 1.0}}, num_workers=2), template, 3000, Device.cpu) as reward:
        yield reward


@pytest.fixture
def sample() -> Callable[..., Sample]:
    """Makes a sample with defaults for all fields that are not given."""

    def make(id: str, number: int = 0, **fields) -> Sample:
        defaults = {
            "benchmark": "b",
            "id": id,
            "sample": number,
            "seed": 0,
            "text": "",
            "extracted": None,
            "verdict": Verdict.wrong,
            "num_tokens": 1,
            "truncated": False,
            "well_formed": True,
        }
        return Sample(**(defaults | fields))

    return make
