"""Decodes sampled token ids to the text that rewards read."""

from collections.abc import Collection, Sequence

from transformers import PreTrainedTokenizerBase

NUM_BEFORE = 8  # last tokens of a prompt; they decide how the response's text begins
TAGS = ("<think>", "</think>", "<answer>", "</answer>")


def shown_special_ids(tokenizer: PreTrainedTokenizerBase, stop: Sequence[str]) -> frozenset[int]:
    """The ids of special tokens that stay in the text: tags that rewards read, and stop strings.

    All others, such as the end token, are removed from it.
    """
    special = ((id, token.content) for id, token in tokenizer.added_tokens_decoder.items() if token.special)
    return frozenset(id for id, content in special if content in (*TAGS, *stop))


def text_after(
    tokenizer: PreTrainedTokenizerBase, prompt_ids: Sequence[int], ids: Sequence[int], shown: Collection[int] = ()
) -> str:
    """The text that `ids` add to the prompt's text. The end of the prompt decides whether it begins with a space.

    `shown` are the special tokens that stay in the text.
    """
    end = list(prompt_ids[-NUM_BEFORE:])
    rows = [end, [*end, *ids]]
    if shown:
        hidden = {id for id, token in tokenizer.added_tokens_decoder.items() if token.special}.difference(shown)
        rows = [[id for id in row if id not in hidden] for row in rows]
    before, whole = tokenizer.batch_decode(rows, skip_special_tokens=not shown)
    return whole[len(before) :]


def until_stop(text: str, stop: Sequence[str]) -> str:
    """The text up to the end of the first stop string. The last token may have more text after it."""
    ends = [text.index(string) + len(string) for string in stop if string in text]
    return text[: min(ends, default=len(text))]
