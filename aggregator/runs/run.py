"""One run in the aggregator's memory, and how it is read from and written to the store. It decides nothing."""

import json
from dataclasses import dataclass, field, replace

from aggregator.aggregation.ciphertext_sum import PublicContext
from aggregator.persistence.store import RunRow, Store, settings_from_json, settings_to_json
from aggregator.runs.steps import StepSum
from protocol import crossbank_pb2 as pb
from protocol.codec import announcement_from_pb, bundle_from_pb, report_from_pb
from protocol.messages import KeyAnnouncement, KeyBundle, PhaseReport, RunEvent, RunSettings, RunView
from protocol.run_state import TERMINAL, Phase

__all__ = ["Run", "load_run", "mapping_of", "metrics_of", "run_row"]


@dataclass(slots=True, kw_only=True)
class Run:
    """One run, never ahead of the store; only counters of a step's progress may be, by a second."""

    run_id: str
    settings: RunSettings
    created_at: float
    phase: Phase = Phase.DRAFT
    updated_at: float = 0.0
    saved_at: float = 0.0
    reason: str = ""
    model_sha256: str = ""
    metrics_json: str = ""
    step: str = ""
    rounds_done: int = 0
    bytes_received: int = 0
    joined: list[str] = field(default_factory=list)
    #: Banks that did not answer in time: still in `joined`, no longer members.
    dropped: set[str] = field(default_factory=set)
    #: Banks that said they do not join.
    declined: set[str] = field(default_factory=set)
    attempt: int = 0
    void_unit: str = ""
    void_before: int = 0
    paused_since: float = 0.0
    waiting_for: tuple[str, ...] = ()
    reports: dict[tuple[str, Phase], PhaseReport] = field(default_factory=dict)
    announcements: dict[str, KeyAnnouncement] = field(default_factory=dict)
    bundle: KeyBundle | None = None
    context: PublicContext | None = None
    steps: dict[str, StepSum] = field(default_factory=dict)
    events: list[RunEvent] = field(default_factory=list)

    def draft(self) -> "Run":
        """A copy to be changed: this one stays as it is until the store holds the change."""
        return replace(
            self,
            joined=list(self.joined),
            dropped=set(self.dropped),
            declined=set(self.declined),
            reports=dict(self.reports),
            announcements=dict(self.announcements),
            steps=dict(self.steps),
            events=list(self.events),
        )

    def keep_progress_of(self, held: "Run") -> None:
        """Take over what memory alone has of this very run: uploads, deadlines, counters."""
        self.steps, self.updated_at, self.saved_at = held.steps, held.updated_at, held.saved_at
        self.paused_since, self.waiting_for = held.paused_since, held.waiting_for
        self.step, self.bytes_received = held.step, held.bytes_received
        self.rounds_done = max(held.rounds_done, self.rounds_done)

    @property
    def members(self) -> list[str]:
        """The banks still in the run, in the order they joined."""
        return [bank for bank in self.joined if bank not in self.dropped]

    @property
    def open_step(self) -> StepSum | None:
        """The step that waits for uploads, if any."""
        return next((step for step in self.steps.values() if not step.complete), None)

    def reported(self, phase: Phase) -> set[str]:
        """The members that have ended a phase."""
        return {bank for bank, given in self.reports if given is phase and bank not in self.dropped}

    def count_afresh(self, now: float) -> None:
        """Let the deadlines of whatever the run waits for begin now."""
        if self.phase in TERMINAL:
            return
        self.updated_at = now
        self.paused_since = self.paused_since and now
        if self.open_step is not None:
            self.open_step.opened_at = now

    def answered(self) -> tuple[float, set[str], str]:
        """Since when the run waits, which members have done their part, and where it is."""
        step = self.open_step
        if step is not None:
            return step.opened_at, set(step.finished), f"step {step.header.step}"
        members, done = set(self.members), self.reported(self.phase)
        if self.phase is Phase.KEYING and not done:
            done = set(self.announcements) & members
            if done == members:
                done = members - {min(members)} if self.bundle is None else set()
        return self.updated_at, done, str(self.phase)

    def view(self, events_after: int = -1) -> RunView:
        """A frozen picture of the run, with the events after a sequence number."""
        return RunView(
            run_id=self.run_id,
            phase=self.phase.value,
            settings=self.settings,
            joined=tuple(self.joined),
            reported=tuple(sorted(self.reported(self.phase))),
            step=self.step,
            rounds_done=self.rounds_done,
            bytes_received=self.bytes_received,
            reason=self.reason,
            model_sha256=self.model_sha256,
            metrics_json=self.metrics_json,
            created_at=self.created_at,
            updated_at=self.updated_at,
            events=tuple(e for e in self.events if e.seq > events_after),
            members=tuple(self.members),
            attempt=self.attempt,
            waiting_for=self.waiting_for,
            paused_since=self.paused_since,
        )


def load_run(store: Store, row: RunRow, now: float) -> Run:
    """A run as the store has it; one under way goes on, with its deadlines counted afresh from `now`."""
    members = store.members(row.run_id)
    run = Run(
        run_id=row.run_id,
        settings=settings_from_json(row.settings_json),
        created_at=row.created_at,
        phase=Phase(row.phase),
        updated_at=row.updated_at,
        reason=row.reason,
        model_sha256=row.model_sha256,
        metrics_json=row.metrics_json,
        step=row.step,
        rounds_done=row.rounds_done,
        bytes_received=row.bytes_received,
        joined=[m.bank for m in members],
        dropped={m.bank for m in members if m.dropped_at},
        declined=store.declines(row.run_id),
        attempt=row.attempt,
        void_unit=row.void_unit,
        void_before=row.void_before,
        events=store.events(row.run_id),
    )
    for kept in store.reports(row.run_id):
        # Of a released run too: a bank may not have checked the last reports yet.
        run.reports[kept.bank, Phase(kept.phase)] = report_from_pb(pb.PhaseReport.FromString(kept.message))
    if run.phase in TERMINAL:
        return run
    run.updated_at = now
    for key in store.keys(row.run_id):
        if key.kind == "announcement":
            run.announcements[key.bank] = announcement_from_pb(pb.KeyAnnouncement.FromString(key.message))
        else:
            run.bundle = bundle_from_pb(pb.KeyBundle.FromString(key.message))
            run.context = PublicContext(run.bundle.public_context)
    return run


def run_row(run: Run) -> RunRow:
    """The run's own row."""
    return RunRow(
        run_id=run.run_id,
        phase=run.phase.value,
        settings_json=settings_to_json(run.settings),
        reason=run.reason,
        model_sha256=run.model_sha256,
        metrics_json=run.metrics_json,
        step=run.step,
        rounds_done=run.rounds_done,
        bytes_received=run.bytes_received,
        created_at=run.created_at,
        updated_at=run.updated_at,
        attempt=run.attempt,
        void_unit=run.void_unit,
        void_before=run.void_before,
    )


def metrics_of(view: RunView) -> dict[str, object]:
    """The published metrics of a run, empty before EVALUATING has ended, or where the banks published no mapping."""
    return mapping_of(view.metrics_json)


def mapping_of(text: str) -> dict[str, object]:
    """A JSON document that others wrote, as far as it is a mapping; else an empty one."""
    try:
        found = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return {}
    return dict(found) if isinstance(found, dict) else {}
