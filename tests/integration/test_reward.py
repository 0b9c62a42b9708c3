"""Reward terms that need a reward model or a problem's tests in the sandbox."""

import json
import shutil

import pytest
import torch
from transformers import LlamaConfig, LlamaForSequenceClassification

from grpo_cli.choices import Device
from grpo_cli.config.reward import RewardConfig
from grpo_cli.config.template import TemplateConfig
from grpo_cli.errors import ConfigError
from grpo_cli.reward.reward import Reward
from grpo_cli.types import Completion, Problem, Verdict

TEMPLATE = TemplateConfig(text="{problem}")


def completion(text: str) -> Completion:
    return Completion((1,), (-0.5,), text, truncated=False)


def test_a_reward_model_gives_its_score(model, tmp_path):
    # All weights of the layer are 0, so that the score depends only on the last token's embedding.
    yes, no = model.tokenizer.convert_tokens_to_ids(["yes", "no"])
    config = LlamaConfig(
        vocab_size=len(model.tokenizer),
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        pad_token_id=0,
        num_labels=1,
    )
    network = LlamaForSequenceClassification(config)
    with torch.no_grad():
        for parameter in network.model.layers.parameters():
            parameter.zero_()
        network.model.embed_tokens.weight.zero_()
        network.model.embed_tokens.weight[yes, 0] = 1.0
        network.model.embed_tokens.weight[no, 1] = 1.0
        network.score.weight.copy_(torch.tensor([[1.0, -1.0, 0, 0, 0, 0, 0, 0]]))
    network.save_pretrained(tmp_path)
    model.tokenizer.save_pretrained(tmp_path)
    terms = {"model": {"weight": 1.0, "path": str(tmp_path)}}
    problem = Problem("p", "13 5 6 2", "", "model")
    with Reward(RewardConfig(terms=terms), TEMPLATE, 8, Device.cpu) as reward:
        liked, disliked = (reward.submit(problem, completion(word), step=1).result(60).total for word in ("yes", "no"))
    assert liked > 1
    assert disliked == pytest.approx(-liked)


def test_a_missing_reward_model_is_reported_with_the_fix(tmp_path):
    terms = {"model": {"path": str(tmp_path / "nowhere")}}
    with pytest.raises(ConfigError, match=r"nowhere: cannot be loaded.*(.|\n)*Give a folder"):
        Reward(RewardConfig(terms=terms), TEMPLATE, 8, Device.cpu)


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="needs bubblewrap (apt-get install bubblewrap)")
@pytest.mark.parametrize(("scoring", "values"), [("all", [1.0, 0.0, 0.0]), ("share", [1.0, 0.5, 0.0])])
def test_code_is_scored_by_its_tests(scoring, values):
    tests = json.dumps({"fn_name": "half", "inputs": [[4], [7]], "outputs": [2, 3]})
    problem = Problem("p", "Halve a whole number, rounding down.", tests, "code")
    programs = ("def half(n): return n // 2", "def half(n): return 2", "def half(n): exit(0)")
    with Reward(RewardConfig(terms={"code": {"scoring": scoring}}), TEMPLATE, 8, Device.cpu) as reward:
        scores = [reward.submit(problem, completion(f"```python\n{p}\n```")).result(60) for p in programs]
    assert [score.total for score in scores] == values
    assert [score.verdict is Verdict.correct for score in scores] == [True, False, False]
