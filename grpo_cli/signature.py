"""Signatures of files that this account wrote: an HMAC with a key that only this account can read."""

import hashlib
import hmac
import os
import secrets
from contextlib import suppress
from pathlib import Path

KEY_BYTES = 32


def sign(content: bytes) -> str | None:
    """The signature of `content`; None if there is no key."""
    key = _key()
    return hmac.new(key, content, hashlib.sha256).hexdigest() if key else None


def is_ours(content: bytes, signature: str | None) -> bool:
    """Whether this account signed exactly this `content`."""
    if not isinstance(signature, str):
        return False
    ours = sign(content)
    return ours is not None and hmac.compare_digest(ours.encode(), signature.encode())


def key_file() -> Path:
    folder = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(folder).expanduser() / "r1zero" / "key"


def _key() -> bytes | None:
    """The key, created if it is missing; None if that fails, or if others could have read or written it."""
    file = key_file()
    with suppress(OSError, RuntimeError):  # RuntimeError: an account without a home
        if not file.exists():
            _create_key(file)
        stat = file.stat()
        if stat.st_uid == os.geteuid() and not stat.st_mode & 0o077:
            content = file.read_bytes()
            return content if len(content) == KEY_BYTES else None
    return None


def _create_key(file: Path) -> None:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = file.with_name(f"key.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as writer:
            writer.write(secrets.token_bytes(KEY_BYTES))
        with suppress(FileExistsError):  # another process was first: use its key
            os.link(temporary, file)
    finally:
        temporary.unlink()
