"""How a bank leaves a run that it can't go on with, and wipes what ended runs left on its disk. It sums nothing.

A process can die, or be away, while its run ends: its keys then lie in the run's folder until somebody asks the node.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

from bank_node.consortium import Log
from bank_node.files import one_at_a_time
from bank_node.secure_aggregation.keys import RunSecrets
from bank_node.transport.client import BankClient
from protocol.errors import AlreadyRunning, CrossbankError, LocalError, RemoteError, RunAborted, SubmissionRefused
from protocol.he_parameters import HE_FINGERPRINT
from protocol.limits import MAX_DETAIL_CHARS
from protocol.messages import JoinRequest
from protocol.run_state import TERMINAL, Phase

__all__ = ["SECRETS", "leave_run", "told_of", "wipe_ended_runs"]

SECRETS = "secrets.json"
"""A run's keys, in its folder."""


def told_of(error: Exception) -> str:
    """What the consortium is told of an error by which we leave: of our own words only those of the plan, which is its.

    Args:
        error: of ours; any that is no `LocalError` is about the bank's data.
    """
    return error.told if isinstance(error, LocalError) else "its data can't be used"


def leave_run(client: BankClient, run_id: str, run_dir: Path, reason: str, log: Log, *, begun: bool = True) -> None:
    """Decline a run that has not begun, or withdraw from one that has, and wipe its keys; the others go on at once.

    Args:
        reason: for the consortium.
        log: told what became of it; a node that can't be reached will find out by its deadlines.
        begun: whether to leave a run that has begun too; otherwise that stays as it is, keys included.
    """
    try:
        view = client.run(run_id)
        stays = not begun and view.phase not in TERMINAL
        begun = view.phase != Phase.ENROLLING
        if begun and stays:
            return
        if view.phase in TERMINAL or (begun and client.bank not in view.members):
            RunSecrets.wipe_file(run_dir / SECRETS)
            return
        client.join(
            JoinRequest(
                run_id=run_id,
                bank=client.bank,
                contract_fingerprint=view.settings.contract_fingerprint,
                he_fingerprint=HE_FINGERPRINT,
                declined=reason[:MAX_DETAIL_CHARS],
            )
        )
    except RemoteError as error:
        log(f"run {run_id}: bank {client.bank} could not say that it leaves ({error})")
    else:
        word = "withdrew from" if begun else "does not join"
        log(f"bank {client.bank} {word} run {run_id}, and the others were told: {reason}")
    RunSecrets.wipe_file(run_dir / SECRETS)


def wipe_ended_runs(
    runs_dir: Path, rows_dir: Path, connect: Callable[[], BankClient], log: Log, *, held: str = ""
) -> list[str]:
    """Wipe the keys, and the rows, of all runs that go on without us: released, aborted, dropped, lost by the node.

    Nobody is asked while no run has keys. A run that another process works on is left alone.

    Args:
        runs_dir: the bank's folders of runs.
        rows_dir: where runs hold rows, a folder each.
        connect: makes the client.
        log: told what was wiped, and what could not be found out.
        held: a run that the caller has the lock of.

    Returns:
        The runs whose keys were wiped.
    """
    waiting = sorted(path.parent.name for path in runs_dir.glob(f"*/{SECRETS}"))
    if not waiting:
        return []
    wiped = []
    client = connect()
    try:
        for run_id in waiting:
            folder = runs_dir / run_id
            try:
                if run_id == held:
                    # Of a released run `register` may still have to note the votes, if it was stopped before; it wipes.
                    why = "" if _released(client, run_id) else _why_over(client, run_id)
                else:
                    with one_at_a_time(folder / ".lock", f"wiping the keys of run {run_id}"):
                        why = _why_over(client, run_id)
            except AlreadyRunning:
                continue
            except CrossbankError as error:
                log(f"it can't be known whether run {run_id} has ended, so its keys stay: {error}")
                break
            if why:
                RunSecrets.wipe_file(folder / SECRETS)
                shutil.rmtree(rows_dir / run_id, ignore_errors=True)
                wiped.append(run_id)
                log(f"the keys of run {run_id} are wiped: {why}")
    finally:
        client.close()
    return wiped


def _released(client: BankClient, run_id: str) -> bool:
    try:
        return client.run(run_id).phase == Phase.RELEASED
    except (RunAborted, SubmissionRefused):
        return False


def _why_over(client: BankClient, run_id: str) -> str:
    """Why a run goes on without us; empty while it does not."""
    try:
        view = client.run(run_id)
    except RunAborted as error:
        return str(error)
    except SubmissionRefused:
        return "the node does not know the run"
    if view.phase in TERMINAL:
        return f"it ended in {view.phase}"
    if client.bank not in view.joined:
        return "we are not in it"
    if view.phase != Phase.ENROLLING and client.bank not in view.members:
        return "it went on without us"
    return ""
