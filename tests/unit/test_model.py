"""What is read of a model's folder."""

import json

import pytest
from realistic import write_realistic_model
from transformers import AutoTokenizer

from grpo_cli.config.schema import ModelConfig
from grpo_cli.model import load_base_model

TEXT = "It's  3.14 = \\boxed{12345} <think>\n\n\tnaïve 数学 </think>"


@pytest.mark.parametrize("name", ["trained", "deepseek_v3"])
def test_a_tokenizer_reads_text_as_its_own_file_says_whatever_its_model_is(name, tmp_path):
    # As DeepSeek's say, and then AutoTokenizer takes the rules of Llama 2's tokenizer, and drops each space.
    write_realistic_model(tmp_path / "model", name, mean_len=8)
    settings = tmp_path / "model/tokenizer_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"tokenizer_class": "LlamaTokenizerFast"}))
    auto = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert auto.decode(auto(TEXT, add_special_tokens=False)["input_ids"]) != TEXT

    model = load_base_model(ModelConfig(name="model", path=str(tmp_path / "model")))
    assert model.tokenizer.decode(model.tokenizer(TEXT, add_special_tokens=False)["input_ids"]) == TEXT
    assert model.tokenizer.chat_template == auto.chat_template
    assert model.tokenizer.eos_token_id == auto.eos_token_id
