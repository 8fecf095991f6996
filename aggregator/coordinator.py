"""What a run does at the aggregator: enrolment, key relay, secure sums, agreement. No gRPC, no HE code.

One lock guards all runs; adding ciphertexts happens under each step's own lock. Every public method either
changes the run as the protocol's table allows, or raises and changes nothing.
"""

import json
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from aggregator.ciphertext_sum import PublicContext
from aggregator.steps import Step, step_is_older
from aggregator.store import (
    EventRow,
    KeyRow,
    MemberRow,
    ReportRow,
    RunRow,
    Store,
    settings_from_json,
    settings_to_json,
)
from protocol.codec import announcement_to_pb, bundle_to_pb
from protocol.errors import ProtocolViolation, RunAborted, SubmissionRefused
from protocol.he_parameters import HE_FINGERPRINT
from protocol.limits import MAX_EVENTS_KEPT
from protocol.messages import (
    Chunk,
    JoinRequest,
    KeyAnnouncement,
    KeyBundle,
    PhaseReport,
    RunEvent,
    RunSettings,
    RunView,
    StepHeader,
)
from protocol.run_state import TERMINAL, Phase, RunEventKind, next_phase

__all__ = ["Coordinator", "Run"]

#: Which step-name prefix belongs to which phase.
STEP_PREFIX = {Phase.BINNING: "bins", Phase.TRAINING: "train", Phase.EVALUATING: "eval"}


@dataclass(slots=True, kw_only=True)
class Run:
    """One run in memory; `Coordinator` writes every change through to the store."""

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
    reports: dict[tuple[str, Phase], PhaseReport] = field(default_factory=dict)
    announcements: dict[str, KeyAnnouncement] = field(default_factory=dict)
    bundle: KeyBundle | None = None
    context: PublicContext | None = None
    steps: dict[tuple[str, int], Step] = field(default_factory=dict)
    events: list[RunEvent] = field(default_factory=list)

    def view(self, events_after: int = -1) -> RunView:
        """A frozen picture of the run, with the events after a sequence number."""
        reported = sorted(bank for bank, phase in self.reports if phase == self.phase)
        return RunView(
            run_id=self.run_id,
            phase=self.phase.value,
            settings=self.settings,
            joined=tuple(self.joined),
            reported=tuple(reported),
            step=self.step,
            rounds_done=self.rounds_done,
            bytes_received=self.bytes_received,
            reason=self.reason,
            model_sha256=self.model_sha256,
            metrics_json=self.metrics_json,
            created_at=self.created_at,
            updated_at=self.updated_at,
            events=tuple(e for e in self.events if e.seq > events_after),
        )


class Coordinator:
    """All runs of one consortium node."""

    def __init__(self, store: Store, now: Callable[[], float] = time.time) -> None:
        """Load the runs from the store; a run that was under way when the node stopped is ended as ABORTED."""
        self._store = store
        self._now = now
        self._lock = threading.RLock()
        self._runs: dict[str, Run] = {}
        for row in store.runs():
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
                joined=[m.bank for m in store.members(row.run_id)],
                events=store.events(row.run_id),
            )
            self._runs[run.run_id] = run
            if run.phase not in TERMINAL | {Phase.ENROLLING}:
                self._abort(run, "the consortium node was restarted during the run")

    # -- operator ---------------------------------------------------------------------------------------------

    def open_run(self, settings: RunSettings) -> RunView:
        """Make a run and let its roster join."""
        with self._lock:
            now = self._now()
            stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now))
            run = Run(run_id=f"run-{stamp}-{secrets.token_hex(3)}", settings=settings, created_at=now)
            self._runs[run.run_id] = run
            self._move(run, RunEventKind.OPENED)
            self._log(run, "", f"opened for {len(settings.roster)} banks, {settings.rounds} rounds")
            return run.view()

    def abort_run(self, run_id: str, reason: str) -> RunView:
        """End a run; nothing of it will be released."""
        with self._lock:
            run = self._run(run_id)
            self._abort(run, reason or "the operator ended it")
            return run.view()

    def runs(self, most: int = 100) -> list[RunView]:
        """The newest runs first, without their events."""
        with self._lock:
            newest = sorted(self._runs.values(), key=lambda r: r.created_at, reverse=True)[:most]
            return [run.view(events_after=1 << 62) for run in newest]

    def run(self, run_id: str, events_after: int = -1) -> RunView:
        """One run."""
        with self._lock:
            return self._run(run_id).view(events_after)

    # -- banks ------------------------------------------------------------------------------------------------

    def join(self, request: JoinRequest) -> RunView:
        """A bank enters a run; joining twice is the same as once."""
        with self._lock:
            run = self._member_run(request.run_id, request.bank, joined=False)
            if request.bank in run.joined:
                return run.view()
            if run.phase is not Phase.ENROLLING:
                raise SubmissionRefused(f"run {run.run_id} is in {run.phase}: too late for bank {request.bank} to join")
            if request.contract_fingerprint != run.settings.contract_fingerprint:
                self._log(run, request.bank, "refused: another data contract")
                raise SubmissionRefused(
                    f"run {run.run_id}: bank {request.bank} uses data contract "
                    f"{request.contract_fingerprint[:12]}, the run {run.settings.contract_fingerprint[:12]}"
                )
            if request.he_fingerprint != HE_FINGERPRINT:
                raise SubmissionRefused(f"run {run.run_id}: bank {request.bank} uses other HE parameters")
            run.joined.append(request.bank)
            self._store.save(MemberRow(run_id=run.run_id, bank=request.bank, joined_at=self._now()))
            self._log(run, request.bank, f"joined ({len(run.joined)} of {len(run.settings.roster)})")
            if set(run.joined) == set(run.settings.roster):
                self._move(run, RunEventKind.ROSTER_COMPLETE)
            return run.view()

    def announce_key(self, announcement: KeyAnnouncement) -> RunView:
        """Relay a bank's signed public key. A second, different key for the same run is refused."""
        with self._lock:
            run = self._member_run(announcement.run_id, announcement.bank)
            known = run.announcements.get(announcement.bank)
            if known is not None and known.x25519_public != announcement.x25519_public:
                raise SubmissionRefused(f"run {run.run_id}: bank {announcement.bank} has already announced another key")
            if known is None:
                if run.phase is not Phase.KEYING:
                    raise SubmissionRefused(f"run {run.run_id} is in {run.phase}, not KEYING")
                run.announcements[announcement.bank] = announcement
                body = announcement_to_pb(announcement).SerializeToString()
                self._keep(run, announcement.bank, "announcement", body)
                self._log(run, announcement.bank, "announced its key")
            return run.view()

    def publish_bundle(self, bundle: KeyBundle) -> RunView:
        """Relay the HE key bundle of the key-making bank, after checking its context is public."""
        context = PublicContext(bundle.public_context)
        with self._lock:
            run = self._member_run(bundle.run_id, bundle.bank)
            if bundle.bank != min(run.settings.roster):
                raise SubmissionRefused(f"run {run.run_id}: bank {bundle.bank} is not the one to make the HE key")
            if run.bundle is not None:
                if run.bundle.public_context != bundle.public_context:
                    raise SubmissionRefused(f"run {run.run_id}: the HE key has already been published")
                return run.view()
            if run.phase is not Phase.KEYING:
                raise SubmissionRefused(f"run {run.run_id} is in {run.phase}, not KEYING")
            if {s.recipient for s in bundle.sealed} != set(run.settings.roster) - {bundle.bank}:
                raise SubmissionRefused(f"run {run.run_id}: the HE key must be sealed to every other bank")
            run.bundle, run.context = bundle, context
            self._keep(run, bundle.bank, "bundle", bundle_to_pb(bundle).SerializeToString())
            self._log(run, bundle.bank, "published the public HE context and sealed keys")
            return run.view()

    def keys(self, run_id: str, bank: str) -> tuple[list[KeyAnnouncement], KeyBundle | None]:
        """All announcements, and the bundle with this bank's own box only."""
        with self._lock:
            run = self._member_run(run_id, bank)
            bundle = run.bundle
            if bundle is not None:
                bundle = KeyBundle(
                    run_id=bundle.run_id,
                    bank=bundle.bank,
                    public_context=bundle.public_context,
                    sealed=tuple(s for s in bundle.sealed if s.recipient == bank),
                    signature=bundle.signature,
                )
            return [run.announcements[b] for b in sorted(run.announcements)], bundle

    def begin_step(self, header: StepHeader) -> Step:
        """Open, or find, the step that a bank is about to upload for."""
        with self._lock:
            run = self._member_run(header.run_id, header.bank)
            known = run.steps.get((header.step, header.attempt))
            if known is not None:
                known.check_header(header)
                return known
            prefix = STEP_PREFIX.get(run.phase)
            if prefix is None or header.step.split("/")[0] != prefix:
                raise SubmissionRefused(f"run {run.run_id} is in {run.phase}: no step {header.step} now")
            if run.context is None:
                raise SubmissionRefused(f"run {run.run_id}: step {header.step} comes before the HE context")
            if header.he_fingerprint != HE_FINGERPRINT:
                raise SubmissionRefused(f"run {run.run_id}: step {header.step} uses other HE parameters")
            if any(step_is_older(header.step, other) for other, _ in run.steps):
                raise SubmissionRefused(f"run {run.run_id}: step {header.step} is over")
            step = Step(header=header, roster=frozenset(run.joined), context=run.context, opened_at=self._now())
            run.steps[header.step, header.attempt] = step
            run.step = header.step
            self._progressed(run)
            return step

    def add_chunk(self, header: StepHeader, step: Step, chunk: Chunk) -> None:
        """Add one ciphertext; anything that is not one is refused, noted and changes nothing."""
        try:
            step.add(header.bank, chunk)
        except ProtocolViolation as error:
            with self._lock:
                run = self._run(header.run_id)
                self._log(run, header.bank, f"refused in step {header.step}, chunk {chunk.index}: {error}")
            raise SubmissionRefused(f"run {header.run_id}, step {header.step}, chunk {chunk.index}: {error}") from error

    def finish_upload(self, header: StepHeader, step: Step) -> None:
        """A bank has sent all its chunks; when it is the last of the roster, the sum is made."""
        missing = step.missing_chunks(header.bank)
        if missing:
            raise SubmissionRefused(
                f"run {header.run_id}, step {header.step}: bank {header.bank} sent {step.header.chunks - missing} "
                f"of {step.header.chunks} chunks"
            )
        if not step.finish(header.bank):
            return
        with self._lock:
            run = self._run(header.run_id)
            run.bytes_received += step.bytes_received
            parts = header.step.split("/")
            if parts[0] == "train" and len(parts) > 1 and parts[1].isdigit():
                run.rounds_done = max(run.rounds_done, int(parts[1]))
            # A bank that needs an older round's sums again has a checkpoint after them: they can go.
            for key in [k for k in run.steps if step_is_older(k[0], header.step)]:
                del run.steps[key]
            self._progressed(run)

    def wait_for_sum(self, header: StepHeader, step: Step) -> Iterable[Chunk]:
        """Wait until the roster is complete and give the sums.

        Raises:
            RunAborted: the run ended while waiting (a deadline, a refusal, the operator).
        """
        if not step.wait():
            view = self.run(header.run_id)
            raise RunAborted(f"run {header.run_id} was aborted at step {header.step}: {view.reason}")
        for index, body in enumerate(step.results):
            yield Chunk(index=index, ciphertext=body)

    def report(self, report: PhaseReport) -> RunView:
        """A bank has ended a phase. When all have, with the same digest, the run moves on."""
        with self._lock:
            run = self._member_run(report.run_id, report.bank)
            phase = Phase(report.phase)
            known = run.reports.get((report.bank, phase))
            if known is not None:
                if known.digest != report.digest:
                    raise SubmissionRefused(f"run {run.run_id}: bank {report.bank} changed its report on {phase}")
                return run.view()
            if phase is not run.phase or phase not in (*STEP_PREFIX, Phase.KEYING, Phase.VOTING):
                raise SubmissionRefused(f"run {run.run_id} is in {run.phase}: no report on {phase} now")
            run.reports[report.bank, phase] = report
            self._store.save(
                ReportRow(
                    run_id=run.run_id, bank=report.bank, phase=phase.value, digest=report.digest, accept=report.accept
                )
            )
            self._log(run, report.bank, f"ended {phase}" + (f": {report.detail}" if report.detail else ""))
            if not report.accept:
                self._abort(run, f"bank {report.bank} refused in {phase}: {report.detail or 'no reason given'}")
                return run.view()
            given = [r for (_, p), r in run.reports.items() if p is phase]
            if len({r.digest for r in given}) > 1:
                self._abort(run, f"the banks disagree on the result of {phase}")
            elif len(given) == len(run.joined):
                self._agreed(run, phase, report)
            return run.view()

    # -- deadlines --------------------------------------------------------------------------------------------

    def enforce_deadlines(self) -> None:
        """End every run whose time is up, naming the banks it waited for. Called once a second."""
        with self._lock:
            now = self._now()
            for run in self._runs.values():
                settings = run.settings
                if run.phase is Phase.ENROLLING and now > run.created_at + settings.enrol_seconds:
                    missing = sorted(set(settings.roster) - set(run.joined))
                    self._abort(run, f"not joined within {settings.enrol_seconds} s: {', '.join(missing)}")
                elif run.phase not in TERMINAL | {Phase.ENROLLING, Phase.DRAFT}:
                    open_steps = [s for s in run.steps.values() if not s.complete]
                    since = min([run.updated_at, *(s.opened_at for s in open_steps)])
                    if now > since + settings.step_seconds:
                        done = open_steps[0].finished if open_steps else {b for b, p in run.reports if p is run.phase}
                        missing = sorted(set(run.joined) - set(done))
                        where = f"step {open_steps[0].header.step}" if open_steps else f"{run.phase}"
                        self._abort(run, f"{where}: no answer within {settings.step_seconds} s: {', '.join(missing)}")

    # -- inside -----------------------------------------------------------------------------------------------

    def _agreed(self, run: Run, phase: Phase, report: PhaseReport) -> None:
        if phase is Phase.TRAINING:
            run.model_sha256 = report.digest
            run.rounds_done = run.settings.rounds
        if phase is Phase.EVALUATING:
            run.metrics_json = report.metrics_json
        if phase is Phase.VOTING and report.digest != run.model_sha256:
            self._abort(run, "the banks voted on another model than the one they trained")
            return
        self._move(run, RunEventKind.PHASE_AGREED)

    def _run(self, run_id: str) -> Run:
        try:
            return self._runs[run_id]
        except KeyError:
            raise SubmissionRefused("no such run") from None

    def _member_run(self, run_id: str, bank: str, *, joined: bool = True) -> Run:
        run = self._run(run_id)
        if bank not in run.settings.roster:
            raise SubmissionRefused(f"run {run_id}: bank {bank} is not on the roster")
        if run.phase is Phase.ABORTED:
            raise RunAborted(f"run {run_id} was aborted: {run.reason}")
        if joined and bank not in run.joined:
            raise SubmissionRefused(f"run {run_id}: bank {bank} has not joined")
        return run

    def _move(self, run: Run, event: RunEventKind) -> None:
        run.phase = next_phase(run.phase, event)
        self._log(run, "", f"now {run.phase}")
        if run.phase in TERMINAL:
            for step in run.steps.values():
                step.cancel()
            run.steps.clear()

    def _abort(self, run: Run, reason: str) -> None:
        if run.phase is Phase.ABORTED:
            return
        run.reason = reason
        self._move(run, RunEventKind.ABORT)
        self._log(run, "", f"aborted: {reason}")

    def _keep(self, run: Run, bank: str, kind: str, message: bytes) -> None:
        self._store.save(KeyRow(run_id=run.run_id, bank=bank, kind=kind, message=message))

    def _log(self, run: Run, bank: str, text: str) -> None:
        entry = RunEvent(seq=len(run.events), at=self._now(), bank=bank, text=text)
        self._touch(run)
        if len(run.events) < MAX_EVENTS_KEPT:
            run.events.append(entry)
            self._store.save(EventRow(run_id=run.run_id, seq=entry.seq, at=entry.at, bank=bank, text=text))

    def _progressed(self, run: Run) -> None:
        """Note a step's progress; written at most once a second, since a write costs as much as a small step."""
        run.updated_at = self._now()
        if run.updated_at - run.saved_at >= 1.0:
            self._touch(run)

    def _touch(self, run: Run) -> None:
        run.updated_at = run.saved_at = self._now()
        self._store.save(
            RunRow(
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
            )
        )


def metrics_of(view: RunView) -> dict[str, object]:
    """The published metrics of a run, empty before EVALUATING has ended."""
    return dict(json.loads(view.metrics_json)) if view.metrics_json else {}
