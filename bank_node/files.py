"""Whole writes (of files: `protocol.private_files`), one process at a time, a full disk named. Nothing else."""

import contextlib
import datetime as dt
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from protocol.errors import AlreadyRunning, StorageFull
from protocol.private_files import write_atomic

__all__ = ["append_record", "named_when_full", "one_at_a_time", "storage_full", "write_atomic"]

_FULL = "No space left on device"


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


def append_record(path: Path, line: str) -> None:
    """Append a line to a file of records; it is on disk when this returns. What a crash or a full disk tore is cut off.

    Args:
        path: the file; it and its folder are made where they are missing.
        line: without its end.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as stream:
        stream.seek(0)
        stream.truncate(stream.read().rfind(b"\n") + 1)
        stream.write(line.encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())


def storage_full(error: BaseException | None) -> bool:
    """Whether a full disk is behind an error, however it was wrapped; libraries tell of it by its words only."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if _FULL in str(error) or isinstance(error, StorageFull):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextlib.contextmanager
def named_when_full(what: str, folder: Path) -> Iterator[None]:
    """An error of the block behind which there is a full disk becomes a `StorageFull`.

    Args:
        what: what was being done, and by whom.
        folder: where most of it is written; the error may name a nearer file.
    """
    try:
        yield
    except StorageFull:
        raise
    except Exception as error:
        if not storage_full(error):
            raise
        where = error.filename if isinstance(error, OSError) and error.filename else folder
        raise StorageFull(
            f"{what}: no room left on the disk of {where}; free some and call again: it goes on where it was"
        ) from error
