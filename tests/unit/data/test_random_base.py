from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from grpo_cli.data.random_base import base_model_dir


def test_the_tokenizer_reads_any_text_with_one_token_per_byte(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    tokenizer = AutoTokenizer.from_pretrained(base_model_dir())
    text = "naïve 数学 \\boxed{1}\n\t<think>"
    ids = tokenizer(text)["input_ids"]
    assert len(ids) == len(text.encode())
    assert tokenizer.decode(ids) == text


def test_the_model_is_created_once_and_is_always_the_same(tmp_path, monkeypatch):
    folders = []
    for name in ("one", "two"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
        folders.append(base_model_dir())
        created_ns = folders[-1].stat().st_mtime_ns
        assert base_model_dir().stat().st_mtime_ns == created_ns
    weights = [dict(AutoModelForCausalLM.from_pretrained(folder).named_parameters()) for folder in folders]
    assert all((weights[0][name] == weights[1][name]).all() for name in weights[0])
    assert AutoConfig.from_pretrained(folders[0]).max_position_embeddings == 8192
