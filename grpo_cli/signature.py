"""What this account wrote, told from what came from elsewhere: an HMAC by a key that only this account can read."""

import hashlib
import hmac
import os
import secrets
from contextlib import suppress
from pathlib import Path

KEY_BYTES = 32


def sign(content: bytes) -> str | None:
    """The signature of `content`; None where there can be no key."""
    key = _key()
    return hmac.new(key, content, hashlib.sha256).hexdigest() if key else None


def is_ours(content: bytes, signature: str | None) -> bool:
    """Whether this account signed this very `content`."""
    ours = sign(content) if isinstance(signature, str) else None
    return ours is not None and hmac.compare_digest(ours.encode(), signature.encode())


def key_file() -> Path:
    folder = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(folder).expanduser() / "r1zero" / "key"


def _key() -> bytes | None:
    """The key, made where it is missing; None where it cannot be, or where others could have read or written it."""
    file = key_file()
    with suppress(OSError, RuntimeError):  # RuntimeError: an account without a home
        if not file.exists():
            _make(file)
        stat = file.stat()
        if stat.st_uid == os.geteuid() and not stat.st_mode & 0o077:
            content = file.read_bytes()
            return content if len(content) == KEY_BYTES else None
    return None


def _make(file: Path) -> None:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    own = file.with_name(f"key.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(own, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as writer:
            writer.write(secrets.token_bytes(KEY_BYTES))
        with suppress(FileExistsError):  # another start was first: its key is the key
            os.link(own, file)
    finally:
        own.unlink()
