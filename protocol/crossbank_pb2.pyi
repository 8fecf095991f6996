from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RunSettings(_message.Message):
    __slots__ = ("title", "roster", "contract_fingerprint", "parameters_json", "rounds", "enrol_seconds", "step_seconds", "minimum_roster", "pause_seconds")
    TITLE_FIELD_NUMBER: _ClassVar[int]
    ROSTER_FIELD_NUMBER: _ClassVar[int]
    CONTRACT_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_JSON_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    ENROL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    STEP_SECONDS_FIELD_NUMBER: _ClassVar[int]
    MINIMUM_ROSTER_FIELD_NUMBER: _ClassVar[int]
    PAUSE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    title: str
    roster: _containers.RepeatedScalarFieldContainer[str]
    contract_fingerprint: str
    parameters_json: str
    rounds: int
    enrol_seconds: int
    step_seconds: int
    minimum_roster: int
    pause_seconds: int
    def __init__(self, title: _Optional[str] = ..., roster: _Optional[_Iterable[str]] = ..., contract_fingerprint: _Optional[str] = ..., parameters_json: _Optional[str] = ..., rounds: _Optional[int] = ..., enrol_seconds: _Optional[int] = ..., step_seconds: _Optional[int] = ..., minimum_roster: _Optional[int] = ..., pause_seconds: _Optional[int] = ...) -> None: ...

class RunEvent(_message.Message):
    __slots__ = ("seq", "at", "bank", "text")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    BANK_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    seq: int
    at: float
    bank: str
    text: str
    def __init__(self, seq: _Optional[int] = ..., at: _Optional[float] = ..., bank: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...

class RunView(_message.Message):
    __slots__ = ("run_id", "phase", "settings", "joined", "reported", "step", "rounds_done", "bytes_received", "reason", "model_sha256", "metrics_json", "created_at", "updated_at", "events", "members", "attempt", "waiting_for", "paused_since", "audit_records", "audit_digest")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    JOINED_FIELD_NUMBER: _ClassVar[int]
    REPORTED_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_DONE_FIELD_NUMBER: _ClassVar[int]
    BYTES_RECEIVED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MODEL_SHA256_FIELD_NUMBER: _ClassVar[int]
    METRICS_JSON_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    UPDATED_AT_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    WAITING_FOR_FIELD_NUMBER: _ClassVar[int]
    PAUSED_SINCE_FIELD_NUMBER: _ClassVar[int]
    AUDIT_RECORDS_FIELD_NUMBER: _ClassVar[int]
    AUDIT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    phase: str
    settings: RunSettings
    joined: _containers.RepeatedScalarFieldContainer[str]
    reported: _containers.RepeatedScalarFieldContainer[str]
    step: str
    rounds_done: int
    bytes_received: int
    reason: str
    model_sha256: str
    metrics_json: str
    created_at: float
    updated_at: float
    events: _containers.RepeatedCompositeFieldContainer[RunEvent]
    members: _containers.RepeatedScalarFieldContainer[str]
    attempt: int
    waiting_for: _containers.RepeatedScalarFieldContainer[str]
    paused_since: float
    audit_records: int
    audit_digest: str
    def __init__(self, run_id: _Optional[str] = ..., phase: _Optional[str] = ..., settings: _Optional[_Union[RunSettings, _Mapping]] = ..., joined: _Optional[_Iterable[str]] = ..., reported: _Optional[_Iterable[str]] = ..., step: _Optional[str] = ..., rounds_done: _Optional[int] = ..., bytes_received: _Optional[int] = ..., reason: _Optional[str] = ..., model_sha256: _Optional[str] = ..., metrics_json: _Optional[str] = ..., created_at: _Optional[float] = ..., updated_at: _Optional[float] = ..., events: _Optional[_Iterable[_Union[RunEvent, _Mapping]]] = ..., members: _Optional[_Iterable[str]] = ..., attempt: _Optional[int] = ..., waiting_for: _Optional[_Iterable[str]] = ..., paused_since: _Optional[float] = ..., audit_records: _Optional[int] = ..., audit_digest: _Optional[str] = ...) -> None: ...

class RunRef(_message.Message):
    __slots__ = ("run_id", "bank", "events_after")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    BANK_FIELD_NUMBER: _ClassVar[int]
    EVENTS_AFTER_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    bank: str
    events_after: int
    def __init__(self, run_id: _Optional[str] = ..., bank: _Optional[str] = ..., events_after: _Optional[int] = ...) -> None: ...

class AbortRequest(_message.Message):
    __slots__ = ("run_id", "reason")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    reason: str
    def __init__(self, run_id: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class ListRunsRequest(_message.Message):
    __slots__ = ("most",)
    MOST_FIELD_NUMBER: _ClassVar[int]
    most: int
    def __init__(self, most: _Optional[int] = ...) -> None: ...

class RunList(_message.Message):
    __slots__ = ("runs",)
    RUNS_FIELD_NUMBER: _ClassVar[int]
    runs: _containers.RepeatedCompositeFieldContainer[RunView]
    def __init__(self, runs: _Optional[_Iterable[_Union[RunView, _Mapping]]] = ...) -> None: ...

class JoinRequest(_message.Message):
    __slots__ = ("run_id", "bank", "contract_fingerprint", "he_fingerprint", "declined")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    BANK_FIELD_NUMBER: _ClassVar[int]
    CONTRACT_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    HE_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    DECLINED_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    bank: str
    contract_fingerprint: str
    he_fingerprint: str
    declined: str
    def __init__(self, run_id: _Optional[str] = ..., bank: _Optional[str] = ..., contract_fingerprint: _Optional[str] = ..., he_fingerprint: _Optional[str] = ..., declined: _Optional[str] = ...) -> None: ...

class KeyAnnouncement(_message.Message):
    __slots__ = ("run_id", "bank", "x25519_public", "certificate_pem", "signature", "ed25519_public")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    BANK_FIELD_NUMBER: _ClassVar[int]
    X25519_PUBLIC_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_PEM_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    ED25519_PUBLIC_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    bank: str
    x25519_public: bytes
    certificate_pem: bytes
    signature: bytes
    ed25519_public: bytes
    def __init__(self, run_id: _Optional[str] = ..., bank: _Optional[str] = ..., x25519_public: _Optional[bytes] = ..., certificate_pem: _Optional[bytes] = ..., signature: _Optional[bytes] = ..., ed25519_public: _Optional[bytes] = ...) -> None: ...

class SealedKey(_message.Message):
    __slots__ = ("recipient", "box")
    RECIPIENT_FIELD_NUMBER: _ClassVar[int]
    BOX_FIELD_NUMBER: _ClassVar[int]
    recipient: str
    box: bytes
    def __init__(self, recipient: _Optional[str] = ..., box: _Optional[bytes] = ...) -> None: ...

class KeyBundle(_message.Message):
    __slots__ = ("run_id", "bank", "public_context", "sealed", "signature", "sealed_context")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    BANK_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    SEALED_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    SEALED_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    bank: str
    public_context: bytes
    sealed: _containers.RepeatedCompositeFieldContainer[SealedKey]
    signature: bytes
    sealed_context: bytes
    def __init__(self, run_id: _Optional[str] = ..., bank: _Optional[str] = ..., public_context: _Optional[bytes] = ..., sealed: _Optional[_Iterable[_Union[SealedKey, _Mapping]]] = ..., signature: _Optional[bytes] = ..., sealed_context: _Optional[bytes] = ...) -> None: ...

class KeyList(_message.Message):
    __slots__ = ("keys", "bundle", "crl_pem")
    KEYS_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    CRL_PEM_FIELD_NUMBER: _ClassVar[int]
    keys: _containers.RepeatedCompositeFieldContainer[KeyAnnouncement]
    bundle: KeyBundle
    crl_pem: bytes
    def __init__(self, keys: _Optional[_Iterable[_Union[KeyAnnouncement, _Mapping]]] = ..., bundle: _Optional[_Union[KeyBundle, _Mapping]] = ..., crl_pem: _Optional[bytes] = ...) -> None: ...

class StepHeader(_message.Message):
    __slots__ = ("run_id", "bank", "step", "attempt", "chunks", "length", "he_fingerprint", "roster_digest", "state", "signature")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    BANK_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    HE_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    ROSTER_DIGEST_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    bank: str
    step: str
    attempt: int
    chunks: int
    length: int
    he_fingerprint: str
    roster_digest: bytes
    state: bytes
    signature: bytes
    def __init__(self, run_id: _Optional[str] = ..., bank: _Optional[str] = ..., step: _Optional[str] = ..., attempt: _Optional[int] = ..., chunks: _Optional[int] = ..., length: _Optional[int] = ..., he_fingerprint: _Optional[str] = ..., roster_digest: _Optional[bytes] = ..., state: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class Chunk(_message.Message):
    __slots__ = ("index", "ciphertext")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    CIPHERTEXT_FIELD_NUMBER: _ClassVar[int]
    index: int
    ciphertext: bytes
    def __init__(self, index: _Optional[int] = ..., ciphertext: _Optional[bytes] = ...) -> None: ...

class ChunkBatch(_message.Message):
    __slots__ = ("chunks",)
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    chunks: _containers.RepeatedCompositeFieldContainer[Chunk]
    def __init__(self, chunks: _Optional[_Iterable[_Union[Chunk, _Mapping]]] = ...) -> None: ...

class SumUpload(_message.Message):
    __slots__ = ("header", "batch")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    header: StepHeader
    batch: ChunkBatch
    def __init__(self, header: _Optional[_Union[StepHeader, _Mapping]] = ..., batch: _Optional[_Union[ChunkBatch, _Mapping]] = ...) -> None: ...

class Statement(_message.Message):
    __slots__ = ("bank", "state", "signature")
    BANK_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    bank: str
    state: bytes
    signature: bytes
    def __init__(self, bank: _Optional[str] = ..., state: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class SumHead(_message.Message):
    __slots__ = ("pending", "attempt", "statements")
    PENDING_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    STATEMENTS_FIELD_NUMBER: _ClassVar[int]
    pending: bool
    attempt: int
    statements: _containers.RepeatedCompositeFieldContainer[Statement]
    def __init__(self, pending: _Optional[bool] = ..., attempt: _Optional[int] = ..., statements: _Optional[_Iterable[_Union[Statement, _Mapping]]] = ...) -> None: ...

class SumReply(_message.Message):
    __slots__ = ("head", "batch")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    head: SumHead
    batch: ChunkBatch
    def __init__(self, head: _Optional[_Union[SumHead, _Mapping]] = ..., batch: _Optional[_Union[ChunkBatch, _Mapping]] = ...) -> None: ...

class WholeUpload(_message.Message):
    __slots__ = ("header", "batch")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    header: StepHeader
    batch: ChunkBatch
    def __init__(self, header: _Optional[_Union[StepHeader, _Mapping]] = ..., batch: _Optional[_Union[ChunkBatch, _Mapping]] = ...) -> None: ...

class WholeReply(_message.Message):
    __slots__ = ("head", "batch")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    head: SumHead
    batch: ChunkBatch
    def __init__(self, head: _Optional[_Union[SumHead, _Mapping]] = ..., batch: _Optional[_Union[ChunkBatch, _Mapping]] = ...) -> None: ...

class PhaseReport(_message.Message):
    __slots__ = ("run_id", "bank", "phase", "digest", "accept", "metrics_json", "detail", "attempt", "roster_digest", "state", "signature", "audit_records", "audit_digest")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    BANK_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    ACCEPT_FIELD_NUMBER: _ClassVar[int]
    METRICS_JSON_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    ROSTER_DIGEST_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    AUDIT_RECORDS_FIELD_NUMBER: _ClassVar[int]
    AUDIT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    bank: str
    phase: str
    digest: str
    accept: bool
    metrics_json: str
    detail: str
    attempt: int
    roster_digest: bytes
    state: bytes
    signature: bytes
    audit_records: int
    audit_digest: str
    def __init__(self, run_id: _Optional[str] = ..., bank: _Optional[str] = ..., phase: _Optional[str] = ..., digest: _Optional[str] = ..., accept: _Optional[bool] = ..., metrics_json: _Optional[str] = ..., detail: _Optional[str] = ..., attempt: _Optional[int] = ..., roster_digest: _Optional[bytes] = ..., state: _Optional[bytes] = ..., signature: _Optional[bytes] = ..., audit_records: _Optional[int] = ..., audit_digest: _Optional[str] = ...) -> None: ...

class ReportsRef(_message.Message):
    __slots__ = ("run_id", "bank", "phase")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    BANK_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    bank: str
    phase: str
    def __init__(self, run_id: _Optional[str] = ..., bank: _Optional[str] = ..., phase: _Optional[str] = ...) -> None: ...

class ReportList(_message.Message):
    __slots__ = ("reports",)
    REPORTS_FIELD_NUMBER: _ClassVar[int]
    reports: _containers.RepeatedCompositeFieldContainer[PhaseReport]
    def __init__(self, reports: _Optional[_Iterable[_Union[PhaseReport, _Mapping]]] = ...) -> None: ...

class AuditRef(_message.Message):
    __slots__ = ("records",)
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    records: int
    def __init__(self, records: _Optional[int] = ...) -> None: ...

class AuditHead(_message.Message):
    __slots__ = ("records", "digest", "now", "digest_now")
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    NOW_FIELD_NUMBER: _ClassVar[int]
    DIGEST_NOW_FIELD_NUMBER: _ClassVar[int]
    records: int
    digest: str
    now: int
    digest_now: str
    def __init__(self, records: _Optional[int] = ..., digest: _Optional[str] = ..., now: _Optional[int] = ..., digest_now: _Optional[str] = ...) -> None: ...
