"""The gRPC surface: decodes, checks who calls, calls the coordinator, encodes. No decisions of its own."""

import logging
import time
from collections.abc import Callable, Iterator
from typing import NoReturn, TypeVar

import grpc
from google.protobuf.message import Message

from aggregator.persistence.sum_files import FinishedSum
from aggregator.rpc.access import AccessControl
from aggregator.runs.coordinator import Coordinator
from aggregator.runs.steps import StepSum
from protocol import codec
from protocol import crossbank_pb2 as pb
from protocol import crossbank_pb2_grpc as rpc
from protocol.errors import CrossbankError, ProtocolViolation, SubmissionRefused
from protocol.limits import MAX_DETAIL_CHARS, MAX_WAIT_SECONDS
from protocol.messages import Chunk, RunView, StepHeader
from protocol.run_state import Phase
from protocol.status import status_of

__all__ = ["ConsortiumService"]

M = TypeVar("M", bound=Message)

logger = logging.getLogger(__name__)

#: How often a waiting call looks whether its bank is still there.
_LOOK_SECONDS = 1.0


def _fail(context: grpc.ServicerContext, error: Exception) -> NoReturn:
    status, text = status_of(error)
    if status is grpc.StatusCode.INTERNAL:
        logger.error("internal error in a call", exc_info=error)
    context.abort(status, text)
    raise AssertionError("unreachable")


def _guarded(context: grpc.ServicerContext, work: Callable[[], M]) -> M:
    try:
        return work()
    except Exception as error:
        _fail(context, error)


def _guarded_stream(context: grpc.ServicerContext, work: Iterator[M]) -> Iterator[M]:
    try:
        yield from work
    except CrossbankError as error:
        _fail(context, error)
    except Exception as error:
        if not context.is_active():
            raise  # the caller has gone; there is nobody to tell
        _fail(context, error)


class ConsortiumService(rpc.ConsortiumServicer):
    """Implements ``crossbank.v1.Consortium`` over a `Coordinator`."""

    def __init__(self, coordinator: Coordinator, access: AccessControl) -> None:
        self._coordinator = coordinator
        self._access = access

    def OpenRun(self, request: pb.RunSettings, context: grpc.ServicerContext) -> pb.RunView:
        """Open a run. Operator only."""
        self._access.operator(context)
        return _guarded(context, lambda: self._view(self._coordinator.open_run(codec.settings_from_pb(request))))

    def AbortRun(self, request: pb.AbortRequest, context: grpc.ServicerContext) -> pb.RunView:
        """End a run: the operator, or one of its banks, which is named in the reason."""
        caller = self._access.caller(context)
        identity, role = caller.identity, caller.role
        reason = request.reason[: MAX_DETAIL_CHARS // 2]

        def work() -> pb.RunView:
            if role == "bank" and identity not in self._coordinator.run(request.run_id).joined:
                raise SubmissionRefused("only a member of the run or the operator may end it")
            told = f"bank {identity} ended it: {reason}" if role == "bank" else reason
            return self._view(self._coordinator.abort_run(request.run_id, told))

        return _guarded(context, work)

    def ListRuns(self, request: pb.ListRunsRequest, context: grpc.ServicerContext) -> pb.RunList:
        """The newest runs; a bank sees those it is invited to."""
        caller = self._access.caller(context)
        identity, role = caller.identity, caller.role

        def work() -> pb.RunList:
            views = self._coordinator.runs(min(request.most or 100, 1000))
            return pb.RunList(runs=[self._view(v) for v in views if role == "operator" or identity in v.roster])

        return _guarded(context, work)

    def GetRun(self, request: pb.RunRef, context: grpc.ServicerContext) -> pb.RunView:
        """One run with its events after ``events_after`` - 1."""
        caller = self._access.caller(context)
        identity, role = caller.identity, caller.role

        def work() -> pb.RunView:
            view = self._coordinator.run(request.run_id, request.events_after - 1)
            if role != "operator" and identity not in view.roster:
                raise SubmissionRefused("no such run")
            return self._view(view)

        return _guarded(context, work)

    def Join(self, request: pb.JoinRequest, context: grpc.ServicerContext) -> pb.RunView:
        """A bank joins."""
        self._access.bank(context, request.bank)
        return _guarded(context, lambda: self._view(self._coordinator.join(codec.join_from_pb(request))))

    def AnnounceKey(self, request: pb.KeyAnnouncement, context: grpc.ServicerContext) -> pb.RunView:
        """A bank announces its signed X25519 key."""
        self._access.bank(context, request.bank)
        return _guarded(
            context, lambda: self._view(self._coordinator.announce_key(codec.announcement_from_pb(request)))
        )

    def PublishBundle(self, request: pb.KeyBundle, context: grpc.ServicerContext) -> pb.RunView:
        """The key-making bank publishes the public context and the sealed keys."""
        self._access.bank(context, request.bank)
        return _guarded(context, lambda: self._view(self._coordinator.publish_bundle(codec.bundle_from_pb(request))))

    def GetKeys(self, request: pb.RunRef, context: grpc.ServicerContext) -> pb.KeyList:
        """The announced keys, and the caller's own sealed box once it is there."""
        bank = self._access.bank(context, request.bank)

        def work() -> pb.KeyList:
            keys, bundle = self._coordinator.keys(request.run_id, bank)
            answer = pb.KeyList(keys=[codec.announcement_to_pb(k) for k in keys], crl_pem=self._access.revoked.pem)
            if bundle is not None:
                answer.bundle.CopyFrom(codec.bundle_to_pb(bundle))
            return answer

        return _guarded(context, work)

    def SecureSum(
        self, request_iterator: Iterator[pb.SumUpload], context: grpc.ServicerContext
    ) -> Iterator[pb.SumReply]:
        """Add a bank's chunks as they arrive; answer with the sums when the roster is complete."""
        try:
            first = next(request_iterator, None)
        except ProtocolViolation as error:
            _fail(context, error)
        if first is None or first.WhichOneof("part") != "header":
            _fail(context, ProtocolViolation("an upload must begin with its header"))
        self._access.bank(context, first.header.bank)

        def work() -> Iterator[pb.SumReply]:
            header = codec.header_from_pb(first.header)
            step = self._coordinator.begin_step(header)
            sent = 0
            while sent < header.chunks and not step.complete:
                part = next(request_iterator, None)
                if part is None or part.WhichOneof("part") != "batch":
                    break
                chunks = codec.batch_from_pb(part.batch)
                self._coordinator.add_chunks(header, step, chunks)
                sent += len(chunks)
            self._coordinator.finish_upload(header, step)
            yield from self._answer(header, step, context)

        yield from _guarded_stream(context, work())

    def SumAtOnce(self, request: pb.WholeUpload, context: grpc.ServicerContext) -> pb.WholeReply:
        """`SecureSum` for a step of one batch."""
        self._access.bank(context, request.header.bank)

        def work() -> pb.WholeReply:
            header = codec.header_from_pb(request.header)
            step = self._coordinator.begin_step(header)
            self._coordinator.add_chunks(header, step, codec.batch_from_pb(request.batch))
            self._coordinator.finish_upload(header, step)
            answer = self._wait(header, step, context)
            if answer is None:
                return pb.WholeReply(head=pb.SumHead(pending=True, attempt=header.attempt))
            chunks = [pb.Chunk(index=index, ciphertext=body) for index, body in enumerate(answer.chunks)]
            return pb.WholeReply(head=codec.head_to_pb(answer.head), batch=pb.ChunkBatch(chunks=chunks))

        return _guarded(context, work)

    def AwaitSum(self, request: pb.StepHeader, context: grpc.ServicerContext) -> Iterator[pb.SumReply]:
        """Answer a bank that has uploaded, or that comes back for a sum it may have missed."""
        self._access.bank(context, request.bank)

        def work() -> Iterator[pb.SumReply]:
            header = codec.header_from_pb(request)
            yield from self._answer(header, self._coordinator.finished_step(header), context)

        yield from _guarded_stream(context, work())

    def _answer(self, header: StepHeader, step: StepSum, context: grpc.ServicerContext) -> Iterator[pb.SumReply]:
        answer = self._wait(header, step, context)
        if answer is None:
            yield pb.SumReply(head=pb.SumHead(pending=True, attempt=header.attempt))
            return
        yield pb.SumReply(head=codec.head_to_pb(answer.head))
        chunks = (Chunk(index=index, ciphertext=body) for index, body in enumerate(answer.chunks))
        for batch in codec.batches_to_pb(chunks):
            yield pb.SumReply(batch=batch)

    def _wait(self, header: StepHeader, step: StepSum, context: grpc.ServicerContext) -> FinishedSum | None:
        give_up = time.monotonic() + MAX_WAIT_SECONDS
        answer = None
        while answer is None and context.is_active() and time.monotonic() < give_up:
            answer = self._coordinator.wait_for_sum(header, step, _LOOK_SECONDS)
        return answer

    def Report(self, request: pb.PhaseReport, context: grpc.ServicerContext) -> pb.RunView:
        """A bank has ended a phase."""
        self._access.bank(context, request.bank)
        return _guarded(context, lambda: self._view(self._coordinator.report(codec.report_from_pb(request))))

    def GetReports(self, request: pb.ReportsRef, context: grpc.ServicerContext) -> pb.ReportList:
        """All signed reports on a phase, for a member to compare."""
        bank = self._access.bank(context, request.bank)

        def work() -> pb.ReportList:
            if request.phase not in Phase.__members__:
                raise ProtocolViolation("unknown phase")
            found = self._coordinator.reports(request.run_id, bank, Phase(request.phase))
            return pb.ReportList(reports=[codec.report_to_pb(report) for report in found])

        return _guarded(context, work)

    def GetAuditHead(self, request: pb.AuditRef, context: grpc.ServicerContext) -> pb.AuditHead:
        """What the audit log was when it had so many records, and its end now."""
        self._access.caller(context)

        def work() -> pb.AuditHead:
            now, digest_now = self._access.audit.head()
            digest = self._access.audit.digest_of(request.records)
            return pb.AuditHead(records=request.records, digest=digest, now=now, digest_now=digest_now)

        return _guarded(context, work)

    def _view(self, view: RunView) -> pb.RunView:
        """A run as it is told, with the audit log's end: what banks sign of it, the node can't take back."""
        message = codec.view_to_pb(view)
        message.audit_records, message.audit_digest = self._access.audit.head()
        return message
