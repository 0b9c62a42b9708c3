"""Responses that are sampled in several calls, one segment of tokens after another."""

from bisect import bisect_left
from collections.abc import Callable, Sequence

from grpo_cli.rollout.text import until_stop
from grpo_cli.types import Completion, Request, Sampling


def num_to_sample(request: Request, sampling: Sampling) -> int:
    """How many tokens a call may add to the request's prefix."""
    left = sampling.max_new_tokens - (len(request.prefix.token_ids) if request.prefix else 0)
    return min(left, sampling.segment_tokens or left)


def is_cut(response: Completion, sampling: Sampling) -> bool:
    """Whether a response ended with a segment, and not at the token limit, at a stop string or with an end token."""
    return response.truncated and len(response.token_ids) < sampling.max_new_tokens


def joined(
    prefix: Completion, added: Completion, decode: Callable[[Sequence[int]], str], stop: Sequence[str]
) -> Completion:
    """The response up to now. `added.text` is not used; `decode` gives the text of a response's tokens.

    A stop string may begin in one segment and end in the next, where vLLM, which sees only the latter, misses it. So
    the response is searched again, and ends with the token that completes the first stop string.
    """
    token_ids = prefix.token_ids + added.token_ids
    text = decode(token_ids)
    length = len(token_ids)
    has_stop = any(string in text for string in stop)
    if has_stop:
        length = bisect_left(
            range(length),
            True,
            lo=len(prefix.token_ids),
            key=lambda n: any(string in decode(token_ids[:n]) for string in stop),
        )
        text = until_stop(decode(token_ids[:length]), stop)
    support = None if prefix.support is None or added.support is None else (prefix.support + added.support)[:length]
    return Completion(
        token_ids[:length],
        (prefix.logprobs + added.logprobs)[:length],
        text,
        truncated=added.truncated and not has_stop,
        support=support,
    )
