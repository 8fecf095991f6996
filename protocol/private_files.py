"""Files that must be whole and files that only their owner may read: durable, atomic writes. Reads none, makes no key.

What refuses a secret that is open to others is beside the channels that need it: `protocol.channel.read_secret_file`.
"""

import os
import secrets
from pathlib import Path

__all__ = ["write_atomic", "write_secret"]


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace a file by `data` at once: a reader, or a crash, sees the old bytes or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_secret(path: Path, data: bytes) -> None:
    """Write a secret: only the owner may read it, from its first byte on; a folder made for it is the owner's too."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomic(path, data, mode=0o600)
