"""A change of one run, made on a draft: the store holds it before memory does or anybody is told. It writes nothing.

`Coordinator` hands the writes to the store in one transaction, then puts the draft in the run's place; when the store
fails, the draft is thrown away and the run is what it was.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from aggregator.persistence.store import EventRow, KeyRow, Writes
from aggregator.runs.run import Run, run_row
from protocol.limits import MAX_EVENTS_KEPT
from protocol.messages import PhaseReport, RunEvent
from protocol.run_state import TERMINAL, Phase, RunEventKind, next_phase

__all__ = ["Change"]


@dataclass(slots=True, kw_only=True)
class Change:
    """What one event does to a run.

    Attributes:
        run: the draft.
        now: Unix seconds.
        writes: what the store must hold first; the run's own row is added at the end.
        after: what follows once it does, such as waking those who wait.
    """

    run: Run
    now: float
    writes: Writes = field(default_factory=Writes)
    after: list[Callable[[], None]] = field(default_factory=list)

    def log(self, bank: str, text: str) -> None:
        """Add a line to the run's history."""
        run = self.run
        entry = RunEvent(seq=len(run.events), at=self.now, bank=bank, text=text)
        self.touch()
        if len(run.events) < MAX_EVENTS_KEPT:
            run.events.append(entry)
            self.writes.rows.append(
                EventRow(run_id=run.run_id, seq=entry.seq, at=entry.at, bank=entry.bank, text=entry.text)
            )

    def touch(self) -> None:
        """Note that the run moved now."""
        self.run.updated_at = self.run.saved_at = self.now

    def keep(self, bank: str, kind: str, message: bytes) -> None:
        """Keep a relayed key message."""
        self.writes.rows.append(KeyRow(run_id=self.run.run_id, bank=bank, kind=kind, message=message))

    def resumed(self) -> None:
        """The run does not wait any more."""
        self.run.paused_since, self.run.waiting_for = 0.0, ()

    def move(self, event: RunEventKind) -> None:
        """To the next phase, by the protocol's table."""
        self.run.phase = next_phase(self.run.phase, event)
        self.resumed()
        self.log("", f"now {self.run.phase}")

    def abort(self, reason: str) -> None:
        """End the run, unless it has ended."""
        if self.run.phase in TERMINAL:
            return
        self.run.reason = reason
        self.move(RunEventKind.ABORT)
        self.log("", f"aborted: {reason}")

    def agreed(self, phase: Phase, report: PhaseReport) -> None:
        """All members have ended a phase as this report says: keep what it tells, and move on."""
        if phase is Phase.TRAINING:
            self.run.model_sha256 = report.digest
            self.run.rounds_done = self.run.settings.rounds
        if phase is Phase.EVALUATING:
            self.run.metrics_json = report.metrics_json
        if phase is Phase.VOTING and report.digest != self.run.model_sha256:
            self.abort("the banks voted on another model than the one they trained")
            return
        self.move(RunEventKind.PHASE_AGREED)

    def enrolled(self) -> None:
        """Begin once every bank has joined or declined; end the run if too few are left."""
        run = self.run
        if set(run.joined) | run.declined != set(run.settings.roster):
            return
        least = min(run.settings.minimum_roster, len(run.settings.roster))
        if len(run.joined) < least:
            self.abort(f"{len(run.joined)} banks joined, {least} are needed: the others declined")
        else:
            self.move(RunEventKind.ROSTER_COMPLETE)

    def settle(self, phase: Phase) -> None:
        """Move on when every member has reported a phase alike."""
        run = self.run
        given = [r for (bank, p), r in run.reports.items() if p is phase and bank not in run.dropped]
        if len({r.digest for r in given}) > 1:
            self.abort(f"the banks disagree on the result of {phase}")
        elif len(given) == len(run.members):
            self.agreed(phase, given[0])

    def finished(self) -> Writes:
        """All writes, the run's own row with them."""
        return Writes(
            rows=[run_row(self.run), *self.writes.rows],
            dropped=self.writes.dropped,
            undeclined=self.writes.undeclined,
            unjoined=self.writes.unjoined,
            forgotten=self.writes.forgotten,
        )
