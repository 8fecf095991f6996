"""The messages, frozen and validated when built. Encoding them is `protocol.codec`'s work."""

import re
from dataclasses import dataclass, field
from typing import Final

from protocol.errors import ProtocolViolation
from protocol.limits import (
    MAX_BANKS,
    MAX_CHUNKS_PER_STEP,
    MAX_CIPHERTEXT_BYTES,
    MAX_DETAIL_CHARS,
    MAX_ID_CHARS,
    MAX_KEY_BYTES,
    MAX_SETTINGS_BYTES,
    MIN_CIPHERTEXT_BYTES,
)
from protocol.run_state import Phase

__all__ = [
    "Chunk",
    "JoinRequest",
    "KeyAnnouncement",
    "KeyBundle",
    "PhaseReport",
    "RunEvent",
    "RunSettings",
    "RunView",
    "SealedKey",
    "StepHeader",
    "check_id",
]

_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*\Z")
_STEP: Final = re.compile(r"[a-z]+(/[a-z0-9]+){0,3}\Z")
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


def _check_detail(value: str) -> None:
    if len(value) > MAX_DETAIL_CHARS:
        raise ProtocolViolation(f"a text may have {MAX_DETAIL_CHARS} characters at most, not {len(value)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """What the operator announces and every bank checks before it joins.

    `roster` names the invited banks; `parameters_json` is the training parameters as canonical JSON;
    deadlines are in seconds: for the whole roster to join, and for one secure sum.
    """

    title: str
    roster: tuple[str, ...]
    contract_fingerprint: str
    parameters_json: str
    rounds: int
    enrol_seconds: int = 3600
    step_seconds: int = 600

    def __post_init__(self) -> None:
        _check_detail(self.title)
        if not 1 <= len(self.roster) <= MAX_BANKS or len(set(self.roster)) != len(self.roster):
            raise ProtocolViolation(f"a roster must name 1 to {MAX_BANKS} different banks")
        for bank in self.roster:
            check_id("bank id", bank)
        _check_digest("contract fingerprint", self.contract_fingerprint)
        _check_bytes("parameters document", self.parameters_json.encode(), MAX_SETTINGS_BYTES, 2)
        if not 1 <= self.rounds <= 100_000:
            raise ProtocolViolation("a run must have 1 to 100000 boosting rounds")
        if not (1 <= self.enrol_seconds <= 30 * 86400 and 1 <= self.step_seconds <= 86400):
            raise ProtocolViolation("deadlines must be positive, at most 30 days to enrol and a day for a step")


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

    def __post_init__(self) -> None:
        check_id("run id", self.run_id)
        if self.phase not in Phase.__members__:
            raise ProtocolViolation(f"unknown phase {self.phase[:MAX_ID_CHARS]!r}")

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
    """A bank enters a run and says which contract and HE parameters it uses."""

    run_id: str
    bank: str
    contract_fingerprint: str
    he_fingerprint: str

    def __post_init__(self) -> None:
        check_id("run id", self.run_id)
        check_id("bank id", self.bank)
        _check_digest("contract fingerprint", self.contract_fingerprint)
        _check_digest("HE fingerprint", self.he_fingerprint)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyAnnouncement:
    """A bank's public X25519 key for one run, signed by its certified key."""

    run_id: str
    bank: str
    x25519_public: bytes
    certificate_pem: bytes
    signature: bytes

    def __post_init__(self) -> None:
        check_id("run id", self.run_id)
        check_id("bank id", self.bank)
        _check_bytes("X25519 key", self.x25519_public, 32, 32)
        _check_bytes("certificate", self.certificate_pem, MAX_KEY_BYTES)
        _check_bytes("signature", self.signature, 1024)


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedKey:
    """The run's HE secret key, sealed by the key-making bank to one recipient."""

    recipient: str
    box: bytes = field(repr=False)

    def __post_init__(self) -> None:
        check_id("bank id", self.recipient)
        _check_bytes("sealed key", self.box, MAX_KEY_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyBundle:
    """What the key-making bank publishes: the public HE context, sealed secret keys, a signature over both."""

    run_id: str
    bank: str
    public_context: bytes
    sealed: tuple[SealedKey, ...]
    signature: bytes

    def __post_init__(self) -> None:
        check_id("run id", self.run_id)
        check_id("bank id", self.bank)
        _check_bytes("public context", self.public_context, MAX_KEY_BYTES)
        _check_bytes("signature", self.signature, 1024)
        if len(self.sealed) > MAX_BANKS:
            raise ProtocolViolation("a key bundle has more boxes than a roster has banks")


@dataclass(frozen=True, slots=True, kw_only=True)
class StepHeader:
    """Announces one bank's upload for one secure sum."""

    run_id: str
    bank: str
    step: str
    attempt: int
    chunks: int
    length: int
    he_fingerprint: str

    def __post_init__(self) -> None:
        check_id("run id", self.run_id)
        check_id("bank id", self.bank)
        if len(self.step) > MAX_ID_CHARS or not _STEP.match(self.step):
            raise ProtocolViolation("a step must look like phase/round/index")
        if not 0 <= self.attempt <= 1000:
            raise ProtocolViolation("an attempt must be 0 to 1000")
        if not 1 <= self.chunks <= MAX_CHUNKS_PER_STEP:
            raise ProtocolViolation(f"step {self.step}: 1 to {MAX_CHUNKS_PER_STEP} chunks, not {self.chunks}")
        if self.length < 1:
            raise ProtocolViolation(f"step {self.step}: a vector must have at least one number")
        _check_digest("HE fingerprint", self.he_fingerprint)


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
    """

    run_id: str
    bank: str
    phase: str
    digest: str
    accept: bool = True
    metrics_json: str = ""
    detail: str = ""

    def __post_init__(self) -> None:
        check_id("run id", self.run_id)
        check_id("bank id", self.bank)
        if self.phase not in Phase.__members__:
            raise ProtocolViolation(f"unknown phase {self.phase[:MAX_ID_CHARS]!r}")
        _check_digest("digest", self.digest)
        _check_detail(self.detail)
        if len(self.metrics_json) > MAX_SETTINGS_BYTES:
            raise ProtocolViolation("published metrics are too large")
