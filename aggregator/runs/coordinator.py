"""What a run does at the aggregator: enrolment, key relay, secure sums, agreement, dropouts. No gRPC, no HE code.

One lock guards all runs; adding ciphertexts happens under each step's own lock. Every public method either
changes the run as the protocol's table allows, or raises and changes nothing. A change is in the store before it is in
memory or anybody is told (`aggregator.runs.changes`); counters of a step's progress alone may be a second ahead.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from aggregator.aggregation.adding import AddingPool
from aggregator.aggregation.ciphertext_sum import PublicContext
from aggregator.persistence.store import SUMS, DeclineRow, MemberRow, ReportRow, Store
from aggregator.persistence.sum_files import FinishedSum, SumFiles
from aggregator.runs.changes import Change
from aggregator.runs.opening import first_words, new_run
from aggregator.runs.run import Run, load_run, run_row
from aggregator.runs.steps import StepSum
from protocol.codec import announcement_to_pb, bundle_to_pb, report_to_pb
from protocol.errors import NodeNotReady, ProtocolViolation, RosterChanged, RunAborted, SubmissionRefused
from protocol.he_parameters import HE_FINGERPRINT
from protocol.limits import MAX_OPEN_RUNS
from protocol.masks import roster_digest
from protocol.messages import (
    Chunk,
    JoinRequest,
    KeyAnnouncement,
    KeyBundle,
    PhaseReport,
    RunSettings,
    RunView,
    StepHeader,
)
from protocol.run_state import TERMINAL, Phase, RunEventKind
from protocol.steps import STEP_PHASES, Step

__all__ = ["Coordinator", "Run"]

logger = logging.getLogger(__name__)


class Coordinator:
    """All runs of one consortium node."""

    def __init__(
        self,
        store: Store,
        now: Callable[[], float] = time.time,
        on_refusal: Callable[[str, str, str], None] = lambda run_id, bank, text: None,
        pool: AddingPool | None = None,
    ) -> None:
        """Load the runs from the store; those under way go on where they were.

        Args:
            store: the node's database; finished sums are kept in a folder next to it.
            now: Unix seconds.
            on_refusal: told run, bank and reason of each refused payload, for the audit log.
            pool: processes that add ciphertexts; without them, it is done in this process.
        """
        self._pool = pool
        self._store = store
        self._now = now
        self._on_refusal = on_refusal
        self._lock = threading.RLock()
        self._sums = SumFiles(store.folder / "sums")
        self._runs = {row.run_id: load_run(store, row, now()) for row in store.runs()}
        #: Runs of which a write failed: they are read from the store before they are used again.
        self._unsure: set[str] = set()
        self._failing = False
        for run in list(self._runs.values()):
            if run.phase in TERMINAL:
                # The node may have ended between the store's word and this.
                self._sums.forget_run(run.run_id)
            else:
                # The store's counters may be a second old.
                done = (Step.parse(name) for name in self._sums.steps(run.run_id))
                rounds = [place.unit for place in done if place.phase is Phase.TRAINING]
                run.rounds_done = max([run.rounds_done, *rounds])
            if run.phase not in TERMINAL | {Phase.ENROLLING}:
                with self._change(run) as change:
                    change.log("", f"the node was restarted; the run goes on in {run.phase}")

    # -- operator ---------------------------------------------------------------------------------------------

    def open_run(self, settings: RunSettings) -> RunView:
        """Make a run and let its roster join; `aggregator.runs.opening` says what is refused, and what is told."""
        run = new_run(settings, self._now())
        with self._lock:
            if sum(run.phase not in TERMINAL for run in self._runs.values()) >= MAX_OPEN_RUNS:
                raise SubmissionRefused(f"{MAX_OPEN_RUNS} runs are open; end one first")
            with self._change(run) as change:
                change.move(RunEventKind.OPENED)
                for text in first_words(settings, self._runs.values()):
                    change.log("", text)
            return change.run.view()

    def abort_run(self, run_id: str, reason: str) -> RunView:
        """End a run; nothing of it will be released."""
        with self._lock:
            run = self._run(run_id)
            if run.phase in TERMINAL:
                return run.view()
            with self._change(run) as change:
                change.abort(reason or "the operator ended it")
            return change.run.view()

    def runs(self, most: int = 100) -> list[RunView]:
        """The newest runs first, without their events."""
        with self._lock:
            for run_id in list(self._unsure):
                self._read_again(run_id)
            newest = sorted(self._runs.values(), key=lambda r: r.created_at, reverse=True)[:most]
            return [run.view(events_after=1 << 62) for run in newest]

    def run(self, run_id: str, events_after: int = -1) -> RunView:
        """One run."""
        with self._lock:
            return self._run(run_id).view(events_after)

    # -- enrolment and keys -----------------------------------------------------------------------------------

    def join(self, request: JoinRequest) -> RunView:
        """A bank enters a run, or says why not, or why it leaves it; saying any twice is the same as once."""
        with self._lock:
            if request.declined and (left := self._left(request)) is not None:
                return left
            run = self._member_run(request.run_id, request.bank, joined=False)
            if request.bank in run.joined:
                return run.view()
            if run.phase is not Phase.ENROLLING:
                raise SubmissionRefused(f"run {run.run_id} is in {run.phase}: too late for bank {request.bank} to join")
            if request.declined:
                if request.bank in run.declined:
                    return run.view()
                with self._change(run) as change:
                    change.run.declined.add(request.bank)
                    change.writes.rows.append(DeclineRow(run_id=run.run_id, bank=request.bank, at=change.now))
                    change.log(request.bank, f"does not join: {request.declined}")
                    change.enrolled()
                return change.run.view()
            if request.contract_fingerprint != run.settings.contract_fingerprint:
                with self._change(run) as change:
                    change.log(request.bank, "refused: another data contract")
                raise SubmissionRefused(
                    f"run {run.run_id}: bank {request.bank} uses data contract "
                    f"{request.contract_fingerprint[:12]}, the run {run.settings.contract_fingerprint[:12]}"
                )
            if request.he_fingerprint != HE_FINGERPRINT:
                raise SubmissionRefused(f"run {run.run_id}: bank {request.bank} uses other HE parameters")
            with self._change(run) as change:
                if request.bank in run.declined:
                    change.run.declined.discard(request.bank)
                    change.writes.undeclined.append(request.bank)
                change.run.joined.append(request.bank)
                change.writes.rows.append(MemberRow(run_id=run.run_id, bank=request.bank, joined_at=change.now))
                change.log(request.bank, f"joined ({len(change.run.joined)} of {len(run.settings.roster)})")
                change.enrolled()
            return change.run.view()

    def _left(self, request: JoinRequest) -> RunView | None:
        """Let a bank that has joined leave; None where it has not.

        Before the run has begun it has then declined; after, it is dropped, or with too few left the run ends.
        """
        run, bank = self._run(request.run_id), request.bank
        if bank not in run.joined:
            return None
        if run.phase in TERMINAL or bank in run.dropped:
            return run.view()
        if run.phase is Phase.ENROLLING:
            with self._change(run) as change:
                change.run.joined.remove(bank)
                change.run.declined.add(bank)
                change.writes.unjoined.append(bank)
                change.writes.rows.append(DeclineRow(run_id=run.run_id, bank=bank, at=change.now))
                change.log(bank, f"does not join after all: {request.declined}")
                change.enrolled()
            return change.run.view()
        why = f"bank {bank} withdrew: {request.declined}"
        if len(run.members) - 1 < run.settings.minimum_roster:
            with self._change(run) as change:
                change.abort(f"{why}; {len(run.members) - 1} banks are left, {run.settings.minimum_roster} are needed")
            return change.run.view()
        self._drop(run, [bank], why)
        return self._run(request.run_id).view()

    def announce_key(self, announcement: KeyAnnouncement) -> RunView:
        """Relay a bank's signed public keys. Second, different keys for the same run are refused."""
        with self._lock:
            run = self._member_run(announcement.run_id, announcement.bank)
            known = run.announcements.get(announcement.bank)
            if known is not None and (known.x25519_public, known.ed25519_public) != (
                announcement.x25519_public,
                announcement.ed25519_public,
            ):
                raise SubmissionRefused(f"run {run.run_id}: bank {announcement.bank} has already announced other keys")
            if known is None:
                if run.phase is not Phase.KEYING:
                    raise SubmissionRefused(f"run {run.run_id} is in {run.phase}, not KEYING")
                with self._change(run) as change:
                    change.run.announcements[announcement.bank] = announcement
                    body = announcement_to_pb(announcement).SerializeToString()
                    change.keep(announcement.bank, "announcement", body)
                    change.log(announcement.bank, "announced its keys")
            return self._run(run.run_id).view()

    def publish_bundle(self, bundle: KeyBundle) -> RunView:
        """Relay the HE key bundle of the key-making bank, after checking its context is public."""
        context = PublicContext(bundle.public_context)
        with self._lock:
            run = self._member_run(bundle.run_id, bundle.bank)
            if run.bundle is not None:
                if run.bundle.public_context != bundle.public_context:
                    raise SubmissionRefused(f"run {run.run_id}: the HE key has already been published")
                return run.view()
            if run.phase is not Phase.KEYING:
                raise SubmissionRefused(f"run {run.run_id} is in {run.phase}, not KEYING")
            if bundle.bank != min(run.members):
                raise SubmissionRefused(f"run {run.run_id}: bank {bundle.bank} is not the one to make the HE key")
            if not {s.recipient for s in bundle.sealed} >= set(run.members) - {bundle.bank}:
                raise SubmissionRefused(f"run {run.run_id}: the HE key must be sealed to every other bank")
            with self._change(run) as change:
                change.run.bundle, change.run.context = bundle, context
                change.keep(bundle.bank, "bundle", bundle_to_pb(bundle).SerializeToString())
                change.log(bundle.bank, "published the public HE context and sealed keys")
            return change.run.view()

    def keys(self, run_id: str, bank: str) -> tuple[list[KeyAnnouncement], KeyBundle | None]:
        """All announcements and the bundle, whose signature covers every box; each bank can open only its own."""
        with self._lock:
            run = self._member_run(run_id, bank)
            return [run.announcements[b] for b in sorted(run.announcements)], run.bundle

    # -- secure sums ------------------------------------------------------------------------------------------

    def begin_step(self, header: StepHeader) -> StepSum:
        """Open, or find, the step that a bank is about to upload for.

        Raises:
            RosterChanged: the bank adds with a roster of before; it must read the run again.
            SubmissionRefused: there is no such step now.
        """
        with self._lock:
            run = self._member_run(header.run_id, header.bank)
            known = self._find_step(run, header.step)
            if known is not None and known.complete:
                return known
            if header.attempt != run.attempt:
                raise RosterChanged(f"run {run.run_id} is at attempt {run.attempt}, not {header.attempt}")
            if known is None:
                known = self._open_step(run, header)
            known.open_for(header)
            return known

    def finished_step(self, header: StepHeader) -> StepSum:
        """The step of a bank that has sent everything, or comes back for a sum it may have missed.

        Raises:
            SubmissionRefused: the bank has not sent all its chunks for this step.
        """
        with self._lock:
            run = self._member_run(header.run_id, header.bank)
            step = self._find_step(run, header.step)
            if step is not None and (step.complete or header.bank in step.finished):
                return step
            if header.attempt != run.attempt:
                raise RosterChanged(f"run {run.run_id} is at attempt {run.attempt}, not {header.attempt}")
            raise SubmissionRefused(f"run {run.run_id}, step {header.step}: bank {header.bank} has not uploaded yet")

    def add_chunks(self, header: StepHeader, step: StepSum, chunks: Sequence[Chunk]) -> None:
        """Add ciphertexts; anything that is not one is refused, noted and changes nothing."""
        try:
            step.add(header.bank, chunks)
        except ProtocolViolation as error:
            # The refusal stands, whether or not the store can note it.
            with self._lock, contextlib.suppress(NodeNotReady), self._change(self._run(header.run_id)) as change:
                change.log(header.bank, f"refused in step {header.step}, {error}")
            self._on_refusal(header.run_id, header.bank, f"step {header.step}, {error}")
            raise SubmissionRefused(f"run {header.run_id}, step {header.step}, {error}") from error

    def finish_upload(self, header: StepHeader, step: StepSum) -> None:
        """A bank has sent all its chunks; when it is the last of the roster, the sum is made, kept and released."""
        missing = step.missing_chunks(header.bank)
        if missing:
            raise SubmissionRefused(
                f"run {header.run_id}, step {header.step}: bank {header.bank} sent {step.header.chunks - missing} "
                f"of {step.header.chunks} chunks"
            )
        step.finish(header)
        self._complete(header.run_id, header.step, step)

    def _complete(self, run_id: str, name: str, step: StepSum) -> None:
        """Make, keep and release the sum of a step that has all banks'. A disk that refuses is tried again later."""
        answer = step.seal()
        if answer is None:
            return
        try:
            self._sums.save(run_id, name, answer)
        except OSError as error:
            step.unseal()
            self._store.failed(f"run {run_id}, step {name}: the sum can't be kept: {error.strerror}", SUMS)
            return
        self._store.recovered(SUMS)
        with self._lock:
            run = self._run(run_id)
            if run.steps.get(name) is not step:
                step.cancel()
                return
            step.release(answer)
            run.bytes_received += step.bytes_received
            place = Step.parse(name)
            if place.phase is Phase.TRAINING:
                run.rounds_done = max(run.rounds_done, place.unit)
            # A bank sends for a round only when its checkpoint holds the rounds before: their sums can go.
            old = [name for name in run.steps if Step.parse(name).rank < place.rank]
            for name in old:
                del run.steps[name]
            self._progressed(run)
        # After the banks have their answer, and outside the lock.
        self._sums.forget(run_id, old)

    def wait_for_sum(self, header: StepHeader, step: StepSum, seconds: float) -> FinishedSum | None:
        """Wait until the roster is complete and give the sums; None when the time is up before.

        Raises:
            RosterChanged: a bank was dropped while waiting, so this step is void.
            RunAborted: the run ended while waiting (a deadline, a refusal, the operator).
        """
        if not step.complete and not step.wait(seconds):
            return None
        if step.answer is not None:
            return step.answer
        with self._lock:
            self._member_run(header.run_id, header.bank)
            attempt = self._run(header.run_id).attempt
        raise RosterChanged(f"run {header.run_id}, step {header.step} is void: the run is at attempt {attempt}")

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
            if phase is not run.phase or phase not in (*STEP_PHASES, Phase.KEYING, Phase.VOTING):
                raise SubmissionRefused(f"run {run.run_id} is in {run.phase}: no report on {phase} now")
            if report.attempt != run.attempt:
                raise RosterChanged(f"run {run.run_id} is at attempt {run.attempt}, not {report.attempt}")
            with self._change(run) as change:
                change.run.reports[report.bank, phase] = report
                change.resumed()
                change.writes.rows.append(
                    ReportRow(
                        run_id=run.run_id,
                        bank=report.bank,
                        phase=phase.value,
                        digest=report.digest,
                        accept=report.accept,
                        message=report_to_pb(report).SerializeToString(),
                    )
                )
                change.log(report.bank, f"ended {phase}" + (f": {report.detail}" if report.detail else ""))
                if report.accept:
                    change.settle(phase)
                else:
                    change.abort(f"bank {report.bank} refused in {phase}: {report.detail or 'no reason given'}")
            return change.run.view()

    def reports(self, run_id: str, bank: str, phase: Phase) -> list[PhaseReport]:
        """The signed reports on a phase, as the banks sent them."""
        with self._lock:
            run = self._member_run(run_id, bank)
            return [report for (_, given), report in sorted(run.reports.items()) if given is phase]

    # -- deadlines --------------------------------------------------------------------------------------------

    def enforce_deadlines(self) -> None:
        """Drop banks whose time is up, pause runs with too few left, end those paused too long. Once a second.

        What the store can't take now is tried again the next time; so are sums that the disk refused.
        """
        with self._lock:
            runs = list(self._runs)
        for run_id in runs:
            with contextlib.suppress(NodeNotReady, SubmissionRefused):
                with self._lock:
                    run = self._run(run_id)
                    waiting = run.open_step
                    if run.phase is Phase.ENROLLING:
                        self._end_enrolment(run)
                    elif run.phase not in TERMINAL | {Phase.DRAFT}:
                        self._watch(run)
                if waiting is not None and waiting.finished == waiting.roster:
                    self._complete(run_id, waiting.header.step, waiting)

    def look(self) -> None:
        """See whether the store is there and, if it could not be written, whether it can. Once a second."""
        if self._store.failing(SUMS) and self._sums.writable():
            self._store.recovered(SUMS)
        self._store.look()
        before, self._failing = self._failing, bool(self._store.trouble)
        if before and not self._failing:
            self._deadlines_afresh()

    def _deadlines_afresh(self) -> None:
        """Banks could not be heard while the store failed: none is dropped for that."""
        with self._lock:
            now = self._now()
            for run in self._runs.values():
                run.count_afresh(now)

    def _end_enrolment(self, run: Run) -> None:
        settings = run.settings
        if self._now() <= run.created_at + settings.enrol_seconds:
            return
        missing = ", ".join(sorted(set(settings.roster) - set(run.joined)))
        with self._change(run) as change:
            if len(run.joined) < settings.minimum_roster:
                change.abort(f"not joined within {settings.enrol_seconds} s: {missing}")
            else:
                change.log("", f"starts without those not joined within {settings.enrol_seconds} s: {missing}")
                change.move(RunEventKind.ROSTER_COMPLETE)

    def _watch(self, run: Run) -> None:
        settings, now, members = run.settings, self._now(), set(run.members)
        since, done, where = run.answered()
        missing = sorted(members - done)
        if not missing or now <= since + settings.step_seconds:
            return
        if done and len(members) - len(missing) >= settings.minimum_roster:
            self._drop(run, missing, f"{where}: no answer within {settings.step_seconds} s")
            return
        named = ", ".join(missing)
        if run.paused_since and now <= run.paused_since + settings.pause_seconds:
            return
        with self._change(run) as change:
            if run.paused_since:
                change.abort(
                    f"{where}: no answer within {settings.step_seconds} s, nor in {settings.pause_seconds} s of "
                    f"waiting: {named}"
                )
            else:
                change.run.paused_since, change.run.waiting_for = now, tuple(missing)
                change.log("", f"paused at {where}: no answer within {settings.step_seconds} s: {named}")
                # The log is no progress: the deadline stays where it was.
                change.run.updated_at = since

    def _drop(self, run: Run, banks: list[str], why: str) -> None:
        step = run.open_step
        with self._change(run) as change:
            draft = change.run
            draft.dropped |= set(banks)
            draft.attempt += 1
            if step is not None:
                # What the dropped banks gave to this unit must leave it: the survivors repeat it from its beginning.
                draft.void_unit, draft.void_before = Step.parse(step.header.step).unit_text, draft.attempt
            known = self._known_steps(run) if step is not None else ()
            voided = [name for name in known if Step.parse(name).unit_text == draft.void_unit]
            for bank in run.joined:
                draft.reports.pop((bank, run.phase), None)
            change.writes.dropped = (banks, change.now)
            change.writes.forgotten.append(run.phase.value)
            void = [found for found in (draft.steps.pop(name, None) for name in voided) if found is not None]
            change.after += [found.cancel for found in void]
            change.after.append(lambda: self._sums.forget(run.run_id, voided, erase=True))
            change.resumed()
            change.log("", f"attempt {draft.attempt} without {', '.join(banks)}: {why}")

    # -- inside -----------------------------------------------------------------------------------------------

    def _open_step(self, run: Run, header: StepHeader) -> StepSum:
        place = Step.parse(header.step)
        if place.phase is not run.phase:
            raise SubmissionRefused(f"run {run.run_id} is in {run.phase}: no step {header.step} now")
        if run.context is None:
            raise SubmissionRefused(f"run {run.run_id}: step {header.step} comes before the HE context")
        if header.he_fingerprint != HE_FINGERPRINT:
            raise SubmissionRefused(f"run {run.run_id}: step {header.step} uses other HE parameters")
        if header.roster_digest != roster_digest(run.members):
            raise SubmissionRefused(
                f"run {run.run_id}, step {header.step}: bank {header.bank} adds with another roster"
            )
        if any(place.rank < Step.parse(other).rank for other in self._known_steps(run)):
            raise SubmissionRefused(f"run {run.run_id}: step {header.step} is over")
        if run.open_step is not None:
            raise SubmissionRefused(
                f"run {run.run_id}: step {header.step} of bank {header.bank} comes while the others are at "
                f"step {run.open_step.header.step}"
            )
        step = StepSum(
            header=header, roster=frozenset(run.members), context=run.context, opened_at=self._now(), pool=self._pool
        )
        run.steps[header.step] = step
        run.step = header.step
        self._progressed(run)
        return step

    def _known_steps(self, run: Run) -> set[str]:
        return set(run.steps) | set(self._sums.steps(run.run_id) if not run.steps else ())

    def _find_step(self, run: Run, name: str) -> StepSum | None:
        """A step in memory, or a finished one on disk: after a restart of the node."""
        if name in run.steps:
            return run.steps[name]
        answer = self._sums.load(run.run_id, name)
        if answer is None or (Step.parse(name).unit_text == run.void_unit and answer.head.attempt < run.void_before):
            return None
        run.steps[name] = StepSum.finished_before(run.run_id, name, answer, self._now())
        return run.steps[name]

    def _run(self, run_id: str) -> Run:
        if run_id in self._unsure:
            self._read_again(run_id)
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
        if bank in run.dropped:
            raise RunAborted(f"run {run_id} went on without bank {bank}: it withdrew, or did not answer in time")
        return run

    @contextlib.contextmanager
    def _change(self, run: Run) -> Iterator[Change]:
        """A draft of a run to work on; at the end it is stored, then takes the run's place, then is acted on.

        Raises:
            NodeNotReady: the store failed; the run is what it was.
        """
        change = Change(run=run.draft(), now=self._now())
        yield change
        after = change.run
        try:
            self._store.write(run.run_id, change.finished())
        except NodeNotReady:
            self._unsure.add(run.run_id)
            raise
        self._runs[run.run_id] = after
        for act in change.after:
            act()
        if after.phase in TERMINAL and run.phase not in TERMINAL:
            for step in after.steps.values():
                step.cancel()
            after.steps.clear()
            # Nobody needs the keys any more; a context takes megabytes.
            after.announcements.clear()
            after.bundle = after.context = None
            self._sums.forget_run(run.run_id)

    def _read_again(self, run_id: str) -> None:
        """Take a run as the store has it: when a write fails at the last moment, it may have been done or not.

        Raises:
            NodeNotReady: the store can't be read either.
        """
        row = self._store.run(run_id)
        held = self._runs.get(run_id)
        if row is None:
            self._runs.pop(run_id, None)
        else:
            found = load_run(self._store, row, self._now())
            if held is not None and (held.phase, held.attempt) == (found.phase, found.attempt):
                # Nothing moved: its uploads and deadlines, which memory alone has, stay too.
                found.keep_progress_of(held)
            elif held is not None:
                for step in held.steps.values():
                    step.cancel()
            self._runs[run_id] = found
        self._unsure.discard(run_id)

    def _progressed(self, run: Run) -> None:
        """Note a step's progress; written at most once a second, since a write costs as much as a small step.

        It is counters only: a store that can't take them now has them with the next change.
        """
        run.paused_since, run.waiting_for = 0.0, ()
        run.updated_at = self._now()
        if run.updated_at - run.saved_at >= 1.0:
            run.saved_at = run.updated_at
            with contextlib.suppress(NodeNotReady):
                self._store.save(run_row(run))
