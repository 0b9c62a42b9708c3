"""What is read from a model's folder."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from realistic import write_realistic_model
from transformers import AddedToken, AutoModelForCausalLM, AutoTokenizer, LlamaConfig, PreTrainedTokenizerFast

from grpo_cli.config.model import ModelConfig
from grpo_cli.data.random_base import build_base
from grpo_cli.errors import ConfigError
from grpo_cli.model import BaseModel, load_base_model
from grpo_cli.rollout.text import shown_special_ids, text_after, until_stop

TEXT = "It's  3.14 = \\boxed{12345} <think>\n\n\tnaïve 数学 </think>"


@pytest.mark.parametrize("name", ["trained", "deepseek_v3"])
def test_a_tokenizer_follows_its_own_file_whatever_the_models_type(name, tmp_path):
    # DeepSeek's files say this; AutoTokenizer then uses the rules of Llama 2's tokenizer, which drop every space.
    write_realistic_model(tmp_path / "model", name, mean_len=8)
    settings = tmp_path / "model/tokenizer_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"tokenizer_class": "LlamaTokenizerFast"}))
    auto = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert auto.decode(auto(TEXT, add_special_tokens=False)["input_ids"]) != TEXT

    model = load_base_model(ModelConfig(name="model", path=str(tmp_path / "model")))
    assert model.tokenizer.decode(model.tokenizer(TEXT, add_special_tokens=False)["input_ids"]) == TEXT
    assert model.tokenizer.chat_template == auto.chat_template
    assert model.tokenizer.eos_token_id == auto.eos_token_id


def write_base(folder: Path, num_rows: int, *, special: Sequence[str] = (), vocabulary: Mapping[str, int] = {}) -> None:
    """Write a model with `num_rows` rows in its embedding, and a byte-level tokenizer (ids 0 to 255, 256 is the end)
    with more entries.
    """
    build_base(folder)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    tokenizer.add_tokens([AddedToken(text, special=True) for text in special], special_tokens=True)
    tokenizer.save_pretrained(folder)
    file = folder / "tokenizer.json"
    settings = json.loads(file.read_text())
    settings["model"]["vocab"] |= vocabulary
    file.write_text(json.dumps(settings))
    config = LlamaConfig(
        vocab_size=num_rows,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        eos_token_id=256,
        bos_token_id=None,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)


def load(folder: Path) -> BaseModel:
    return load_base_model(ModelConfig(name="m", path=str(folder)))


def test_the_vocabulary_size_includes_the_highest_id_even_with_gaps(tmp_path):
    write_base(tmp_path, 320, vocabulary={"xx": 300})
    model = load(tmp_path)
    assert len(model.tokenizer) == 258  # lower than the highest id
    assert model.vocab_size == 301


def test_a_tokenizer_whose_ids_exceed_the_embedding_is_rejected(tmp_path):
    write_base(tmp_path, 257, vocabulary={"xx": 300})
    with pytest.raises(ConfigError, match=r"ids go up to 300, and the model's embedding has 257 rows"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("generation_config", "ends"),
    [({"eos_token_id": [10, 11]}, (10, 11, 256)), ({"eos_token_id": 12}, (12, 256)), ({}, (256,)), (None, (256,))],
)
def test_every_end_token_of_the_generation_config_and_the_tokenizer_ends_a_response(tmp_path, generation_config, ends):
    write_base(tmp_path, 257)
    (tmp_path / "generation_config.json").unlink(missing_ok=True)
    if generation_config is not None:
        (tmp_path / "generation_config.json").write_text(json.dumps(generation_config))
    assert load(tmp_path).end_token_ids == ends


def test_an_end_token_beyond_the_tokenizer_is_never_masked(tmp_path):
    write_base(tmp_path, 320)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [310]}))
    assert load(tmp_path).vocab_size == 311


def test_tags_that_are_special_tokens_stay_in_the_text(tmp_path):
    write_base(tmp_path, 320, special=["<think>", "</answer>", "<x>"])
    tokenizer: PreTrainedTokenizerFast = load(tmp_path).tokenizer
    ids = [*tokenizer("<think>a<x>b</answer>", add_special_tokens=False)["input_ids"], 256]
    shown = shown_special_ids(tokenizer, stop=["</answer>"])
    assert text_after(tokenizer, [], ids, shown) == "<think>ab</answer>"
    assert text_after(tokenizer, [], ids) == "ab"


def test_a_special_token_that_ends_responses_stays_in_the_text(tmp_path):
    write_base(tmp_path, 320, special=["<x>"])
    tokenizer = load(tmp_path).tokenizer
    assert shown_special_ids(tokenizer, stop=["<x>"]) == {257}
    assert shown_special_ids(tokenizer, stop=[]) == frozenset()


@pytest.mark.parametrize(
    ("text", "stop", "kept"),
    [("a</x>b</y>", ["</y>", "</x>"], "a</x>"), ("ab", ["</x>"], "ab"), ("ab", [], "ab")],
)
def test_text_ends_with_the_first_stop_string(text, stop, kept):
    assert until_stop(text, stop) == kept
