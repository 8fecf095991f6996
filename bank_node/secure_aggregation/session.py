"""One bank's part in one run: join, key exchange, secure sums, reports. It sees no rows, only integer vectors.

Every step can be repeated: keys and a ledger are kept in the run's folder until it ends, masks are derived, and the
aggregator counts each bank's chunk once. Whatever does not check out ends the run for us: its keys are wiped, nothing
of the answer is used, and the evidence stays in the ledger. See docs/protocol.md.
"""

import contextlib
import datetime as dt
import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from bank_node.consortium import Log
from bank_node.secure_aggregation.cipher_pool import CipherPool
from bank_node.secure_aggregation.consistency import check_reports, check_statements
from bank_node.secure_aggregation.key_exchange import (
    announce,
    make_bundle,
    open_bundle,
    peers_from_record,
    peers_record,
)
from bank_node.secure_aggregation.keys import RunSecrets, group_secret
from bank_node.secure_aggregation.ledger import Ledger
from bank_node.secure_aggregation.mac import CheckKeys
from bank_node.transport.client import BankClient
from bank_node.transport.identity import Identity
from protocol.errors import (
    AggregatorUnreachable,
    CrossbankError,
    FieldOverflow,
    LocalError,
    ProtocolViolation,
    RosterChanged,
    RunAborted,
)
from protocol.field import HALF, decode_signed, encode_signed
from protocol.he_parameters import HE_FINGERPRINT
from protocol.layout import join_chunks, split_chunks
from protocol.limits import MAX_DETAIL_CHARS
from protocol.masks import MaskStream, SecretBytes, pair_seed, roster_digest, step_name
from protocol.messages import (
    Chunk,
    JoinRequest,
    KeyAnnouncement,
    PhaseReport,
    RunView,
    StepHeader,
    SumHead,
)
from protocol.run_state import Phase
from protocol.statements import (
    StateChain,
    announcement_bytes,
    report_bytes,
    start_digest,
    statement_bytes,
)
from protocol.steps import Point

__all__ = ["DEFAULT_MINIMUM_ROSTER", "RunSession"]

#: With two banks, each can compute the other's sums from the total: a bank must say that it accepts that.
DEFAULT_MINIMUM_ROSTER = 3

_ORDER: list[Phase] = [p for p in Phase if p is not Phase.ABORTED]
#: Looking at a run: often at first, since phases end within milliseconds of each other, then ever less.
_FIRST_POLL, _LONGEST_POLL = 0.01, 2.0
#: Chunks masked at a time while they are being sent.
_BLOCK = 16


def _pauses() -> Iterator[float]:
    pause = _FIRST_POLL
    while True:
        yield pause
        pause = min(pause * 1.15, _LONGEST_POLL)


class RunSession:
    """A bank in a run. Make it, `join`, `exchange_keys`, then `secure_sum`, `commit` and `report` as the phases go."""

    def __init__(
        self,
        client: BankClient,
        identity: Identity,
        run_id: str,
        run_dir: Path,
        log: Log,
        *,
        minimum_roster: int = DEFAULT_MINIMUM_ROSTER,
        encryption_processes: int = 0,
    ) -> None:
        """Read the run, and what we already know of it from its folder.

        Raises:
            LocalError: the run would go on with fewer banks than we accept.
            RunAborted: it has ended.
        """
        self.client = client
        self.bank = client.bank
        self.run_id = run_id
        self.bytes_sent = 0
        #: Seconds spent on MACs, witnesses, signatures and states: what verification costs this bank.
        self.checking_seconds = 0.0
        #: Seconds by `clock` for masking, encrypting and serialising, and for decrypting.
        self.encrypting_seconds = self.decrypting_seconds = 0.0
        #: Wall time; a measurement may want `time.thread_time`, of which a reading can cost a third of an encryption.
        self.clock: Callable[[], float] = time.perf_counter
        self._identity = identity
        self._log = log
        self._run_dir = run_dir
        self._seeds: dict[str, SecretBytes] = {}
        self._run_keys: dict[str, Ed25519PublicKey] = {}
        self._secrets: RunSecrets | None = None
        self._group: SecretBytes | None = None
        self._chain: StateChain | None = None
        self._cipher: CipherPool | None = None
        self._processes = encryption_processes
        #: The banks that the run goes on with, sorted; none before the key exchange.
        self.members: tuple[str, ...] = ()
        self._attempt = 0
        self._minimum = minimum_roster
        self._replaying = False
        run_dir.mkdir(parents=True, exist_ok=True)
        self._ledger = Ledger(run_dir / "ledger.jsonl")
        client.outbox.follow(run_dir / "outbox.jsonl")
        self.view: RunView = client.run(run_id)
        self._check_alive()
        settings = self.view.settings
        if len(settings.roster) > 1 and settings.minimum_roster < minimum_roster:
            raise LocalError(
                f"run {run_id} may go on with {settings.minimum_roster} banks, bank {self.bank} accepts no fewer than "
                f"{minimum_roster} (minimum_roster in its configuration): with two, each can compute the other's sums"
            )

    # -- phases -----------------------------------------------------------------------------------------------

    def join(self, contract_fingerprint: str, *, own_contract: str = "") -> None:
        """Join the run; harmless when we have already.

        Args:
            own_contract: name and version of the bank's own contract where it joins under an older, compatible one;
                for the ledger.

        Raises:
            LocalError: the run announces another data contract than ours.
        """
        announced = self.view.settings.contract_fingerprint
        if announced != contract_fingerprint:
            raise LocalError(
                f"run {self.run_id} uses data contract {announced[:12]}, bank {self.bank} has "
                f"{contract_fingerprint[:12]}; install the consortium's contract"
            )
        self.view = self.client.join(
            JoinRequest(
                run_id=self.run_id,
                bank=self.bank,
                contract_fingerprint=contract_fingerprint,
                he_fingerprint=HE_FINGERPRINT,
            )
        )
        if own_contract:
            self._ledger.note("contract", durable=True, fingerprint=contract_fingerprint, own=own_contract)
        self._log(f"joined {self.run_id}: {len(self.view.joined)} of {len(self.view.roster)} banks are in")

    def decline(self, contract_fingerprint: str, reason: str) -> None:
        """Say that we don't join, and why, in words for the consortium; harmless once the run has begun."""
        if not self.reached(Phase.KEYING):
            request = JoinRequest(
                run_id=self.run_id,
                bank=self.bank,
                contract_fingerprint=contract_fingerprint,
                he_fingerprint=HE_FINGERPRINT,
                declined=reason[:MAX_DETAIL_CHARS],
            )
            self.view = self.client.join(request)
        self._log(f"bank {self.bank} does not join {self.run_id}: {reason}")

    def exchange_keys(self) -> None:
        """Agree on the roster, on mask seeds with every other bank and on the run's keys; then report KEYING.

        Harmless when it has been done: the keys are then read from the run's folder.

        Raises:
            ProtocolViolation: a key is not signed by the bank it names, or the relay changed something.
        """
        self.wait_for(Phase.KEYING)
        if self._ledger.anchors and self.reached(Phase.BINNING):
            self._restore()
            if not self.reported(Phase.KEYING):
                self.report(Phase.KEYING, self._ledger.anchors[0].digest)
            return
        with self._fail_closed():
            while True:
                try:
                    self._agree_on_keys()
                    break
                except RosterChanged as change:
                    self._log(str(change))
                    self.view = self.client.run(self.run_id)
        self._log(f"keys agreed by {len(self.members)} banks: the HE key is at the banks only, masks are pairwise")

    def secure_sum(
        self, step: str, vector: npt.NDArray[np.int64], *, bound: int | None = None
    ) -> npt.NDArray[np.int64]:
        """The sum over the roster's banks of one int64 vector each; all must call it with the same length.

        Args:
            step: name of the step, ``phase/round/index``.
            vector: shape (n,).
            bound: the largest magnitude that any bank's numbers and their sum can have, at most `HALF`; by default
                each bank may use its share, HALF // banks, so that no total can wrap.

        Returns:
            int64, shape (n,): the exact sum.

        Raises:
            FieldOverflow: a number is too large; nothing was sent.
            RosterChanged: a bank was dropped; `adopt_roster`, then repeat the unit from its last anchor.
            TamperedSum, Equivocation, ProtocolViolation, RunAborted: use nothing of it; the run is over for us.
        """
        if self._cipher is None or self._chain is None or self._group is None or self._secrets is None:
            raise LocalError("secure sums come after the key exchange")
        cipher, group = self._cipher, self._group
        numbers = np.ascontiguousarray(vector, dtype=np.int64)
        laid = split_chunks(encode_signed(numbers, HALF // len(self.members) if bound is None else bound))
        roster = roster_digest(self.members)
        with self._fail_closed(step):
            vector_digest = hashlib.sha256(numbers.astype("<i8").tobytes()).hexdigest()
            bound_durably = self._ledger.bind(step, self._attempt, vector_digest)
            started = time.perf_counter()
            header = self._signed_header(step, roster, laid.shape[0], numbers.size)
            name = step_name(self.run_id, step, self._attempt, roster)
            checks = CheckKeys(group, name, laid.shape[0])
            checks.fill(laid)
            self.checking_seconds += time.perf_counter() - started

            def chunks() -> Iterator[Chunk]:
                masks = MaskStream(self.bank, {m: self._seeds[m] for m in self.members if m != self.bank}, name)
                blocks = (laid[start : start + _BLOCK] for start in range(0, header.chunks, _BLOCK))
                masked = (chunk for block in blocks for chunk in masks.apply(block))
                for index, ciphertext in enumerate(self._timed(cipher.encrypt(masked))):
                    self.bytes_sent += len(ciphertext)
                    bound_durably()
                    yield Chunk(index=index, ciphertext=ciphertext)

            head, bodies = self._ask(header, chunks)
            members = self.members
            if head.attempt != self._attempt:
                header, members, roster = self._header_of_before(header, head)
                checks = CheckKeys(group, step_name(self.run_id, step, head.attempt, roster), header.chunks)
            started = time.perf_counter()
            self._check_statements(header, head, members)
            self.checking_seconds += time.perf_counter() - started
            started = self.clock()
            total = cipher.decrypt(bodies)
            self.decrypting_seconds += self.clock() - started
            started = time.perf_counter()
            checks.verify(total, len(members), self.run_id, step)
            try:
                summed = decode_signed(join_chunks(total, numbers.size), HALF if bound is None else bound)
            except FieldOverflow as error:
                raise ProtocolViolation(f"run {self.run_id}, step {step}: {error}") from error
            before = self._chain.value
            after = self._chain.sum_taken(step, head.attempt, roster, summed.astype("<i8").tobytes())
            self._ledger.note(
                "sum",
                step=step,
                attempt=head.attempt,
                chunks=header.chunks,
                length=header.length,
                mac="ok",
                statements=[[s.bank, s.state.hex(), s.signature.hex()] for s in head.statements],
                before=before.hex(),
                after=after.hex(),
            )
            self.checking_seconds += time.perf_counter() - started
        return summed

    def commit(self, name: str, digest: str) -> None:
        """Note, durably, that everything up to here is agreed and made `digest`: a point to go on from."""
        if self._chain is None:
            raise LocalError("nothing can be agreed before the key exchange")
        before = self._chain.value
        state = self._chain.agreed(name, digest)
        self._ledger.note("anchor", durable=True, name=name, before=before.hex(), state=state.hex(), digest=digest)

    def rewind(self, name: str) -> None:
        """Go back to the point that `commit` noted under `name`, to repeat what came after it."""
        if self._chain is None:
            raise LocalError("there is nothing to go back to before the key exchange")
        self._chain.value = bytes.fromhex(self._ledger.rewind(name).state)

    def adopt_roster(self) -> None:
        """Take the run's smaller roster after a `RosterChanged`.

        Raises:
            RunAborted: we are the one that was dropped, or the run has ended.
            ProtocolViolation: the roster grew, shrank below the minimum, or an attempt was counted wrongly.
        """
        self.view = self.client.run(self.run_id)
        self._check_alive()
        with self._fail_closed():
            self._take_roster(self.view)
        self._log(f"attempt {self._attempt}: going on with {', '.join(self.members)}")

    def report(
        self, phase: Phase, digest: str, *, accept: bool = True, metrics_json: str = "", detail: str = ""
    ) -> None:
        """Say that we ended a phase, wait until all banks have, and check that they signed the same.

        Raises:
            RosterChanged: a bank was dropped before all had reported; `adopt_roster` and report again.
            Equivocation: the banks did not end it alike.
        """
        if self._chain is None or self._secrets is None:
            raise LocalError("reports come after the key exchange")
        unsigned = PhaseReport(
            run_id=self.run_id,
            bank=self.bank,
            phase=phase.value,
            digest=digest,
            accept=accept,
            metrics_json=metrics_json,
            detail=detail,
            attempt=self._attempt,
            roster_digest=roster_digest(self.members),
            state=self._chain.value,
        )
        ours = replace(unsigned, signature=self._secrets.ed25519.sign(report_bytes(unsigned)))
        with self._fail_closed():
            self.view = self.client.report(ours)
            self.wait_for(_ORDER[_ORDER.index(phase) + 1])
            given = self.client.reports(self.run_id, phase)
            check_reports(ours, given, self.members, self._run_keys)
            self._ledger.note(
                "report",
                durable=True,
                phase=phase.value,
                reports=[
                    {
                        "bank": r.bank,
                        "digest": r.digest,
                        "accept": r.accept,
                        "metrics": r.metrics_json,
                        "attempt": r.attempt,
                        "state": r.state.hex(),
                        "signature": r.signature.hex(),
                    }
                    for r in given
                    if r.bank in self.members
                ],
            )

    def wait_for(self, phase: Phase) -> None:
        """Wait until the run has reached a phase or gone beyond it.

        Raises:
            RosterChanged: a bank was dropped while waiting.
            RunAborted: the run ended.
            AggregatorUnreachable: nothing at all happened for longer than the run's own deadlines allow.
        """
        settings = self.view.settings
        longest = settings.enrol_seconds + settings.step_seconds + settings.pause_seconds + 60.0
        pauses, told, seen, since = _pauses(), False, self._progress(), time.monotonic()
        while True:
            self._check_alive()
            if self.reached(phase):
                return
            if self.members and self.view.attempt != self._attempt:
                raise RosterChanged(f"run {self.run_id} is at attempt {self.view.attempt}, not {self._attempt}")
            if self._progress() != seen:
                seen, since = self._progress(), time.monotonic()
            if time.monotonic() - since > longest:
                raise AggregatorUnreachable(
                    f"run {self.run_id} has not moved in {longest:.0f} s, past all its deadlines"
                )
            pause = next(pauses)
            if not told and pause > 1:
                told = True
                self._log(f"run {self.run_id} is in {self.view.phase}: waiting for the other banks")
            time.sleep(pause)
            self.view = self.client.run(self.run_id)

    def reached(self, phase: Phase) -> bool:
        """Whether the run is at a phase or beyond."""
        return _ORDER.index(Phase(self.view.phase)) >= _ORDER.index(phase)

    def reported(self, phase: Phase) -> bool:
        """Whether all banks have ended a phase alike, and we have checked it."""
        return phase.value in self._ledger.reported

    def end(self) -> None:
        """Wipe the run's keys; the ledger and the outbox stay."""
        RunSecrets.wipe_file(self._run_dir / "secrets.json")
        if self._cipher is not None:
            self._cipher.close()
        self._cipher = self._group = self._chain = self._secrets = None
        self._seeds = {}

    def close(self) -> None:
        """Close the connection and end the helpers; the run's keys stay, so that it can be taken up again."""
        if self._cipher is not None:
            self._cipher.close()
        self._ledger.close()
        self.client.close()

    # -- keys -------------------------------------------------------------------------------------------------

    def _agree_on_keys(self) -> None:
        self._check_alive()
        self._take_roster(self.view)
        secrets = RunSecrets.load_or_make(self._run_dir / "secrets.json")
        self.client.announce_key(announce(self.run_id, self.bank, secrets, self._identity))
        announced = self._await_announcements()
        self._learn_peers(secrets, announced)
        public = self._share_he_key(secrets, announced)
        self._begin(secrets, start_digest(self.view.settings.digest, roster_digest(self.members), announced, public))
        start = self._chain.value.hex() if self._chain else ""
        self._ledger.note("peers", peers=peers_record(announced), settings_digest=self.view.settings.digest)
        self.commit(Point.keys().text, start)
        self.report(Phase.KEYING, start)

    def _await_announcements(self) -> list[KeyAnnouncement]:
        for pause in _pauses():
            keys, _, crl = self.client.keys_and_revocations(self.run_id)
            announced = [key for key in keys if key.bank in self.members]
            if len(announced) == len(self.members):
                break
            self._look_again(pause)
        now = dt.datetime.now(dt.UTC)
        for key in announced:
            self._identity.verify(key.bank, key.certificate_pem, announcement_bytes(key), key.signature, now, crl)
        return announced

    def _learn_peers(self, secrets: RunSecrets, announced: list[KeyAnnouncement]) -> None:
        self._secrets = secrets
        self._run_keys = {a.bank: Ed25519PublicKey.from_public_bytes(a.ed25519_public) for a in announced}
        self._seeds = {
            a.bank: pair_seed(secrets.x25519, a.x25519_public, self.run_id, self.bank, a.bank)
            for a in announced
            if a.bank != self.bank
        }

    def _share_he_key(self, secrets: RunSecrets, announced: list[KeyAnnouncement]) -> bytes:
        _, bundle, crl = self.client.keys_and_revocations(self.run_id)
        if bundle is None and min(self.members) == self.bank:
            secrets.make_shared()
            self.client.publish_bundle(make_bundle(self.run_id, self.bank, secrets, announced, self._identity))
        pauses = _pauses()
        while bundle is None:
            _, bundle = self.client.keys(self.run_id)
            if bundle is None:
                self._look_again(next(pauses))
        signer = next((key for key in announced if key.bank == bundle.bank), None)
        if signer is None:
            keys, _ = self.client.keys(self.run_id)
            signer = next((key for key in keys if key.bank == bundle.bank), None)
        if signer is None or bundle.bank not in self.view.joined:
            raise ProtocolViolation(f"run {self.run_id}: the HE key comes from {bundle.bank}, which is not in the run")
        return open_bundle(bundle, signer, self.bank, secrets, self._identity, crl)

    def _begin(self, secrets: RunSecrets, start: bytes) -> None:
        if secrets.root is None or secrets.he_key is None:
            raise ProtocolViolation(f"run {self.run_id}: no HE key")
        self._group = group_secret(secrets.root)
        if self._cipher is not None:
            self._cipher.close()
        self._cipher = CipherPool(secrets.he_key, self._processes)
        self._chain = StateChain(self._group, start)

    def _restore(self) -> None:
        """Take the run up from its folder, after a restart."""
        if self._chain is not None:
            return
        path = self._run_dir / "secrets.json"
        if not path.exists():
            raise LocalError(f"run {self.run_id}: bank {self.bank} has wiped its keys; it can't go on with this run")
        announced = peers_from_record(self.run_id, self._ledger.peers)
        secrets = RunSecrets.load_or_make(path)
        self._learn_peers(secrets, announced)
        self._attempt = self._ledger.attempt
        self.members = self._ledger.rosters[self._attempt]
        self._begin(secrets, b"")
        if self._chain is not None:
            self._chain.value = bytes.fromhex(self._ledger.anchors[-1].state)
        self._replaying = True
        self._log(f"going on with {self.run_id} after '{self._ledger.anchors[-1].name}'")

    # -- inside -----------------------------------------------------------------------------------------------

    def _ask(self, header: StepHeader, chunks: Callable[[], Iterator[Chunk]]) -> tuple[SumHead, list[bytes]]:
        settings = self.view.settings
        if self._replaying:
            # After a restart the sums of the round under way may be there already.
            found = self.client.sum_of_before(header)
            if found is not None:
                return found
            self._replaying = False
        return self.client.secure_sum(header, chunks, 2.0 * (settings.step_seconds + settings.pause_seconds) + 60.0)

    def _timed(self, ciphertexts: Iterator[bytes]) -> Iterator[bytes]:
        started = self.clock()
        for ciphertext in ciphertexts:
            self.encrypting_seconds += self.clock() - started
            yield ciphertext
            started = self.clock()

    def _signed_header(self, step: str, roster: bytes, chunks: int, length: int) -> StepHeader:
        if self._chain is None or self._secrets is None:
            raise LocalError("secure sums come after the key exchange")
        unsigned = StepHeader(
            run_id=self.run_id,
            bank=self.bank,
            step=step,
            attempt=self._attempt,
            chunks=chunks,
            length=length,
            he_fingerprint=HE_FINGERPRINT,
            roster_digest=roster,
            state=self._chain.value,
        )
        return replace(unsigned, signature=self._secrets.ed25519.sign(statement_bytes(unsigned)))

    def _header_of_before(self, header: StepHeader, head: SumHead) -> tuple[StepHeader, tuple[str, ...], bytes]:
        """Our header, roster and its digest of the earlier attempt that a sum was made by."""
        members = self._ledger.rosters.get(head.attempt)
        if members is None or head.attempt > self._attempt:
            raise ProtocolViolation(f"run {self.run_id}, step {header.step}: a sum by unknown attempt {head.attempt}")
        roster = roster_digest(members)
        return replace(header, attempt=head.attempt, roster_digest=roster, signature=b""), members, roster

    def _check_statements(self, header: StepHeader, head: SumHead, members: tuple[str, ...]) -> None:
        try:
            check_statements(header, head, members, self._run_keys)
        except ProtocolViolation:
            self._ledger.note(
                "evidence",
                durable=True,
                step=header.step,
                attempt=header.attempt,
                own_state=header.state.hex(),
                statements=[[s.bank, s.state.hex(), s.signature.hex()] for s in head.statements],
            )
            raise

    def _take_roster(self, view: RunView) -> None:
        members = tuple(sorted(view.members))
        if self.bank not in members:
            self.end()
            raise RunAborted(f"run {self.run_id} went on without bank {self.bank}: it did not answer in time")
        alone = len(view.settings.roster) == 1
        if len(members) < max(view.settings.minimum_roster, 1 if alone else self._minimum):
            raise ProtocolViolation(f"run {self.run_id} has {len(members)} banks left, too few to go on")
        known = self._ledger.rosters.get(view.attempt)
        if known is not None and known != members:
            raise ProtocolViolation(f"run {self.run_id}: another roster for attempt {view.attempt} than before")
        if self._ledger.rosters and known is None:
            last = self._ledger.rosters[self._ledger.attempt]
            if view.attempt < self._ledger.attempt or not set(members) < set(last):
                raise ProtocolViolation(f"run {self.run_id}: a roster can only shrink, from one attempt to the next")
        if known is None:
            self._ledger.note("roster", durable=True, attempt=view.attempt, members=list(members))
        self.members, self._attempt = members, view.attempt

    def _look_again(self, pause: float) -> None:
        time.sleep(pause)
        self.view = self.client.run(self.run_id)
        self._check_alive()
        if self.view.attempt != self._attempt:
            raise RosterChanged(f"run {self.run_id} is at attempt {self.view.attempt}, not {self._attempt}")

    def _progress(self) -> tuple[object, ...]:
        view = self.view
        return (view.phase, view.step, view.attempt, view.joined, view.reported, view.paused_since)

    def _check_alive(self) -> None:
        if self.view.phase == Phase.ABORTED:
            self.end()
            raise RunAborted(f"run {self.run_id} was aborted: {self.view.reason}")

    @contextlib.contextmanager
    def _fail_closed(self, step: str = "") -> Iterator[None]:
        """What the protocol does not allow ends the run for us: evidence noted, others told, keys wiped."""
        try:
            yield
        except ProtocolViolation as error:
            self._ledger.note("failure", durable=True, error=type(error).__name__, step=step, text=str(error))
            self._log(f"{type(error).__name__}: {error}; bank {self.bank} leaves the run and wipes its keys")
            with contextlib.suppress(CrossbankError):
                self.client.abort(self.run_id, f"{type(error).__name__}: {error}"[: MAX_DETAIL_CHARS // 2])
            self.end()
            raise
        except RunAborted:
            self.end()
            raise
