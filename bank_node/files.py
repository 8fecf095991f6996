"""Durable and secret files: atomic, fsynced writes; 0600 where it matters; one process at a time. Nothing else."""

import contextlib
import datetime as dt
import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from protocol.errors import AlreadyRunning

__all__ = ["one_at_a_time", "write_atomic", "write_secret"]


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
    """Write a secret: only the owner may read it, from its first byte on."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomic(path, data, mode=0o600)


@contextlib.contextmanager
def one_at_a_time(path: Path, what: str) -> Iterator[None]:
    """Hold a lock file as long as the block lasts; the system lets go of it when a process dies, however it does.

    Args:
        path: the lock file; it says who holds it, and stays.
        what: what holds it, in words for whoever comes second.

    Raises:
        AlreadyRunning: another process, or another place in this one, holds it; says what that does, since when.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            handle.seek(0)
            raise AlreadyRunning(f"{handle.read().strip() or what + ' runs already'}; {what} does not begin") from error
        handle.truncate(0)
        now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        handle.write(f"{what} runs already (process {os.getpid()}, since {now})\n")
        handle.flush()
        yield
