"""Signatures: which files this account wrote."""

import os
import stat

import pytest

from grpo_cli.signature import is_ours, key_file, sign


@pytest.fixture(autouse=True)
def account(monkeypatch, tmp_path):
    """Become another account: each name has its own configuration folder."""

    def become(name: str) -> None:
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / name))

    become("me")
    return become


def test_only_the_account_that_signed_recognises_a_signature(account):
    signature = sign(b"settings")
    assert is_ours(b"settings", signature)
    assert not is_ours(b"other settings", signature)
    account("somebody else")
    assert not is_ours(b"settings", signature)


@pytest.mark.parametrize("signature", [None, "", "äöü", 7])
def test_an_invalid_signature_is_not_ours(signature):
    assert not is_ours(b"settings", signature)


def test_the_key_is_readable_only_by_its_owner():
    sign(b"")
    assert stat.S_IMODE(key_file().stat().st_mode) == 0o600
    assert stat.S_IMODE(key_file().parent.stat().st_mode) == 0o700
    key_file().chmod(0o640)
    assert sign(b"settings") is None


def test_without_a_key_nothing_is_signed_and_nothing_is_ours(account, tmp_path):
    (tmp_path / "file").write_text("")
    account("file")
    assert sign(b"settings") is None
    assert not is_ours(b"settings", None)
    assert os.listdir(tmp_path) == ["file"]
