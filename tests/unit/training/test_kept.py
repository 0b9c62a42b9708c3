"""Which groups of a step are kept, and the values of their tokens."""

import pytest
import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import PreTrainedTokenizerFast

from grpo_cli.config.run import LoggerConfig
from grpo_cli.rollout.collect import Rollout
from grpo_cli.runs.rollouts import TokenValues
from grpo_cli.training import kept as kept_module
from grpo_cli.training.batch import TrainingSequence, make_microbatches
from grpo_cli.training.kept import first_groups, first_values, token_texts
from grpo_cli.types import Completion, Problem, Prompt, Score, ScoredGroup, Verdict

pytestmark = pytest.mark.usefixtures("one_rank")


def scored(id: str, *lengths: int) -> ScoredGroup:
    completions = tuple(Completion(tuple(range(1, n + 1)), (-0.5,) * n, "", False) for n in lengths)
    prompt = Prompt(Problem(id, "", ""), "", (9,))
    return ScoredGroup(prompt, completions, (Score(0.0, {}, Verdict.wrong, None),) * len(lengths))


def rollout(**positions: int) -> Rollout:
    """A rank's groups, each with one response of two tokens."""
    return Rollout(tuple(scored(id, 2) for id in positions), tuple(positions.values()), (), 0.0, 0.0)


def first(rollout: Rollout, count: int, advantages, **settings):
    config = LoggerConfig(groups_per_step=count, **settings)
    policy = FakePolicy()
    values = first_values(rollout, config, policy, FakeTokenizer())
    policy.added = 0.5  # the update
    return first_groups(3, rollout, advantages, config, policy, values)


class FakePolicy:
    """Log-probabilities -1, -2, ... and entropies 1, 2, ... of the tokens of all sequences."""

    added = 0.0  # to the log-probabilities

    def forwarded(self, sequences, *, with_entropy):
        assert with_entropy
        for microbatch in make_microbatches(sequences, 1000, torch.device("cpu")):
            numbers_N = torch.arange(1.0, 1 + sum(len(s.response_ids) for s in sequences))
            yield microbatch, self.added - numbers_N, numbers_N


class FakeTokenizer:
    def decode(self, token_ids):
        return " ".join(map(str, token_ids))


def test_the_first_groups_of_all_ranks_are_kept_in_the_order_in_which_they_were_drawn(monkeypatch):
    advantages = [[torch.tensor(float(n))] for n in range(3)]
    (other_rank,) = (first(rollout(b=1, d=3), 4, advantages[:2]),)
    sent = [{1: other_rank[0], 3: other_rank[1]}]
    monkeypatch.setattr(kept_module, "gather", lambda mine: [mine, *sent])
    groups = first(rollout(c=2, a=0, e=4), 4, advantages)
    assert [group.problem for group in groups] == ["a", "b", "c", "d"]
    assert [group.responses[0].advantage for group in groups] == [1.0, 0.0, 0.0, 1.0]
    assert {group.step for group in groups} == {3}


def test_0_groups_keeps_nothing():
    assert first(rollout(a=0), 0, [[torch.tensor(1.0)]]) == []


def test_advantages_of_tokens_are_kept_as_their_mean():
    ((kept,),) = [group.responses for group in first(rollout(a=0), 8, [[torch.tensor([1.0, 2.0])]])]
    assert kept.advantage == 1.5
    assert kept.values is None


def test_token_values_belong_to_the_tokens_of_their_response_before_and_after_the_update():
    mine = Rollout((scored("a", 2, 0, 1),), (0,), (), 0.0, 0.0)
    (kept,) = first(mine, 8, [[torch.tensor(0.0)] * 3], token_values=True)
    assert [response.values for response in kept.responses] == [
        TokenValues(["1", " 2"], (-0.5, -0.5), [-1.0, -2.0], [1.0, 2.0], [-0.5, -1.5]),
        TokenValues([], (), [], [], []),
        TokenValues(["1"], (-0.5,), [-3.0], [3.0], [-2.5]),
    ]


def test_token_texts_join_to_the_text_also_if_a_character_has_several_tokens():
    backend = ByteLevelBPETokenizer()
    backend.train_from_iterator(["a b"], vocab_size=259, show_progress=False)  # one token for each byte
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend._tokenizer)
    text = "aé 数b"
    ids = tokenizer(text)["input_ids"]
    assert len(ids) == len(text.encode())
    assert token_texts(ids, tokenizer) == ["a", "", "é", " ", "", "", "数", "b"]
    assert "".join(token_texts(ids[:2], tokenizer)) == "a\ufffd"  # cut within a character


def test_values_of_a_row_are_split_into_those_of_its_sequences():
    sequences = [TrainingSequence((1,), (2,) * n, (-1.0,) * n) for n in (2, 0, 1)]
    (microbatch,) = make_microbatches(sequences, 100, torch.device("cpu"))
    parts = microbatch.by_sequence(torch.tensor([1.0, 2.0, 3.0]))
    assert [parts[sequence].tolist() for sequence in sequences] == [[1.0, 2.0], [], [3.0]]
