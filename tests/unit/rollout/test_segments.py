"""Responses in segments: where each ends, and stop strings that begin in one and end in the next."""

import pytest

from grpo_cli.rollout.segments import is_cut, joined, num_to_sample
from grpo_cli.types import Completion, Request, Sampling

TEXT = dict(enumerate(["<ans", "wer>", "1", " 2", "</ans", "wer> and", " more"]))


def decode(token_ids) -> str:
    return "".join(TEXT[token] for token in token_ids)


def completion(*token_ids: int, truncated: bool = True, support: bool = False) -> Completion:
    logprobs = tuple(-0.1 * token for token in token_ids)
    return Completion(
        token_ids, logprobs, decode(token_ids), truncated, tuple(bytes([t]) for t in token_ids) if support else None
    )


@pytest.mark.parametrize(("known", "segment", "expected"), [(0, 0, 10), (0, 4, 4), (4, 4, 4), (8, 4, 2), (8, 0, 2)])
def test_a_segment_ends_at_the_token_limit(known, segment, expected):
    request = Request((1,), 0, completion(*[2] * known) if known else None)
    assert num_to_sample(request, Sampling(1.0, 1.0, 10, segment_tokens=segment)) == expected


def test_a_response_is_cut_if_it_may_continue():
    sampling = Sampling(1.0, 1.0, 3)
    assert is_cut(completion(2, 2), sampling)
    assert not is_cut(completion(2, 2, truncated=False), sampling)  # an end token
    assert not is_cut(completion(2, 2, 2), sampling)  # the token limit


def test_segments_are_joined():
    both = joined(completion(0, 1, support=True), completion(2, 3, support=True), decode, ())
    assert both == completion(0, 1, 2, 3, support=True)


@pytest.mark.parametrize("truncated", [True, False])
def test_a_stop_string_over_two_segments_ends_the_response(truncated):
    """The token that completes the stop string is the last one; its text may have more after it."""
    both = joined(completion(2, 4), completion(5, 6, 6, truncated=truncated), decode, ("</answer>", "more more"))
    assert both == Completion((2, 4, 5), (-0.2, -0.4, -0.5), "1</answer>", truncated=False)


def test_a_stop_string_that_vllm_has_found_stays():
    both = joined(completion(2), completion(4, 5, truncated=False), decode, ("</answer>",))
    assert (both.token_ids, both.text, both.truncated) == ((2, 4, 5), "1</answer>", False)
