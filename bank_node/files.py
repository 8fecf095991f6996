"""Whole writes (`protocol.private_files`, which the node uses too) and one process at a time. Nothing else."""

import contextlib
import datetime as dt
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from protocol.errors import AlreadyRunning
from protocol.private_files import write_atomic

__all__ = ["one_at_a_time", "write_atomic"]


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
