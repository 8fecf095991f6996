"""Messages to protobuf and back. No sockets, no decisions: whatever does not fit raises `ProtocolViolation`."""

from collections.abc import Iterable, Iterator

from protocol import crossbank_pb2 as pb
from protocol.errors import ProtocolViolation
from protocol.limits import MAX_BATCH_CHUNKS
from protocol.messages import (
    Chunk,
    JoinRequest,
    KeyAnnouncement,
    KeyBundle,
    PhaseReport,
    RunEvent,
    RunSettings,
    RunView,
    SealedKey,
    Statement,
    StepHeader,
    SumHead,
)

__all__ = [
    "announcement_from_pb",
    "announcement_to_pb",
    "batch_from_pb",
    "batches_to_pb",
    "bundle_from_pb",
    "bundle_to_pb",
    "chunk_from_pb",
    "chunk_to_pb",
    "head_from_pb",
    "head_to_pb",
    "header_from_pb",
    "header_to_pb",
    "join_from_pb",
    "join_to_pb",
    "report_from_pb",
    "report_to_pb",
    "settings_from_pb",
    "settings_to_pb",
    "view_from_pb",
    "view_to_pb",
]


#: Chunks a message of a stream: few enough that sending overlaps encrypting.
_STREAMED_CHUNKS = 4


def settings_to_pb(value: RunSettings) -> pb.RunSettings:
    """Encode `RunSettings`."""
    return pb.RunSettings(
        title=value.title,
        roster=value.roster,
        contract_fingerprint=value.contract_fingerprint,
        parameters_json=value.parameters_json,
        rounds=value.rounds,
        enrol_seconds=value.enrol_seconds,
        step_seconds=value.step_seconds,
        minimum_roster=value.minimum_roster,
        pause_seconds=value.pause_seconds,
    )


def settings_from_pb(message: pb.RunSettings) -> RunSettings:
    """Decode and validate `RunSettings`."""
    return RunSettings(
        title=message.title,
        roster=tuple(message.roster),
        contract_fingerprint=message.contract_fingerprint,
        parameters_json=message.parameters_json,
        rounds=message.rounds,
        enrol_seconds=message.enrol_seconds,
        step_seconds=message.step_seconds,
        minimum_roster=message.minimum_roster,
        pause_seconds=message.pause_seconds,
    )


def view_to_pb(value: RunView) -> pb.RunView:
    """Encode `RunView`."""
    return pb.RunView(
        run_id=value.run_id,
        phase=value.phase,
        settings=settings_to_pb(value.settings),
        joined=value.joined,
        reported=value.reported,
        step=value.step,
        rounds_done=value.rounds_done,
        bytes_received=value.bytes_received,
        reason=value.reason,
        model_sha256=value.model_sha256,
        metrics_json=value.metrics_json,
        created_at=value.created_at,
        updated_at=value.updated_at,
        events=[pb.RunEvent(seq=e.seq, at=e.at, bank=e.bank, text=e.text) for e in value.events],
        members=value.members,
        attempt=value.attempt,
        waiting_for=value.waiting_for,
        paused_since=value.paused_since,
        audit_records=value.audit_records,
        audit_digest=value.audit_digest,
    )


def view_from_pb(message: pb.RunView) -> RunView:
    """Decode and validate `RunView`."""
    return RunView(
        run_id=message.run_id,
        phase=message.phase,
        settings=settings_from_pb(message.settings),
        joined=tuple(message.joined),
        reported=tuple(message.reported),
        step=message.step,
        rounds_done=message.rounds_done,
        bytes_received=message.bytes_received,
        reason=message.reason,
        model_sha256=message.model_sha256,
        metrics_json=message.metrics_json,
        created_at=message.created_at,
        updated_at=message.updated_at,
        events=tuple(RunEvent(seq=e.seq, at=e.at, bank=e.bank, text=e.text) for e in message.events),
        members=tuple(message.members),
        attempt=message.attempt,
        waiting_for=tuple(message.waiting_for),
        paused_since=message.paused_since,
        audit_records=message.audit_records,
        audit_digest=message.audit_digest,
    )


def join_to_pb(value: JoinRequest) -> pb.JoinRequest:
    """Encode `JoinRequest`."""
    return pb.JoinRequest(
        run_id=value.run_id,
        bank=value.bank,
        contract_fingerprint=value.contract_fingerprint,
        he_fingerprint=value.he_fingerprint,
        declined=value.declined,
    )


def join_from_pb(message: pb.JoinRequest) -> JoinRequest:
    """Decode and validate `JoinRequest`."""
    return JoinRequest(
        run_id=message.run_id,
        bank=message.bank,
        contract_fingerprint=message.contract_fingerprint,
        he_fingerprint=message.he_fingerprint,
        declined=message.declined,
    )


def announcement_to_pb(value: KeyAnnouncement) -> pb.KeyAnnouncement:
    """Encode `KeyAnnouncement`."""
    return pb.KeyAnnouncement(
        run_id=value.run_id,
        bank=value.bank,
        x25519_public=value.x25519_public,
        ed25519_public=value.ed25519_public,
        certificate_pem=value.certificate_pem,
        signature=value.signature,
    )


def announcement_from_pb(message: pb.KeyAnnouncement) -> KeyAnnouncement:
    """Decode and validate `KeyAnnouncement`."""
    return KeyAnnouncement(
        run_id=message.run_id,
        bank=message.bank,
        x25519_public=message.x25519_public,
        ed25519_public=message.ed25519_public,
        certificate_pem=message.certificate_pem,
        signature=message.signature,
    )


def bundle_to_pb(value: KeyBundle) -> pb.KeyBundle:
    """Encode `KeyBundle`."""
    return pb.KeyBundle(
        run_id=value.run_id,
        bank=value.bank,
        public_context=value.public_context,
        sealed_context=value.sealed_context,
        sealed=[pb.SealedKey(recipient=s.recipient, box=s.box) for s in value.sealed],
        signature=value.signature,
    )


def bundle_from_pb(message: pb.KeyBundle) -> KeyBundle:
    """Decode and validate `KeyBundle`."""
    return KeyBundle(
        run_id=message.run_id,
        bank=message.bank,
        public_context=message.public_context,
        sealed_context=message.sealed_context,
        sealed=tuple(SealedKey(recipient=s.recipient, box=s.box) for s in message.sealed),
        signature=message.signature,
    )


def header_to_pb(value: StepHeader) -> pb.StepHeader:
    """Encode `StepHeader`."""
    return pb.StepHeader(
        run_id=value.run_id,
        bank=value.bank,
        step=value.step,
        attempt=value.attempt,
        chunks=value.chunks,
        length=value.length,
        he_fingerprint=value.he_fingerprint,
        roster_digest=value.roster_digest,
        state=value.state,
        signature=value.signature,
    )


def header_from_pb(message: pb.StepHeader) -> StepHeader:
    """Decode and validate `StepHeader`."""
    return StepHeader(
        run_id=message.run_id,
        bank=message.bank,
        step=message.step,
        attempt=message.attempt,
        chunks=message.chunks,
        length=message.length,
        he_fingerprint=message.he_fingerprint,
        roster_digest=message.roster_digest,
        state=message.state,
        signature=message.signature,
    )


def head_to_pb(value: SumHead) -> pb.SumHead:
    """Encode `SumHead`."""
    return pb.SumHead(
        pending=value.pending,
        attempt=value.attempt,
        statements=[pb.Statement(bank=s.bank, state=s.state, signature=s.signature) for s in value.statements],
    )


def head_from_pb(message: pb.SumHead) -> SumHead:
    """Decode and validate `SumHead`."""
    return SumHead(
        pending=message.pending,
        attempt=message.attempt,
        statements=tuple(Statement(bank=s.bank, state=s.state, signature=s.signature) for s in message.statements),
    )


def chunk_to_pb(value: Chunk) -> pb.Chunk:
    """Encode `Chunk`."""
    return pb.Chunk(index=value.index, ciphertext=value.ciphertext)


def chunk_from_pb(message: pb.Chunk) -> Chunk:
    """Decode and validate `Chunk`."""
    return Chunk(index=message.index, ciphertext=message.ciphertext)


def batches_to_pb(chunks: Iterable[Chunk]) -> Iterator[pb.ChunkBatch]:
    """Encode chunks as they come, a few a message."""
    waiting: list[pb.Chunk] = []
    for chunk in chunks:
        waiting.append(chunk_to_pb(chunk))
        if len(waiting) == _STREAMED_CHUNKS:
            yield pb.ChunkBatch(chunks=waiting)
            waiting = []
    if waiting:
        yield pb.ChunkBatch(chunks=waiting)


def batch_from_pb(message: pb.ChunkBatch) -> list[Chunk]:
    """Decode and validate the chunks of one message."""
    if not 1 <= len(message.chunks) <= MAX_BATCH_CHUNKS:
        raise ProtocolViolation(f"a batch must hold 1 to {MAX_BATCH_CHUNKS} chunks, not {len(message.chunks)}")
    return [chunk_from_pb(chunk) for chunk in message.chunks]


def report_to_pb(value: PhaseReport) -> pb.PhaseReport:
    """Encode `PhaseReport`."""
    return pb.PhaseReport(
        run_id=value.run_id,
        bank=value.bank,
        phase=value.phase,
        digest=value.digest,
        accept=value.accept,
        metrics_json=value.metrics_json,
        detail=value.detail,
        attempt=value.attempt,
        roster_digest=value.roster_digest,
        state=value.state,
        signature=value.signature,
        audit_records=value.audit_records,
        audit_digest=value.audit_digest,
    )


def report_from_pb(message: pb.PhaseReport) -> PhaseReport:
    """Decode and validate `PhaseReport`."""
    return PhaseReport(
        run_id=message.run_id,
        bank=message.bank,
        phase=message.phase,
        digest=message.digest,
        accept=message.accept,
        metrics_json=message.metrics_json,
        detail=message.detail,
        attempt=message.attempt,
        roster_digest=message.roster_digest,
        state=message.state,
        signature=message.signature,
        audit_records=message.audit_records,
        audit_digest=message.audit_digest,
    )
