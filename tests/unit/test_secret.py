"""What is masked as a secret, and what is not."""

from collections import UserDict

import pytest

from grpo_cli import secret
from grpo_cli.secret import masked, masked_shell_line, note_variable


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setattr(secret, "_used_in_settings", set())
    monkeypatch.setenv("HF_TOKEN", "not-for-others")
    monkeypatch.setenv("LONGER_KEY", "not-for-others-at-all")
    monkeypatch.setenv("SHORT_KEY", "abc")
    monkeypatch.setenv("TEAM", "blue")


def test_the_value_of_a_variable_with_a_secret_name_is_replaced_by_that_name():
    assert masked("a not-for-others, b not-for-others-at-all") == "a <HF_TOKEN>, b <LONGER_KEY>"
    assert masked("abc and blue") == "abc and blue"


def test_a_variable_used_in_a_setting_is_a_secret_whatever_its_name():
    note_variable("TEAM")
    assert masked("blue") == "<TEAM>"
    assert masked("a blue sky") == "a blue sky"  # too short to be a secret inside a text


def test_a_variable_that_a_thread_removes_meanwhile_is_left_out(monkeypatch):
    class Environment(UserDict):
        def __iter__(self):
            yield from ["REMOVED_KEY", *self.data]

    monkeypatch.setattr(secret.os, "environ", Environment(HF_TOKEN="not-for-others"))
    assert masked("a not-for-others") == "a <HF_TOKEN>"


@pytest.mark.parametrize(
    "text",
    ["hf_" + "a1" * 17, "sk-" + "b2" * 20, "ghp_" + "c3" * 18, "AKIA" + "D4" * 8, "https://me:word@host/x"],
)
def test_a_text_that_looks_like_a_token_is_masked(text):
    assert "<masked>" in masked(f"with {text}.")
    assert text.removeprefix("https://").partition("@")[0] not in masked(f"with {text}.")


@pytest.mark.parametrize("text", ["hf_hub", "half_life", "sk-learn", "<think>", "https://host:8080/a@b"])
def test_ordinary_words_are_not_masked(text):
    assert masked(text) == text


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("module load cuda", "module load cuda"),
        ("export NCCL_DEBUG=INFO", "export NCCL_DEBUG=INFO"),
        ("export API_KEY=abc123", "export API_KEY=<masked>"),
        ("export API_KEY='a b'; cd x", "export API_KEY=<masked>; cd x"),
        ("export API_KEY=$OTHER", "export API_KEY=$OTHER"),
        ("curl -H 'Authorization: Bearer xyz' url", "curl -H 'Authorization: Bearer <masked>' url"),
        ("hf auth login --token xyz", "hf auth login --token <masked>"),
        ("export X=not-for-others", "export X=<HF_TOKEN>"),
    ],
)
def test_only_the_secrets_of_a_shell_line_are_masked(line, expected):
    assert masked_shell_line(line) == expected
