"""What the steps of a bank share: the lock and the session of a run, leaving it by an error, a full disk's name.

No step is here, see `data_steps`, `run_steps` and `model_steps`.
"""

import functools
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from bank_node.config import BankConfig, load_config
from bank_node.consortium import Log
from bank_node.files import named_when_full, one_at_a_time, storage_full
from bank_node.pipeline.results import Wiped
from protocol.errors import LocalError, StorageFull

if TYPE_CHECKING:
    from bank_node.secure_aggregation.session import RunSession
    from bank_node.transport.client import BankClient

__all__ = ["client_of", "step_to_run_first", "told_when_full", "wipe_keys", "working_on"]

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

_ROOM_BYTES = 16384
"""Held back in a run's folder, as random bytes, so that a bank whose disk is full can still note that it leaves."""


def told_when_full(step: Callable[P, T]) -> Callable[P, T]:
    """A full disk ends the step by its name, not by whatever a library makes of it."""

    @functools.wraps(step)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        with named_when_full(f"{step.__name__} by {args[0]}", Path("work_dir")):
            return step(*args, **kwargs)

    return wrapped


def client_of(config: BankConfig, patience_seconds: float = 60.0) -> "BankClient":
    from bank_node.transport.client import BankClient

    return BankClient(config.aggregator, config.bank_id, patience_seconds=patience_seconds)


@contextmanager
def working_on(config: BankConfig, run_id: str, step: str, log: Log) -> Iterator["RunSession"]:
    """A session of a run, ours alone as long as the block lasts: two of them would write one ledger.

    An error by which the bank can't go on with the run is told to the others, who then go on at once.

    Raises:
        AlreadyRunning: another process of this bank works on the run.
    """
    from features.errors import DataError

    what = f"bank {config.bank_id}, run {run_id}: {step}"
    with named_when_full(what, config.work_dir), one_at_a_time(config.run_dir(run_id) / ".lock", what):
        wipe_keys(config, log=log, held=run_id)
        session, room = None, config.run_dir(run_id) / ".room"
        try:
            # Named here already: a full disk is one of the errors by which a bank may leave.
            with named_when_full(what, config.work_dir):
                room.write_bytes(os.urandom(_ROOM_BYTES))
                session = _session(config, run_id, log)
                yield session
        except (LocalError, DataError) as error:
            room.unlink(missing_ok=True)
            late = step == "gate" and session is not None and config.bank_id in session.view.joined
            if not late and (isinstance(error, DataError | StorageFull) or error.leaves):
                _leave(config, run_id, error, log)
            raise
        finally:
            room.unlink(missing_ok=True)
            if session is not None:
                session.close()


def _leave(config: BankConfig, run_id: str, error: Exception, log: Log) -> None:
    """Leave a run by an error. By a full disk only one that has not begun: later the bank may come back."""
    from bank_node.secure_aggregation.leaving import leave_run, told_of

    full, folder = isinstance(error, StorageFull), config.run_dir(run_id)
    with closing(client_of(config, patience_seconds=30.0)) as client:
        try:
            # What can't be noted is not sent.
            client.outbox.follow(folder / "outbox.jsonl")
            leave_run(client, run_id, folder, told_of(error), log, begun=not full)
        except OSError as refused:
            if not storage_full(refused):
                raise
            log(f"run {run_id}: bank {config.bank_id} could not say that it leaves: there is no room to note it")


def wipe_keys(config: BankConfig | Path | str, *, log: Log = logger.info, held: str = "") -> Wiped:
    """Wipe the keys of all runs that have ended without this bank's process; every step does this first.

    Args:
        config: the bank's, or its path.
        held: a run that the caller has the lock of.
    """
    from bank_node.secure_aggregation.leaving import wipe_ended_runs

    found = config if isinstance(config, BankConfig) else load_config(Path(config))
    runs = found.work_dir / "runs"
    wiped = wipe_ended_runs(runs, found.rows_dir, lambda: client_of(found, patience_seconds=5.0), log, held=held)
    return {"wiped": wiped}


def step_to_run_first(config: BankConfig, run_id: str, step: str, why: str) -> str:
    return f"bank {config.bank_id} {why} in run {run_id}; first run `bank-node {step} --config … --run {run_id}`"


def _session(config: BankConfig, run_id: str, log: Log) -> "RunSession":
    from bank_node.secure_aggregation.cipher_pool import default_processes
    from bank_node.secure_aggregation.session import RunSession
    from bank_node.transport.identity import Identity

    identity = Identity(config.aggregator.files, config.bank_id)
    return RunSession(
        client_of(config, patience_seconds=300.0),
        identity,
        run_id,
        config.run_dir(run_id),
        log,
        minimum_roster=config.minimum_roster,
        encryption_processes=default_processes()
        if config.encryption_processes is None
        else config.encryption_processes,
    )
