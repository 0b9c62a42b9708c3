"""What an evaluation during training keeps."""

import pytest
from rich.console import Console

from grpo_cli.config.train import TrainConfig
from grpo_cli.evaluation.live import LiveEvaluation
from grpo_cli.types import Problem, Sampling

from .conftest import FakeEngine, fake_prompts

pytestmark = pytest.mark.usefixtures("one_rank")


@pytest.mark.parametrize(("count", "followed"), [(2, ["p0", "p1"]), (0, []), (9, ["p0", "p1", "p2"])])
def test_the_first_heldout_problems_are_followed_with_their_greedy_responses(reward, template, count, followed):
    class Engine(FakeEngine):
        def generate(self, requests, sampling):
            assert (sampling.top_p, sampling.top_k) == (1.0, 0)  # whatever training uses
            for index, completion in reversed(list(super().generate(requests, sampling))):
                if sampling.temperature == 0 or index == 0:
                    yield index, completion
                else:  # what is not greedy is not kept
                    yield index, type(completion)((), (), "sampled", truncated=False)

    config = TrainConfig(template=template)
    config.logger.heldout_groups = count
    prompts = fake_prompts([Problem(f"p{n}", f"{n} + 1?", f"{n + 1}") for n in range(3)])
    engine = Engine(["The answer is 1.", "It is 9.", "The answer is 3."])
    evaluate = LiveEvaluation(engine, reward, prompts, {}, config, 100, Console(quiet=True))
    evaluated = evaluate(Sampling(0.7, 0.9, 20, top_k=5))
    assert [group.prompt.problem.id for group in evaluated.groups] == followed
    texts = {group.prompt.problem.id: group.completions[0].text for group in evaluated.groups}
    assert texts == {id: engine.responses[int(id[1])] for id in followed}
    assert [group.scores[0].total for group in evaluated.groups] == [1.0, 0.0, 1.0][: len(followed)]
    assert evaluated.metrics["eval/heldout/greedy"] == pytest.approx(2 / 3)
