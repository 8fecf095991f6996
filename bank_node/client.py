"""The bank's gRPC client: one deadline a call, retries where a repeat is safe. It holds no keys but TLS's."""

import logging
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import grpc

from bank_node.config import AggregatorAddress
from protocol import codec
from protocol import crossbank_pb2 as pb
from protocol import crossbank_pb2_grpc as rpc
from protocol.channel import open_channel
from protocol.errors import (
    AggregatorUnreachable,
    CrossbankError,
    ProtocolViolation,
    RemoteError,
    RunAborted,
    SubmissionRefused,
)
from protocol.messages import Chunk, JoinRequest, KeyAnnouncement, KeyBundle, PhaseReport, RunView, StepHeader

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
        self._channel = open_channel(node.address, node.files)
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
        """The announced keys, and our sealed box once it is there."""
        ref = pb.RunRef(run_id=run_id, bank=self.bank)
        answer = self._call(lambda: self._stub.GetKeys(ref, timeout=_CALL_SECONDS))
        bundle = codec.bundle_from_pb(answer.bundle) if answer.HasField("bundle") else None
        return [codec.announcement_from_pb(key) for key in answer.keys], bundle

    def report(self, report: PhaseReport) -> RunView:
        """Report the end of a phase."""
        message = codec.report_to_pb(report)
        return codec.view_from_pb(self._call(lambda: self._stub.Report(message, timeout=_CALL_SECONDS)))

    def abort(self, run_id: str, reason: str) -> None:
        """End a run for everybody."""
        request = pb.AbortRequest(run_id=run_id, reason=reason)
        self._call(lambda: self._stub.AbortRun(request, timeout=_CALL_SECONDS))

    def secure_sum(
        self, header: StepHeader, chunks: Callable[[], Iterator[Chunk]], deadline_seconds: float
    ) -> list[bytes]:
        """Upload our ciphertexts and return the sums, one per chunk in order.

        Args:
            header: announces the step.
            chunks: makes our ciphertexts afresh for each try.
            deadline_seconds: for the whole step, the other banks' uploads included.

        Raises:
            RunAborted, SubmissionRefused, AggregatorUnreachable, ProtocolViolation: none of the sum may be used.
        """

        def attempt() -> list[bytes]:
            def uploads() -> Iterator[pb.SumUpload]:
                yield pb.SumUpload(header=codec.header_to_pb(header))
                for batch in codec.batches_to_pb(chunks()):
                    yield pb.SumUpload(batch=batch)

            sums: list[bytes] = []
            for message in self._stub.SecureSum(uploads(), timeout=deadline_seconds):
                for chunk in codec.batch_from_pb(message):
                    if chunk.index != len(sums):
                        raise ProtocolViolation(f"run {header.run_id}, step {header.step}: sums came out of order")
                    sums.append(chunk.ciphertext)
            if len(sums) != header.chunks:
                raise ProtocolViolation(
                    f"run {header.run_id}, step {header.step}: {len(sums)} sums came back for {header.chunks} chunks"
                )
            return sums

        return self._call(attempt)

    def _call(self, work: Callable[[], T]) -> T:
        give_up = time.monotonic() + self._patience
        pause = _FIRST_PAUSE
        while True:
            try:
                return work()
            except grpc.RpcError as error:
                translated = _translate(error, self._address)
                if not isinstance(translated, AggregatorUnreachable) or time.monotonic() + pause > give_up:
                    raise translated from error
                logger.warning("bank %s: %s; trying again in %.1f s", self.bank, translated, pause)
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)


def _translate(error: grpc.RpcError, address: str) -> CrossbankError:
    code, details = grpc.StatusCode.UNKNOWN, ""
    if isinstance(error, grpc.Call):
        code, details = error.code(), str(error.details())
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
        return AggregatorUnreachable(
            f"the aggregator at {address} does not answer; check the address, that it runs, and the certificates"
        )
    if code is grpc.StatusCode.ABORTED:
        return RunAborted(details)
    if code in (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.INVALID_ARGUMENT):
        return SubmissionRefused(details)
    return RemoteError(f"the aggregator at {address} answered {code.name}: {details}")
