"""The bank's gRPC client: one deadline a call, retries where a repeat is safe. It holds no keys but TLS's."""

import logging
import random
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import grpc

from bank_node.config import AggregatorAddress
from bank_node.transport.egress_log import Outbox, RecordingChannel
from protocol import codec
from protocol import crossbank_pb2 as pb
from protocol import crossbank_pb2_grpc as rpc
from protocol.channel import open_channel
from protocol.errors import AggregatorUnreachable, ProtocolViolation, RosterChanged, SubmissionRefused
from protocol.limits import MAX_BATCH_CHUNKS, MAX_CALL_SECONDS, MAX_WAIT_SECONDS
from protocol.messages import Chunk, JoinRequest, KeyAnnouncement, KeyBundle, PhaseReport, RunView, StepHeader, SumHead
from protocol.run_state import Phase
from protocol.status import error_of_call

__all__ = ["BankClient"]

logger = logging.getLogger(__name__)
T = TypeVar("T")

_CALL_SECONDS = 30.0
_FIRST_PAUSE = 0.25
_LONGEST_PAUSE = 8.0


class BankClient:
    """Calls the aggregator as one bank. Every message is idempotent, so lost answers are simply asked for again."""

    def __init__(self, node: AggregatorAddress, bank: str, *, patience_seconds: float = 60.0) -> None:
        """Prepare the channel; nothing is dialled yet.

        Args:
            node: address and TLS files.
            bank: our id.
            patience_seconds: for how long an unreachable aggregator is tried again.
        """
        self.bank = bank
        self._address = node.address
        self._patience = patience_seconds
        self.outbox = Outbox(node.address)
        self._channel = RecordingChannel(open_channel(node.address, node.files), self.outbox)
        self._stub = rpc.ConsortiumStub(self._channel)

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def runs(self) -> list[RunView]:
        """The runs this bank is invited to, newest first."""
        answer = self._call(lambda: self._stub.ListRuns(pb.ListRunsRequest(most=100), timeout=_CALL_SECONDS))
        return [codec.view_from_pb(view) for view in answer.runs]

    def run(self, run_id: str) -> RunView:
        """One run, without its history."""
        ref = pb.RunRef(run_id=run_id, bank=self.bank, events_after=1 << 62)
        return codec.view_from_pb(self._call(lambda: self._stub.GetRun(ref, timeout=_CALL_SECONDS)))

    def join(self, request: JoinRequest) -> RunView:
        """Join a run."""
        message = codec.join_to_pb(request)
        return codec.view_from_pb(self._call(lambda: self._stub.Join(message, timeout=_CALL_SECONDS)))

    def announce_key(self, announcement: KeyAnnouncement) -> RunView:
        """Announce our signed X25519 key."""
        message = codec.announcement_to_pb(announcement)
        return codec.view_from_pb(self._call(lambda: self._stub.AnnounceKey(message, timeout=_CALL_SECONDS)))

    def publish_bundle(self, bundle: KeyBundle) -> RunView:
        """Publish the public HE context and the sealed keys."""
        message = codec.bundle_to_pb(bundle)
        return codec.view_from_pb(self._call(lambda: self._stub.PublishBundle(message, timeout=_CALL_SECONDS)))

    def keys(self, run_id: str) -> tuple[list[KeyAnnouncement], KeyBundle | None]:
        """The announced keys, and the key-making bank's bundle once it is there."""
        keys, bundle, _ = self.keys_and_revocations(run_id)
        return keys, bundle

    def keys_and_revocations(self, run_id: str) -> tuple[list[KeyAnnouncement], KeyBundle | None, bytes]:
        """As `keys`, with the CA's revocation list (PEM; empty if the node has none)."""
        ref = pb.RunRef(run_id=run_id, bank=self.bank)
        answer = self._call(lambda: self._stub.GetKeys(ref, timeout=_CALL_SECONDS))
        bundle = codec.bundle_from_pb(answer.bundle) if answer.HasField("bundle") else None
        return [codec.announcement_from_pb(key) for key in answer.keys], bundle, bytes(answer.crl_pem)

    def reports(self, run_id: str, phase: Phase) -> list[PhaseReport]:
        """All banks' signed reports on a phase."""
        ref = pb.ReportsRef(run_id=run_id, bank=self.bank, phase=phase.value)
        answer = self._call(lambda: self._stub.GetReports(ref, timeout=_CALL_SECONDS))
        return [codec.report_from_pb(report) for report in answer.reports]

    def audit_digest(self, records: int) -> str:
        """The digest of that record of the node's audit log, from 1; empty if the log has not so many."""
        ref = pb.AuditRef(records=records)
        return str(self._call(lambda: self._stub.GetAuditHead(ref, timeout=_CALL_SECONDS)).digest)

    def report(self, report: PhaseReport) -> RunView:
        """Report the end of a phase."""
        message = codec.report_to_pb(report)
        return codec.view_from_pb(self._call(lambda: self._stub.Report(message, timeout=_CALL_SECONDS)))

    def abort(self, run_id: str, reason: str) -> None:
        """End a run for everybody."""
        request = pb.AbortRequest(run_id=run_id, reason=reason)
        self._call(lambda: self._stub.AbortRun(request, timeout=_CALL_SECONDS))

    def secure_sum(
        self, header: StepHeader, chunks: Callable[[], Iterator[Chunk]], limit_seconds: float
    ) -> tuple[SumHead, list[bytes]]:
        """Upload our ciphertexts; return what the banks stated, and the sums, one per chunk in order.

        Args:
            header: announces the step, with our signed statement.
            chunks: makes our ciphertexts afresh for each try.
            limit_seconds: for the whole step, the wait for other banks included.

        Raises:
            RosterChanged: a bank was dropped; the round must be repeated.
            RunAborted, SubmissionRefused, AggregatorUnreachable, ProtocolViolation: none of the sum may be used.
        """
        give_up = time.monotonic() + limit_seconds

        # gRPC rounds deadlines up: stay clear of the cap.
        seconds = min(max(limit_seconds, 60.0), MAX_CALL_SECONDS - 100.0)

        def at_once() -> tuple[SumHead, list[bytes]] | None:
            batch = pb.ChunkBatch(chunks=[codec.chunk_to_pb(chunk) for chunk in chunks()])
            reply = self._stub.SumAtOnce(
                pb.WholeUpload(header=codec.header_to_pb(header), batch=batch), timeout=seconds
            )
            parts = [pb.SumReply(head=reply.head)]
            if reply.HasField("batch"):
                parts.append(pb.SumReply(batch=reply.batch))
            return _read_sums(header, iter(parts))

        def streamed() -> tuple[SumHead, list[bytes]] | None:
            def uploads() -> Iterator[pb.SumUpload]:
                yield pb.SumUpload(header=codec.header_to_pb(header))
                for batch in codec.batches_to_pb(chunks()):
                    yield pb.SumUpload(batch=batch)

            return _read_sums(header, self._stub.SecureSum(uploads(), timeout=seconds))

        found = self._call(at_once if header.chunks <= MAX_BATCH_CHUNKS else streamed)
        pause, told = _FIRST_PAUSE, False
        while found is None:
            if time.monotonic() > give_up:
                raise AggregatorUnreachable(f"run {header.run_id}, step {header.step}: no sum in {limit_seconds:.0f} s")
            asked = time.monotonic()
            found = self._call(lambda: self._await(header))
            if found is None and time.monotonic() - asked < MAX_WAIT_SECONDS / 2:
                # The node holds a call that waits; one that answers at once must not keep us busy.
                if not told:
                    told = True
                    logger.warning(
                        "bank %s: the aggregator at %s answers 'pending' at once to run %s, step %s",
                        self.bank,
                        self._address,
                        header.run_id,
                        header.step,
                    )
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
        return found

    def sum_of_before(self, header: StepHeader) -> tuple[SumHead, list[bytes]] | None:
        """The sums of a step that we may have uploaded before we were restarted; None if it is not made yet."""
        try:
            return self._call(lambda: self._await(header))
        except (SubmissionRefused, RosterChanged):
            return None

    def _await(self, header: StepHeader) -> tuple[SumHead, list[bytes]] | None:
        request = codec.header_to_pb(header)
        return _read_sums(header, self._stub.AwaitSum(request, timeout=_CALL_SECONDS + MAX_WAIT_SECONDS))

    def _call(self, work: Callable[[], T]) -> T:
        """Do `work`; when the aggregator can't be reached, again, until our patience, from the first failure, ends."""
        give_up, pause = 0.0, _FIRST_PAUSE
        while True:
            try:
                return work()
            except grpc.RpcError as error:
                if self.outbox.failed is not None:
                    raise self.outbox.failed from error
                translated = error_of_call(error, self._address)
                give_up = give_up or time.monotonic() + self._patience
                if not isinstance(translated, AggregatorUnreachable) or time.monotonic() + pause > give_up:
                    raise translated from error
                logger.warning("bank %s: %s; trying again in %.1f s", self.bank, translated, pause)
                # A little chance, so that banks do not all come back at once.
                time.sleep(pause * random.uniform(0.8, 1.2))
                pause = min(2 * pause, _LONGEST_PAUSE)


def _read_sums(header: StepHeader, answers: Iterator[pb.SumReply]) -> tuple[SumHead, list[bytes]] | None:
    """The head and all sums of a reply; None for "pending"."""
    where = f"run {header.run_id}, step {header.step}"
    head: SumHead | None = None
    sums: list[bytes] = []
    for message in answers:
        if head is None:
            if message.WhichOneof("part") != "head":
                raise ProtocolViolation(f"{where}: an answer must begin with its head")
            head = codec.head_from_pb(message.head)
            continue
        for chunk in codec.batch_from_pb(message.batch):
            if chunk.index != len(sums) or len(sums) >= header.chunks:
                raise ProtocolViolation(f"{where}: sums came out of order, or too many")
            sums.append(chunk.ciphertext)
    if head is None:
        raise ProtocolViolation(f"{where}: an empty answer")
    if head.pending:
        return None
    if len(sums) != header.chunks:
        raise ProtocolViolation(f"{where}: {len(sums)} sums came back for {header.chunks} chunks")
    return head, sums
