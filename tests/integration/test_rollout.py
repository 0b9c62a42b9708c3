"""Sampling with the real vLLM: repeatable seeds, weight sync, and ids that are never sampled."""

import random
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from grpo_cli.errors import TrainingError
from grpo_cli.rollout.segments import is_cut
from grpo_cli.rollout.vllm_engine import RolloutEngine, exclude_padding
from grpo_cli.training.batch import TrainingSequence
from grpo_cli.training.policies import rl_policy
from grpo_cli.training.policy import Policy
from grpo_cli.training.weight_sync import sync_weights
from grpo_cli.types import Request, Sampling

PROMPT = (23, 15, 16, 12, 6)
SAMPLING = Sampling(temperature=0.7, top_p=1.0, max_new_tokens=64)


def requests(count: int = 16) -> list[Request]:
    return [Request(PROMPT, seed=1000 + index) for index in range(count)]


def sampled(engine: RolloutEngine, order=range(16), sampling=SAMPLING) -> dict[int, object]:
    chosen = [requests()[index] for index in order]
    return {order[index]: completion for index, completion in engine.generate(chosen, sampling)}


def test_a_seeded_response_does_not_depend_on_the_other_requests(rollout_engine):
    together = sampled(rollout_engine)
    assert sampled(rollout_engine, order=list(reversed(range(16)))) == together
    assert sampled(rollout_engine, order=[3]) == {3: together[3]}


def test_prompts_with_more_tokens_than_one_step_of_vllm_are_sampled(new_engine):
    # 64 prompts of 200 tokens: on a CPU vLLM reads 4,096 tokens per step, which is 20.5 prompts.
    from grpo_cli.config.model import ModelConfig
    from grpo_cli.model import load_base_model

    draw = random.Random(0)
    prompts = [tuple(draw.randrange(256) for _ in range(200)) for _ in range(64)]
    engine = new_engine(load_base_model(ModelConfig(name="random", path="builtin:random"), needed_len=208))
    sampling = Sampling(temperature=1.0, top_p=1.0, max_new_tokens=8)

    def sampled_at(indices: list[int]) -> dict[int, object]:
        asked = [Request(prompts[index], seed=1000 + index) for index in indices]
        return {indices[index]: completion for index, completion in engine.generate(asked, sampling)}

    together = sampled_at(list(range(64)))
    assert len(together) == 64
    assert sampled_at([20])[20].token_ids == together[20].token_ids


def test_different_seeds_give_different_responses(rollout_engine):
    assert len({completion.token_ids for completion in sampled(rollout_engine).values()}) > 4


def test_a_completion_says_how_it_ended(rollout_engine, model):
    cut = sampled(rollout_engine, sampling=Sampling(1.0, 1.0, max_new_tokens=5))
    assert all(completion.truncated and len(completion.token_ids) == 5 for completion in cut.values())
    whole = sampled(rollout_engine, sampling=Sampling(1.0, 1.0, max_new_tokens=128))
    ended = [completion for completion in whole.values() if not completion.truncated]
    assert ended
    assert all(completion.token_ids[-1] == model.tokenizer.eos_token_id for completion in ended)
    assert all(len(completion.logprobs) == len(completion.token_ids) for completion in whole.values())


def test_a_stop_string_ends_the_response_and_is_part_of_it(rollout_engine):
    sampling = Sampling(1.0, 1.0, max_new_tokens=128, stop=("</think>",))
    stopped = [c.text for c in sampled(rollout_engine, sampling=sampling).values() if not c.truncated]
    assert any(text.endswith("</think>") for text in stopped)
    assert all(text.count("</think>") <= 1 for text in stopped)


@pytest.mark.parametrize("stop", [(), ("</think>",)])
def test_a_response_in_segments_equals_one_that_is_sampled_at_once(stop, rollout_engine):
    greedy = Sampling(0.0, 1.0, max_new_tokens=64, stop=stop)
    (_, whole), *_ = rollout_engine.generate([Request(PROMPT, seed=0)], greedy)
    response, num_segments = None, 0
    while response is None or is_cut(response, greedy):
        asked = [Request(PROMPT, seed=num_segments, prefix=response)]
        ((_, response),) = rollout_engine.generate(asked, replace(greedy, segment_tokens=3))
        num_segments += 1
    assert num_segments > 2
    assert response.token_ids == whole.token_ids
    assert (response.text, response.truncated) == (whole.text, whole.truncated)
    assert response.logprobs == pytest.approx(whole.logprobs, abs=1e-5)


def test_decoding_at_the_end_gives_the_same_text_as_decoding_while_sampling(rollout_engine):
    as_sampled = Sampling(1.0, 1.0, max_new_tokens=64, stop=("never in a response",))
    at_the_end = Sampling(1.0, 1.0, max_new_tokens=64)
    texts = {i: completion.text for i, completion in sampled(rollout_engine, sampling=at_the_end).items()}
    assert texts == {i: completion.text for i, completion in sampled(rollout_engine, sampling=as_sampled).items()}
    assert all(texts.values())


def largest_difference(policy: Policy, completions) -> float:
    """The largest difference between the sampler's and the trainer's log-probabilities of the same tokens."""
    sequences = [
        TrainingSequence(PROMPT, c.token_ids, c.logprobs, advantage=1.0, weight=1.0, support=c.support)
        for c in completions.values()
    ]
    return policy.update([sequences]).compute()["sampler/logprob_diff_max"]


def test_after_a_sync_sampler_and_trainer_agree_and_without_one_they_do_not(rollout_engine, model, config):
    config.rollout.temperature = SAMPLING.temperature
    config.optimizer.lr = 1e-2
    policy = rl_policy(model, config)
    sync_weights(policy, rollout_engine)
    assert largest_difference(policy, sampled(rollout_engine)) < 1e-4  # after the policy has changed
    assert largest_difference(policy, sampled(rollout_engine)) > 1e-2
    sync_weights(policy, rollout_engine)
    assert largest_difference(policy, sampled(rollout_engine)) < 1e-4
    sync_weights(rl_policy(model, config), rollout_engine)  # restore the shared engine


@pytest.mark.parametrize(("top_p", "top_k"), [(0.9, 512), (1.0, 2), (0.8, 3)])
def test_sampler_and_trainer_renormalise_over_the_same_tokens(top_p, top_k, rollout_engine, model, config):
    config.rollout.temperature = SAMPLING.temperature
    policy = rl_policy(model, config)
    sync_weights(policy, rollout_engine)
    completions = sampled(rollout_engine, sampling=replace(SAMPLING, top_p=top_p, top_k=top_k))
    supports = [memoryview(row).cast("i").tolist() for c in completions.values() for row in c.support]
    tokens = [token for c in completions.values() for token in c.token_ids]
    assert all(token in support for token, support in zip(tokens, supports, strict=True))
    assert 1 < max(len(support) for support in supports) <= top_k
    assert largest_difference(policy, completions) < 1e-4
    without = {index: replace(completion, support=None) for index, completion in completions.items()}
    assert largest_difference(rl_policy(model, config), without) > 1e-2


def test_without_top_k_nothing_else_is_recorded(rollout_engine):
    assert {c.support for c in sampled(rollout_engine).values()} == {None}
    evaluated = sampled(rollout_engine, sampling=replace(SAMPLING, top_p=0.9))  # as `eval.top_p`
    assert {c.support for c in evaluated.values()} == {None}


def test_ids_beyond_the_tokenizer_are_never_sampled(new_engine, model, config, tmp_path):
    # The embedding has 12 padding ids with the largest logits.
    from transformers import AutoModelForCausalLM

    from grpo_cli.model import load_base_model

    network = AutoModelForCausalLM.from_pretrained(model.folder, dtype=torch.float32)
    network.resize_token_embeddings(192)
    with torch.no_grad():
        network.get_input_embeddings().weight[180:] = 10 * network.get_input_embeddings().weight[:12]
    network.save_pretrained(tmp_path)
    model.tokenizer.save_pretrained(tmp_path)
    config.model.path = str(tmp_path)
    config.rollout.temperature = SAMPLING.temperature
    padded = load_base_model(config.model, needed_len=144)
    completions = sampled(new_engine(padded))
    assert all(token < 180 for completion in completions.values() for token in completion.token_ids)
    assert largest_difference(rl_policy(padded, config), completions) < 1e-3


def test_the_padding_is_excluded_in_the_model_runner_for_gpus_too():
    # The runner for CPUs samples in the test above.
    from vllm.v1.worker.gpu.model_runner import GPUModelRunner

    network = nn.Module()
    network.compute_logits = lambda states: states.repeat(1, 4)
    exclude_padding(network, vocab_size=10)
    runner = SimpleNamespace(
        model=network,
        sampler=lambda logits, _: SimpleNamespace(logits=logits, num_sampled=1, num_rejected=0),
        batch_sharder=None,
        rejection_sampler=None,
    )
    batch = SimpleNamespace(logits_indices=torch.tensor([1]), num_reqs=1, num_draft_tokens=0)
    with torch.inference_mode():
        sampled, *_ = GPUModelRunner.sample(runner, torch.zeros(2, 3), batch, None)
    assert sampled.logits.isinf().tolist() == [[False] * 10 + [True] * 2]


@pytest.mark.parametrize("forgotten", ["lm_head.weight", "model.norm.weight", "mlp.down_proj.weight", "o_proj.weight"])
def test_a_weight_that_does_not_arrive_stops_the_run_at_any_learning_rate(
    forgotten, rollout_engine, model, config, monkeypatch
):
    config.optimizer.lr = 1e-6
    policy = rl_policy(model, config)
    assert sync_weights(policy, rollout_engine) == len(list(policy.named_weights()))
    policy.update([[TrainingSequence(PROMPT, (40, 41, 42), (-1.0,) * 3, advantage=1.0, weight=1.0)]])

    vllm, reload = rollout_engine._llm, rollout_engine._llm.collective_rpc

    def forget(method, kwargs):
        kept = ((name, weight) for name, weight in kwargs["weights_iterator"] if not name.endswith(forgotten))
        return reload(method, kwargs={"weights_iterator": kept})

    monkeypatch.setattr(vllm, "collective_rpc", forget)
    with pytest.raises(TrainingError, match=f"{forgotten}.*another policy"):
        sync_weights(policy, rollout_engine)
    monkeypatch.undo()
    sync_weights(rl_policy(model, config), rollout_engine)  # restore the shared engine
