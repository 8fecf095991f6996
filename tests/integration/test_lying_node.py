"""A node that says the same for ever, or what makes no sense, meets a pause, a limit and a word: no bank stays busy."""

import logging
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bank_node.consortium import whatever_the_roster
from bank_node.secure_aggregation import session as session_module
from bank_node.secure_aggregation.session import RunSession
from bank_node.transport import client as client_module
from protocol.errors import AggregatorUnreachable, LocalError, ProtocolViolation, RosterChanged
from tests.conftest import BANKS, FINGERPRINT, Node, in_parallel


def _keyed(node: Node) -> dict[str, RunSession]:
    run_id, sessions = node.open(), {}

    def enter(bank: str) -> None:
        sessions[bank] = node.session(bank, run_id)
        sessions[bank].join(FINGERPRINT)
        sessions[bank].exchange_keys()

    in_parallel(BANKS, enter)
    return sessions


def _count(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, result: Any) -> list[int]:
    calls: list[int] = []

    def lie(*_: Any, **__: Any) -> Any:
        calls.append(1)
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(owner, name, lie)
    return calls


def test_a_roster_that_changes_for_ever_ends_the_run_for_the_bank(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    session = _keyed(node)[BANKS[0]]
    monkeypatch.setattr(session_module, "_CHANGE_PAUSES", (0.0, 0.01, 0.02))
    uploads = _count(monkeypatch, node.server.coordinator, "begin_step", RosterChanged("run is at attempt 9, not 0"))
    told: list[str] = []
    with pytest.raises(
        ProtocolViolation, match=r"says that the roster changed, and shows attempt 0 as before, 3 times"
    ):
        whatever_the_roster(session, lambda: session.secure_sum("bins/0/0", np.arange(3)), told.append)
    assert len(uploads) == 1 and "repeating" in told[0]
    # As any other violation: the others know, the keys are gone.
    assert "says that the roster changed" in node.server.coordinator.run(session.run_id).reason
    assert not (node.folder / BANKS[0] / session.run_id / "secrets.json").exists()


def test_a_consortium_whose_roster_always_changes_is_given_up() -> None:
    class Shrinking:
        adopted = 0

        def adopt_roster(self) -> None:
            self.adopted += 1

    def work() -> None:
        raise RosterChanged("again")

    consortium = Shrinking()
    with pytest.raises(ProtocolViolation, match="changed more than 128 times"):
        whatever_the_roster(consortium, work, lambda _: None)  # type: ignore[arg-type]
    assert consortium.adopted == 129


def test_a_sum_that_is_pending_for_ever_is_asked_for_ever_less(
    node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from aggregator.rpc.service import ConsortiumService

    session = _keyed(node)[BANKS[0]]
    calls = _count(monkeypatch, ConsortiumService, "_wait", None)
    slept: list[float] = []
    clock = [0.0]

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        time.sleep(0.006)  # the node has a bound of its own
        clock[0] += seconds

    monkeypatch.setattr(client_module, "time", SimpleNamespace(sleep=sleep, monotonic=lambda: clock[0]))
    with caplog.at_level(logging.WARNING), pytest.raises(AggregatorUnreachable, match=r"bins/0/0: no sum in 7380 s"):
        session.secure_sum("bins/0/0", np.arange(3))
    assert slept[0] < slept[-1] and len(calls) < 1000
    assert sum("answers 'pending' at once" in record.message for record in caplog.records) == 1


@pytest.mark.parametrize("kept", [60_000, 1000])
def test_a_truncated_sum_is_told_with_run_and_step(node: Node, monkeypatch: pytest.MonkeyPatch, kept: int) -> None:
    from aggregator.aggregation.ciphertext_sum import ChunkAccumulator

    sessions = _keyed(node)
    whole = ChunkAccumulator.serialize
    monkeypatch.setattr(ChunkAccumulator, "serialize", lambda self: whole(self)[:kept])
    failures: dict[str, Exception] = {}

    def add(bank: str) -> None:
        try:
            sessions[bank].secure_sum("bins/0/0", np.arange(3))
        except Exception as error:
            failures[bank] = error

    in_parallel(BANKS, add)
    told = [str(error) for error in failures.values() if isinstance(error, ProtocolViolation)]
    assert len(failures) == len(BANKS) and told
    run_id = sessions[BANKS[0]].run_id
    assert all(text.startswith(f"run {run_id}, step bins/0/0") for text in told)


def test_an_emptied_ledger_is_told_as_what_it_is_and_harms_nobody(node: Node) -> None:
    """It was told as equivocation of the node, and ended the run for all."""
    sessions = _keyed(node)
    run_id = sessions[BANKS[0]].run_id
    sessions[BANKS[0]].close()
    (node.folder / BANKS[0] / run_id / "ledger.jsonl").write_bytes(b"")
    again = node.session(BANKS[0], run_id)
    again.join(FINGERPRINT)
    with pytest.raises(LocalError, match=r"no record of its key exchange in .*ledger\.jsonl.*emptied or replaced"):
        again.exchange_keys()
    assert node.server.coordinator.run(run_id).phase == "BINNING"
