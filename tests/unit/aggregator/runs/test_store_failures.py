"""A store that fails at any of a run's writes: the node is what its store says, and the run goes on to its release."""

import os
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from aggregator.aggregation.ciphertext_sum import reference_context
from aggregator.persistence import sum_files
from aggregator.persistence.store import Store
from aggregator.runs.coordinator import Coordinator
from aggregator.runs.run import load_run
from bank_node.secure_aggregation.encryption import ChunkCipher
from bank_node.secure_aggregation.keys import make_he_key
from protocol.errors import LocalError, NodeNotReady, RunAborted
from protocol.he_parameters import HE_FINGERPRINT
from protocol.masks import roster_digest
from protocol.messages import (
    Chunk,
    JoinRequest,
    KeyAnnouncement,
    KeyBundle,
    PhaseReport,
    RunSettings,
    RunView,
    SealedKey,
    StepHeader,
)
from protocol.run_plan import RunPlan
from protocol.run_state import TERMINAL

BANKS = ("a", "b", "c")
CONTRACT, MODEL = "ab" * 32, "cd" * 32
SETTINGS = RunSettings(
    title="t",
    roster=(*BANKS, "d"),
    contract_fingerprint=CONTRACT,
    parameters_json=RunPlan(params={"n_estimators": 1}).to_json(),
    rounds=1,
    step_seconds=60,
    minimum_roster=2,
)
#: Counters and clocks of a step under way, which memory alone has.
VOLATILE = {
    "updated_at": 0.0,
    "step": "",
    "rounds_done": 0,
    "bytes_received": 0,
    "paused_since": 0.0,
    "waiting_for": (),
}


@pytest.fixture(scope="module")
def ciphertext() -> bytes:
    return ChunkCipher(make_he_key()).encrypt(np.ones(4096, dtype=np.uint64))


class Rig:
    """A coordinator whose store's `failing`-th commit fails, before or after it was done."""

    def __init__(self, folder: Path, ciphertext: bytes, failing: int = -1, when: str = "before") -> None:
        self.clock = 1_800_000_000.0
        self.store = Store(f"sqlite:///{folder / 'node.db'}")
        self.node = Coordinator(self.store, now=self._now)
        self.run_id = ""
        self.commits = self.failures = 0
        self.steps = 0
        self.always = False
        self._ciphertext = ciphertext
        self._failing, self._when = failing, when
        event.listen(self.store.engine, "commit", self._commit)

    def _now(self) -> float:
        # Each look at the clock is late enough for progress to be written.
        self.clock += 1.1
        return self.clock

    def _commit(self, connection: object) -> None:
        number, self.commits = self.commits, self.commits + 1
        if number == self._failing or self.always:
            if self._when == "after":
                connection.connection.commit()  # type: ignore[attr-defined]
            raise OperationalError("COMMIT", None, sqlite3.OperationalError("database or disk is full"))

    def told_is_kept(self) -> None:
        """Whatever the node would tell now, a node that starts again tells too."""
        told = {view.run_id: replace(self.node.run(view.run_id), **VOLATILE) for view in self.node.runs()}
        kept: dict[str, RunView] = {}
        for row in self.store.runs():
            kept[row.run_id] = replace(load_run(self.store, row, 0.0).view(), **VOLATILE)
        assert told == kept

    def do(self, what: Callable[[], object]) -> None:
        """Do it as a caller does: again when the node says that it is not ready."""
        self.steps += 1
        try:
            what()
        except NodeNotReady as error:
            self.failures += 1
            assert "disk is full" in str(error)
            assert self.store.trouble
            self.told_is_kept()
            what()
        self.told_is_kept()

    # -- what banks and the operator do --------------------------------------------------------------------

    def open(self) -> None:
        self.run_id = self.node.open_run(SETTINGS).run_id

    def join(self, bank: str, declined: str = "") -> None:
        self.node.join(
            JoinRequest(
                run_id=self.run_id,
                bank=bank,
                contract_fingerprint=CONTRACT,
                he_fingerprint=HE_FINGERPRINT,
                declined=declined,
            )
        )

    def announce(self, bank: str) -> None:
        self.node.announce_key(
            KeyAnnouncement(
                run_id=self.run_id,
                bank=bank,
                x25519_public=bank.encode() * 32,
                ed25519_public=bank.encode() * 32,
                certificate_pem=b"x",
                signature=b"x" * 70,
            )
        )

    def publish(self) -> None:
        sealed = tuple(SealedKey(recipient=bank, box=b"x" * 80) for bank in BANKS[1:])
        self.node.publish_bundle(
            KeyBundle(
                run_id=self.run_id,
                bank="a",
                public_context=reference_context(),
                sealed=sealed,
                signature=b"x" * 70,
                sealed_context=b"x" * 80,
            )
        )

    def report(self, bank: str, phase: str, digest: str = MODEL, metrics: str = "") -> None:
        run = self.node.run(self.run_id)
        self.node.report(
            PhaseReport(
                run_id=self.run_id,
                bank=bank,
                phase=phase,
                digest=digest,
                accept=True,
                metrics_json=metrics,
                attempt=run.attempt,
                roster_digest=roster_digest(list(run.members)),
                state=bytes(32),
                signature=bytes(64),
            )
        )

    def upload(self, bank: str, step: str) -> None:
        run = self.node.run(self.run_id)
        header = StepHeader(
            run_id=self.run_id,
            bank=bank,
            step=step,
            attempt=run.attempt,
            chunks=1,
            length=10,
            he_fingerprint=HE_FINGERPRINT,
            roster_digest=roster_digest(list(run.members)),
            state=bytes(32),
            signature=bytes(64),
        )
        found = self.node.begin_step(header)
        self.node.add_chunks(header, found, [Chunk(index=0, ciphertext=self._ciphertext)])
        self.node.finish_upload(header, found)

    def late(self) -> None:
        """The deadline of the step under way passes; what the watch could not do it does a second later."""
        self.clock += SETTINGS.step_seconds + 1
        for _ in range(2):
            self.node.enforce_deadlines()
            self.told_is_kept()

    def whole_run(self) -> Iterator[Callable[[], object]]:
        """Everything that happens in a run in which one bank declines and one is dropped."""
        yield self.open
        yield lambda: self.join("d", declined="no data")
        for bank in BANKS:
            yield lambda bank=bank: self.join(bank)
        for bank in BANKS:
            yield lambda bank=bank: self.announce(bank)
        yield self.publish
        for bank in BANKS:
            yield lambda bank=bank: self.report(bank, "KEYING")
        for bank in BANKS:
            yield lambda bank=bank: self.upload(bank, "bins/0/0")
        for bank in BANKS:
            yield lambda bank=bank: self.report(bank, "BINNING")
        for bank in BANKS[:2]:
            yield lambda bank=bank: self.upload(bank, "train/0/0")
        yield self.late
        for bank in BANKS[:2]:
            yield lambda bank=bank: self.upload(bank, "train/0/0")
        for phase in ("TRAINING", "EVALUATING", "VOTING"):
            for bank in BANKS[:2]:
                yield lambda bank=bank, phase=phase: self.report(bank, phase, metrics="{}")


@pytest.mark.parametrize("when", ["before", "after"])
def test_whichever_write_fails_the_node_is_what_its_store_says(tmp_path: Path, ciphertext: bytes, when: str) -> None:
    calm = Rig(tmp_path / "calm", ciphertext)
    for act in calm.whole_run():
        calm.do(act)
    expected = replace(calm.node.run(calm.run_id), **VOLATILE)
    assert (expected.phase, expected.members, expected.attempt) == ("RELEASED", ("a", "b"), 1)
    assert calm.commits >= 25
    noticed = 0
    for failing in range(calm.commits):
        rig = Rig(tmp_path / str(failing), ciphertext, failing, when)
        for act in rig.whole_run():
            rig.do(act)
        view = rig.node.run(rig.run_id)
        assert (view.phase, view.members, view.attempt) == ("RELEASED", ("a", "b"), 1), failing
        rig.node.look()
        assert rig.store.trouble == ""
        # Nothing happened twice, and nothing was left out.
        assert [(e.bank, e.text) for e in view.events] == [(e.bank, e.text) for e in expected.events]
        noticed += rig.failures
    # Most writes have a caller who is told; progress and the watch have none, and go on by themselves.
    assert noticed >= 20


def test_an_abort_that_could_not_be_stored_was_not_told(tmp_path: Path, ciphertext: bytes) -> None:
    calm = Rig(tmp_path / "calm", ciphertext)
    acts = list(calm.whole_run())
    for reached in range(1, len(acts) + 1, 3):
        rig = Rig(tmp_path / str(reached), ciphertext)
        for act, _ in zip(rig.whole_run(), range(reached), strict=False):
            rig.do(act)
        ended = rig.node.run(rig.run_id).phase in TERMINAL
        rig._failing = rig.commits
        rig.do(lambda rig=rig: rig.node.abort_run(rig.run_id, "enough"))
        assert rig.failures == (not ended)
        again = Coordinator(Store(f"sqlite:///{tmp_path / str(reached) / 'node.db'}"), now=rig._now)
        assert again.run(rig.run_id).phase == ("RELEASED" if ended else "ABORTED")
        assert not (tmp_path / str(reached) / "sums" / rig.run_id).exists()


def test_a_sum_that_the_disk_refuses_is_kept_and_given_later(
    tmp_path: Path, ciphertext: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(tmp_path, ciphertext)
    acts = list(rig.whole_run())
    for act in acts[:14]:
        rig.do(act)
    real = sum_files._write

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sum_files, "_write", full)
    rig.upload("c", "bins/0/0")
    step = rig.node._runs[rig.run_id].steps["bins/0/0"]
    assert not step.complete and "bins/0/0: the sum can't be kept: No space left" in rig.store.trouble
    rig.node.look()
    rig.node.enforce_deadlines()
    assert not step.complete and rig.store.trouble
    monkeypatch.setattr(sum_files, "_write", real)
    rig.node.look()
    assert not rig.store.trouble
    rig.node.enforce_deadlines()
    assert step.complete and rig.node.run(rig.run_id).phase == "BINNING"


@pytest.mark.parametrize("replaced", [False, True])
def test_a_store_that_is_removed_under_the_node_is_noticed(tmp_path: Path, ciphertext: bytes, replaced: bool) -> None:
    rig = Rig(tmp_path, ciphertext)
    rig.do(rig.open)
    path = tmp_path / "node.db"
    told: list[str] = []
    rig.store.on_trouble = told.append
    path.rename(tmp_path / "away.db")
    if replaced:
        path.write_bytes((tmp_path / "away.db").read_bytes())
    rig.node.look()
    assert "removed or replaced" in told[-1]
    with pytest.raises(NodeNotReady, match="removed or replaced"):
        rig.join("a")
    assert rig.node.run(rig.run_id).joined == ()
    os.replace(tmp_path / "away.db", path)
    rig.node.look()
    assert told[-1] == ""
    rig.join("a")
    assert rig.node.run(rig.run_id).joined == ("a",)


def test_no_bank_is_dropped_for_the_time_that_the_store_failed(tmp_path: Path, ciphertext: bytes) -> None:
    rig = Rig(tmp_path, ciphertext)
    for act in list(rig.whole_run())[:14]:
        rig.do(act)
    # c has not answered; from now on no write works for longer than a step may take.
    rig.always = True
    with pytest.raises(NodeNotReady):
        rig.node.abort_run(rig.run_id, "enough")
    rig.node.look()
    rig.clock += SETTINGS.step_seconds + 5
    rig.node.enforce_deadlines()
    rig.always = False
    rig.node.look()
    assert not rig.store.trouble
    rig.node.enforce_deadlines()
    assert rig.node.run(rig.run_id).attempt == 0
    rig.upload("c", "bins/0/0")
    assert rig.node._runs[rig.run_id].steps["bins/0/0"].complete
    rig.clock += SETTINGS.step_seconds + 5
    rig.node.enforce_deadlines()
    assert rig.node.run(rig.run_id).paused_since  # nobody reports: deadlines go on as before


def test_sums_of_a_run_that_ended_are_gone_after_a_crash_too(tmp_path: Path, ciphertext: bytes) -> None:
    rig = Rig(tmp_path, ciphertext)
    acts = list(rig.whole_run())
    for act in acts[:15]:
        rig.do(act)
    assert (tmp_path / "sums" / rig.run_id).exists()
    rig.node._sums.forget_run = lambda run_id: None  # type: ignore[method-assign]
    rig.node.abort_run(rig.run_id, "enough")
    assert (tmp_path / "sums" / rig.run_id).exists()
    Coordinator(Store(f"sqlite:///{tmp_path / 'node.db'}"))
    assert not (tmp_path / "sums" / rig.run_id).exists()


def test_a_store_that_can_t_be_opened_is_a_named_error(tmp_path: Path) -> None:
    (tmp_path / "node.db").write_bytes(b"no database" * 1000)
    with pytest.raises(LocalError, match=r"node\.db can't be opened: file is not a database"):
        Store(f"sqlite:///{tmp_path / 'node.db'}")


def test_a_run_that_was_aborted_stays_aborted(tmp_path: Path, ciphertext: bytes) -> None:
    rig = Rig(tmp_path, ciphertext)
    for act in list(rig.whole_run())[:14]:
        rig.do(act)
    rig.do(lambda: rig.node.abort_run(rig.run_id, "enough"))
    with pytest.raises(RunAborted):
        rig.upload("a", "bins/0/0")
