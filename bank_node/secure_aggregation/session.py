"""One bank's part in one run: join, key exchange, secure sums, reports. It sees no rows, only integer vectors.

Every step can be repeated: keys and a ledger are kept in the run's folder until it ends, masks are derived, and the
aggregator counts each bank's chunk once. Whatever does not check out ends the run for us: its keys are wiped, nothing
of the answer is used, and the evidence stays in the ledger. See docs/protocol.md.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bank_node.consortium import Log
from bank_node.dtypes import Integers
from bank_node.secure_aggregation.agreed_state import AgreedState, Peers, Roster
from bank_node.secure_aggregation.consistency import check_reports, reports_record
from bank_node.secure_aggregation.key_agreement import agree_on_keys
from bank_node.secure_aggregation.key_exchange import peers_from_record, peers_record
from bank_node.secure_aggregation.keys import RunSecrets
from bank_node.secure_aggregation.ledger import Ledger
from bank_node.secure_aggregation.rosters import checked_roster
from bank_node.secure_aggregation.run_watch import RunWatch, next_phase
from bank_node.secure_aggregation.secure_sum import secure_sum
from bank_node.secure_aggregation.sum_costs import SumCosts
from bank_node.transport.client import BankClient
from bank_node.transport.identity import Identity
from protocol.errors import (
    CrossbankError,
    DamagedRunFiles,
    LocalError,
    ProtocolViolation,
    RosterChanged,
    RunAborted,
)
from protocol.he_parameters import HE_FINGERPRINT
from protocol.limits import MAX_DETAIL_CHARS
from protocol.messages import Chunk, JoinRequest, RunView, StepHeader, SumHead
from protocol.run_state import Phase
from protocol.statements import start_digest
from protocol.steps import Point

__all__ = ["DEFAULT_MINIMUM_ROSTER", "RunSession"]

#: With two banks, each can compute the other's sums from the total: a bank must say that it accepts that.
DEFAULT_MINIMUM_ROSTER = 3

#: Seconds before each look at a run whose roster is said to have changed.
_CHANGE_PAUSES = (0.0, 0.1, 0.5, 1.0, 2.0, 4.0)


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
        costs: SumCosts | None = None,
    ) -> None:
        """Read the run, and what we already know of it from its folder.

        Args:
            client: the aggregator; `close` closes it.
            identity: our certified key.
            run_id: the run.
            run_dir: where its keys, ledger and outbox are kept.
            log: told of progress.
            minimum_roster: the fewest banks that we go on with.
            encryption_processes: how many helpers encrypt, see `CipherPool`.
            costs: told what each sum takes; by default one of our own.

        Raises:
            LocalError: the run would go on with fewer banks than we accept.
            RunAborted: it has ended.
        """
        self.client = client
        self.bank = client.bank
        self.run_id = run_id
        #: What its sums have cost so far.
        self.costs = costs or SumCosts()
        self._identity, self._log, self._run_dir = identity, log, run_dir
        self._processes, self._minimum = encryption_processes, minimum_roster
        self._roster = Roster()
        self._held: AgreedState | None = None
        self._replaying = False
        run_dir.mkdir(parents=True, exist_ok=True)
        self._ledger = Ledger(run_dir / "ledger.jsonl")
        client.outbox.follow(run_dir / "outbox.jsonl")
        self._watch = RunWatch(client, run_id, log, on_abort=self.end)
        self._watch.check_alive()
        settings = self.view.settings
        if len(settings.roster) > 1 and settings.minimum_roster < minimum_roster:
            raise LocalError(
                f"run {run_id} may go on with {settings.minimum_roster} banks, bank {self.bank} accepts no fewer than "
                f"{minimum_roster} (minimum_roster in its configuration): with two, each can compute the other's sums"
            )

    @property
    def view(self) -> RunView:
        """What the aggregator said of the run when we last looked."""
        return self._watch.view

    @property
    def members(self) -> tuple[str, ...]:
        """The banks that the run goes on with, sorted; none before the key exchange."""
        return self._roster.members

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
        self._watch.view = self.client.join(self._join_request(contract_fingerprint))
        if own_contract:
            self._ledger.note("contract", durable=True, fingerprint=contract_fingerprint, own=own_contract)
        self._log(f"joined {self.run_id}: {len(self.view.joined)} of {len(self.view.roster)} banks are in")

    def decline(self, contract_fingerprint: str, reason: str) -> None:
        """Say that we don't join, and why, in words for the consortium; harmless once the run has begun."""
        if not self.reached(Phase.KEYING):
            request = self._join_request(contract_fingerprint, declined=reason[:MAX_DETAIL_CHARS])
            self._watch.view = self.client.join(request)
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
        if self.reached(Phase.BINNING):
            # All members report KEYING before that, and we note our anchor before we do.
            raise LocalError(
                f"run {self.run_id}: bank {self.bank} has no record of its key exchange in {self._ledger.path}, though "
                "the run is past it: the ledger was emptied or replaced. Put it back, or leave the run to the others"
            )
        with self._fail_closed():
            while True:
                try:
                    self._agree_on_keys()
                    break
                except RosterChanged as change:
                    self._log(str(change))
                    self._await_change()
        self._log(f"keys agreed by {len(self.members)} banks: the HE key is at the banks only, masks are pairwise")

    def secure_sum(self, step: str, vector: Integers, *, bound: int | None = None) -> Integers:
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
        agreed = self._agreed("secure sums come")
        with self._fail_closed(step):
            return secure_sum(agreed, step, vector, bound=bound, ledger=self._ledger, ask=self._ask, costs=self.costs)

    def commit(self, name: str, digest: str) -> None:
        """Note, durably, that everything up to here is agreed and made `digest`: a point to go on from."""
        chain = self._agreed("points to go on from come").chain
        before = chain.value
        state = chain.agreed(name, digest)
        self._ledger.note("anchor", durable=True, name=name, before=before.hex(), state=state.hex(), digest=digest)

    def rewind(self, name: str) -> None:
        """Go back to the point that `commit` noted under `name`, to repeat what came after it."""
        chain = self._agreed("points to go back to come").chain
        chain.value = bytes.fromhex(self._ledger.rewind(name).state)

    def adopt_roster(self) -> None:
        """Take the run's smaller roster after a `RosterChanged`.

        Raises:
            RunAborted: we are the one that was dropped, or the run has ended.
            ProtocolViolation: the roster grew, shrank below the minimum, or an attempt was counted wrongly; or the
                aggregator says that it changed, and shows the same one.
        """
        with self._fail_closed():
            self._await_change()
            self._take_roster()
        self._log(f"attempt {self._roster.attempt}: going on with {', '.join(self.members)}")

    def report(
        self, phase: Phase, digest: str, *, accept: bool = True, metrics_json: str = "", detail: str = ""
    ) -> None:
        """Say that we ended a phase, wait until all banks have, and check that they signed the same.

        Raises:
            RosterChanged: a bank was dropped before all had reported; `adopt_roster` and report again.
            Equivocation: the banks did not end it alike.
        """
        agreed = self._agreed("reports come")
        told = (self.view.audit_records, self.view.audit_digest)
        ours = agreed.report(phase, digest, accept=accept, metrics_json=metrics_json, detail=detail, audit=told)
        with self._fail_closed():
            self._watch.view = self.client.report(ours)
            self.wait_for(next_phase(phase))
            given = self.client.reports(self.run_id, phase)
            check_reports(ours, given, self.members, agreed.peers.run_keys)
            self._ledger.note("report", durable=True, phase=phase.value, reports=reports_record(given, self.members))

    def wait_for(self, phase: Phase) -> None:
        """Wait until the run has reached a phase or gone beyond it.

        Raises:
            RosterChanged: a bank was dropped while waiting.
            RunAborted: the run ended.
            AggregatorUnreachable: nothing at all happened for longer than the run's own deadlines allow.
        """
        self._watch.wait_for(phase, self._roster.attempt if self.members else None)

    def reached(self, phase: Phase) -> bool:
        """Whether the run is at a phase or beyond."""
        return self._watch.reached(phase)

    def reported(self, phase: Phase) -> bool:
        """Whether all banks have ended a phase alike, and we have checked it."""
        return phase.value in self._ledger.reported

    def end(self) -> None:
        """Wipe the run's keys; the ledger and the outbox stay."""
        RunSecrets.wipe_file(self._run_dir / "secrets.json")
        self._hold(None)

    def close(self) -> None:
        """Close the connection and end the helpers; the run's keys stay, so that it can be taken up again."""
        if self._held is not None:
            self._held.cipher.close()
        self._ledger.close()
        self.client.close()

    # -- keys -------------------------------------------------------------------------------------------------

    def _agree_on_keys(self) -> None:
        self._watch.check_alive()
        self._take_roster()
        secrets = RunSecrets.load_or_make(self._run_dir / "secrets.json")
        keys = agree_on_keys(self._roster, secrets, self._identity, self.client, self._watch)
        start = start_digest(self.view.settings.digest, self._roster.digest, list(keys.announced), keys.public_context)
        state = self._begin(keys.peers, secrets, start).chain.value.hex()
        self._ledger.note("peers", peers=peers_record(keys.announced), settings_digest=self.view.settings.digest)
        self.commit(Point.keys().text, state)
        self.report(Phase.KEYING, state)

    def _begin(self, peers: Peers, secrets: RunSecrets, start: bytes) -> AgreedState:
        agreed = AgreedState.begin(self.run_id, self.bank, self._roster, peers, secrets, start, self._processes)
        self._hold(agreed)
        return agreed

    def _restore(self) -> None:
        """Take the run up from its folder, after a restart."""
        if self._held is not None:
            return
        path = self._run_dir / "secrets.json"
        if not path.exists():
            raise DamagedRunFiles(
                f"run {self.run_id}: bank {self.bank} has wiped its keys; it can't go on with this run"
            )
        secrets = RunSecrets.load_or_make(path)
        peers = Peers.of(self.run_id, self.bank, secrets, peers_from_record(self.run_id, self._ledger.peers))
        attempt = self._ledger.attempt
        self._roster = Roster(attempt=attempt, members=self._ledger.rosters[attempt])
        agreed = self._begin(peers, secrets, b"")
        agreed.chain.value = bytes.fromhex(self._ledger.anchors[-1].state)
        self._replaying = True
        self._log(f"going on with {self.run_id} after '{self._ledger.anchors[-1].name}'")

    # -- inside -----------------------------------------------------------------------------------------------

    def _join_request(self, contract_fingerprint: str, *, declined: str = "") -> JoinRequest:
        return JoinRequest(
            run_id=self.run_id,
            bank=self.bank,
            contract_fingerprint=contract_fingerprint,
            he_fingerprint=HE_FINGERPRINT,
            declined=declined,
        )

    def _ask(self, header: StepHeader, chunks: Callable[[], Iterator[Chunk]]) -> tuple[SumHead, list[bytes]]:
        settings = self.view.settings
        if self._replaying:
            # After a restart the sums of the round under way may be there already.
            found = self.client.sum_of_before(header)
            if found is not None:
                return found
            self._replaying = False
        return self.client.secure_sum(header, chunks, 2.0 * (settings.step_seconds + settings.pause_seconds) + 60.0)

    def _agreed(self, what: str) -> AgreedState:
        if self._held is None:
            raise LocalError(f"run {self.run_id}: {what} after the key exchange")
        return self._held

    def _hold(self, agreed: AgreedState | None) -> None:
        if self._held is not None and (agreed is None or agreed.cipher is not self._held.cipher):
            self._held.cipher.close()
        self._held = agreed

    def _take_roster(self) -> None:
        known = self._ledger.rosters
        roster = checked_roster(self.view, self.bank, self._minimum, known)
        if roster.attempt not in known:
            self._ledger.note("roster", durable=True, attempt=roster.attempt, members=list(roster.members))
        self._roster = roster
        if self._held is not None:
            self._hold(self._held.with_roster(roster))

    def _await_change(self) -> None:
        """Look until the run shows the change that a `RosterChanged` told of; nothing is sent again before."""
        for pause in _CHANGE_PAUSES:
            time.sleep(pause)
            self._watch.look()
            self._watch.check_alive()
            if (self.view.attempt, tuple(sorted(self.view.members))) != (self._roster.attempt, self.members):
                return
        raise ProtocolViolation(
            f"run {self.run_id}: the aggregator says that the roster changed, and shows attempt {self._roster.attempt} "
            f"as before, {len(_CHANGE_PAUSES)} times in {sum(_CHANGE_PAUSES):g} s"
        )

    @contextlib.contextmanager
    def _fail_closed(self, step: str = "") -> Iterator[None]:
        """What the protocol does not allow ends the run for us: evidence noted, others told, keys wiped."""
        try:
            yield
        except ProtocolViolation as found:
            error = found
            if self.run_id not in str(error):
                # What a message or a ciphertext itself can't know.
                where = f"run {self.run_id}" + (f", step {step}" if step else "")
                error = type(found)(f"{where}: {found}")
            self._ledger.note("failure", durable=True, error=type(error).__name__, step=step, text=str(error))
            self._log(f"{type(error).__name__}: {error}; bank {self.bank} leaves the run and wipes its keys")
            with contextlib.suppress(CrossbankError):
                self.client.abort(self.run_id, f"{type(error).__name__}: {error}"[: MAX_DETAIL_CHARS // 2])
            self.end()
            if error is found:
                raise
            raise error from found
        except RunAborted:
            self.end()
            raise
