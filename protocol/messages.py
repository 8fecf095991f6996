"""The messages, frozen and validated when built. Encoding them is `protocol.codec`'s work."""

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field
from typing import Final

from protocol.errors import ProtocolViolation
from protocol.limits import (
    MAX_ATTEMPTS,
    MAX_BANKS,
    MAX_CHUNKS_PER_STEP,
    MAX_CIPHERTEXT_BYTES,
    MAX_DETAIL_CHARS,
    MAX_ID_CHARS,
    MAX_KEY_BYTES,
    MAX_ROUNDS,
    MAX_SETTINGS_BYTES,
    MIN_CIPHERTEXT_BYTES,
)
from protocol.run_state import Phase
from protocol.steps import Step

__all__ = [
    "WARNING",
    "Chunk",
    "JoinRequest",
    "KeyAnnouncement",
    "KeyBundle",
    "PhaseReport",
    "RunEvent",
    "RunSettings",
    "RunView",
    "SealedKey",
    "Statement",
    "StepHeader",
    "SumHead",
    "check_id",
]

_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*\Z")
#: How an event begins that the operator should look at.
WARNING: Final = "warning: "

_HEX64: Final = re.compile(r"[0-9a-f]{64}\Z")


def check_id(kind: str, value: str) -> str:
    """Return `value` if it may name a bank or run (letters, digits, ``_ . -``), else raise `ProtocolViolation`."""
    if not 0 < len(value) <= MAX_ID_CHARS or not _ID.match(value):
        raise ProtocolViolation(f"a {kind} must be 1 to {MAX_ID_CHARS} letters, digits, '_', '.' or '-'")
    return value


def _check_digest(kind: str, value: str, *, empty: bool = False) -> None:
    if not (empty and value == "") and not _HEX64.match(value):
        raise ProtocolViolation(f"a {kind} must be 64 hexadecimal digits")


def _check_bytes(kind: str, value: bytes, most: int, least: int = 1) -> None:
    if not least <= len(value) <= most:
        raise ProtocolViolation(f"a {kind} must be {least} to {most} bytes, not {len(value)}")


def _check_attempt(value: int) -> None:
    if not 0 <= value <= MAX_ATTEMPTS:
        raise ProtocolViolation(f"an attempt must be 0 to {MAX_ATTEMPTS}")


def _check_detail(value: str) -> None:
    if len(value) > MAX_DETAIL_CHARS:
        raise ProtocolViolation(f"a text may have {MAX_DETAIL_CHARS} characters at most, not {len(value)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """What the operator announces and every bank checks before it joins.

    `roster` names the invited banks; `parameters_json` is the training parameters as canonical JSON;
    deadlines are in seconds: for the roster to join, for one secure sum, and for how long a run waits when too few
    banks answer. A run starts, and goes on, with at least `minimum_roster` banks: 3, unless the roster has one bank
    only (a rehearsal), or the operator says 2, where each bank can compute the other's sums from the total.
    """

    title: str
    roster: tuple[str, ...]
    contract_fingerprint: str
    parameters_json: str
    rounds: int
    enrol_seconds: int = 3600
    step_seconds: int = 600
    minimum_roster: int = 3
    pause_seconds: int = 3600

    def __post_init__(self) -> None:
        _check_detail(self.title)
        if not 1 <= len(self.roster) <= MAX_BANKS or len(set(self.roster)) != len(self.roster):
            raise ProtocolViolation(f"a roster must name 1 to {MAX_BANKS} different banks")
        for bank in self.roster:
            check_id("bank id", bank)
        _check_digest("contract fingerprint", self.contract_fingerprint)
        _check_bytes("parameters document", self.parameters_json.encode(), MAX_SETTINGS_BYTES, 2)
        if not 1 <= self.rounds <= MAX_ROUNDS:
            raise ProtocolViolation(f"a run must have 1 to {MAX_ROUNDS} boosting rounds")
        if not (1 <= self.enrol_seconds <= 30 * 86400 and 1 <= self.step_seconds <= 86400):
            raise ProtocolViolation("deadlines must be positive, at most 30 days to enrol and a day for a step")
        if not 1 <= self.pause_seconds <= 30 * 86400:
            raise ProtocolViolation("a run can pause for 1 second to 30 days")
        if self.minimum_roster < 1 or (self.minimum_roster == 1) != (len(self.roster) == 1):
            raise ProtocolViolation("a run of several banks needs at least 2, and 1 is for a roster of one")
        if self.minimum_roster > len(self.roster):
            raise ProtocolViolation(
                f"a run needs at least {self.minimum_roster} banks, the roster names {len(self.roster)}; "
                "two banks alone are allowed only with a minimum roster of 2: each can then compute the other's sums"
            )

    @property
    def digest(self) -> str:
        """SHA-256 of the settings as canonical JSON."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEvent:
    """One line of a run's history: who did what when (Unix seconds). Ids and counts only."""

    seq: int
    at: float
    bank: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """A run as the aggregator knows it: no sum, no model, no secret."""

    run_id: str
    phase: str
    settings: RunSettings
    joined: tuple[str, ...]
    reported: tuple[str, ...]
    step: str
    rounds_done: int
    bytes_received: int
    reason: str
    model_sha256: str
    metrics_json: str
    created_at: float
    updated_at: float
    events: tuple[RunEvent, ...] = ()
    members: tuple[str, ...] = ()
    attempt: int = 0
    waiting_for: tuple[str, ...] = ()
    paused_since: float = 0.0
    audit_records: int = 0
    audit_digest: str = ""

    def __post_init__(self) -> None:
        check_id("run id", self.run_id)
        if not set(self.members) <= set(self.settings.roster) or len(set(self.members)) != len(self.members):
            raise ProtocolViolation(f"run {self.run_id}: the members are not of the roster")
        if not 0 <= self.attempt <= MAX_ATTEMPTS:
            raise ProtocolViolation(f"run {self.run_id}: attempt {self.attempt} is out of range")
        if self.phase not in Phase.__members__:
            raise ProtocolViolation(f"unknown phase {self.phase[:MAX_ID_CHARS]!r}")

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the node found odd about the run when it was opened."""
        return tuple(event.text for event in self.events if event.text.startswith(WARNING))

    @property
    def roster(self) -> tuple[str, ...]:
        """The invited banks."""
        return self.settings.roster

    @property
    def round_done(self) -> int:
        """Boosting rounds that every bank has finished."""
        return self.rounds_done

    @property
    def rounds_total(self) -> int:
        """Boosting rounds of the whole run."""
        return self.settings.rounds


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinRequest:
    """A bank enters a run and says which contract and HE parameters it uses, or why it does not enter (`declined`)."""

    run_id: str
    bank: str
    contract_fingerprint: str
    he_fingerprint: str
    declined: str = ""

    def __post_init__(self) -> None:
        check_id("run id", self.run_id)
        check_id("bank id", self.bank)
        _check_digest("contract fingerprint", self.contract_fingerprint)
        _check_digest("HE fingerprint", self.he_fingerprint)
        if len(self.declined) > MAX_DETAIL_CHARS or not (self.declined == "" or self.declined.isprintable()):
            raise ProtocolViolation(f"a reason not to join must be at most {MAX_DETAIL_CHARS} printable characters")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyAnnouncement:
    """A bank's public keys for one run, for masks and for statements, signed by its certified key."""

    run_id: str
    bank: str
    x25519_public: bytes
    ed25519_public: bytes
    certificate_pem: bytes
    signature: bytes

    def __post_init__(self) -> None:
        check_id("run id", self.run_id)
        check_id("bank id", self.bank)
        _check_bytes("X25519 key", self.x25519_public, 32, 32)
        _check_bytes("Ed25519 key", self.ed25519_public, 32, 32)
        _check_bytes("certificate", self.certificate_pem, MAX_KEY_BYTES)
        _check_bytes("signature", self.signature, 1024)


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedKey:
    """The run's root secret, sealed by the key-making bank to one recipient's run key (HPKE)."""

    recipient: str
    box: bytes = field(repr=False)

    def __post_init__(self) -> None:
        check_id("bank id", self.recipient)
        _check_bytes("sealed key", self.box, 512)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyBundle:
    """What the key-making bank publishes and signs: the public HE context, the sealed secret one, keys to that."""

    run_id: str
    bank: str
    public_context: bytes
    sealed_context: bytes
    sealed: tuple[SealedKey, ...]
    signature: bytes

    def __post_init__(self) -> None:
        check_id("run id", self.run_id)
        check_id("bank id", self.bank)
        _check_bytes("public context", self.public_context, MAX_KEY_BYTES)
        _check_bytes("sealed HE key", self.sealed_context, MAX_KEY_BYTES)
        _check_bytes("signature", self.signature, 1024)
        if len(self.sealed) > MAX_BANKS:
            raise ProtocolViolation("a key bundle has more boxes than a roster has banks")


@dataclass(frozen=True, slots=True, kw_only=True)
class StepHeader:
    """Announces one bank's upload for one secure sum, with its signed statement: what it holds to be true so far."""

    run_id: str
    bank: str
    step: str
    attempt: int
    chunks: int
    length: int
    he_fingerprint: str
    roster_digest: bytes
    state: bytes
    signature: bytes = b""

    def __post_init__(self) -> None:
        check_id("run id", self.run_id)
        check_id("bank id", self.bank)
        Step.parse(self.step)
        _check_attempt(self.attempt)
        if not 1 <= self.chunks <= MAX_CHUNKS_PER_STEP:
            raise ProtocolViolation(f"step {self.step}: 1 to {MAX_CHUNKS_PER_STEP} chunks, not {self.chunks}")
        if self.length < 1:
            raise ProtocolViolation(f"step {self.step}: a vector must have at least one number")
        _check_digest("HE fingerprint", self.he_fingerprint)
        _check_bytes("roster digest", self.roster_digest, 32, 32)
        _check_bytes("state", self.state, 32, 32)
        _check_bytes("signature", self.signature, 64, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One bank's statement as the aggregator relays it; the rest of what was signed is the step's."""

    bank: str
    state: bytes
    signature: bytes

    def __post_init__(self) -> None:
        check_id("bank id", self.bank)
        _check_bytes("state", self.state, 32, 32)
        _check_bytes("signature", self.signature, 64, 64)


@dataclass(frozen=True, slots=True, kw_only=True)
class SumHead:
    """What comes before a step's sums: whether they are there, by which attempt, and what each bank stated."""

    pending: bool
    attempt: int
    statements: tuple[Statement, ...]

    def __post_init__(self) -> None:
        _check_attempt(self.attempt)
        if len(self.statements) > MAX_BANKS:
            raise ProtocolViolation("more statements than a roster has banks")


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """One ciphertext of a step, up or down."""

    index: int
    ciphertext: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if not 0 <= self.index < MAX_CHUNKS_PER_STEP:
            raise ProtocolViolation(f"chunk {self.index} is out of range")
        _check_bytes("ciphertext", self.ciphertext, MAX_CIPHERTEXT_BYTES, MIN_CIPHERTEXT_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseReport:
    """A bank has ended a phase and says what it ended with: a digest all members must agree on.

    `accept` is the vote in VOTING. `metrics_json` holds published consortium metrics (EVALUATING only).
    `audit_records` and `audit_digest` are the end of the node's audit log as it last told this bank.
    """

    run_id: str
    bank: str
    phase: str
    digest: str
    accept: bool = True
    metrics_json: str = ""
    detail: str = ""
    attempt: int
    roster_digest: bytes
    state: bytes
    signature: bytes = b""
    audit_records: int = 0
    audit_digest: str = ""

    def __post_init__(self) -> None:
        check_id("run id", self.run_id)
        check_id("bank id", self.bank)
        _check_attempt(self.attempt)
        _check_bytes("roster digest", self.roster_digest, 32, 32)
        _check_bytes("state", self.state, 32, 32)
        _check_bytes("signature", self.signature, 64, 0)
        _check_digest("digest of the audit log", self.audit_digest, empty=True)
        if self.phase not in Phase.__members__:
            raise ProtocolViolation(f"unknown phase {self.phase[:MAX_ID_CHARS]!r}")
        _check_digest("digest", self.digest)
        _check_detail(self.detail)
        if len(self.metrics_json) > MAX_SETTINGS_BYTES:
            raise ProtocolViolation("published metrics are too large")
