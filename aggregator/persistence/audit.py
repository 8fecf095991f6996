"""The node's audit log: who was refused what, and what the operator did. Append-only, hash-chained, capped.

Each record holds the SHA-256 of the one before it, so that a record can't be changed or taken out of the middle without
a trace. The end can't be cut off either: banks sign, with each report, the end that they were told. Ids, counts and
reasons only: never payloads, never secrets.
"""

import enum
import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sqlalchemy import Engine, Float, Integer, String, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

__all__ = ["AuditKind", "AuditLog", "AuditRecord"]

logger = logging.getLogger(__name__)

#: Records of one kind from one peer within a minute; more are counted, not kept, so that a flood can't fill the disk.
_MOST_A_MINUTE = 30
_MOST_DETAIL_CHARS = 500
_GENESIS = "0" * 64


class AuditKind(enum.StrEnum):
    """What a record is about."""

    NODE_STARTED = "node started"
    #: The node read its own certificate, or could not use a changed one.
    NODE_CERTIFICATE = "node certificate"
    #: The TLS handshake failed: no certificate, a foreign, expired or self-made one, or no TLS at all.
    HANDSHAKE_REFUSED = "handshake refused"
    #: TLS was fine, but the certificate is revoked, has run out, or is not one of a party.
    CERTIFICATE_REFUSED = "certificate refused"
    #: A party tried to act as another, or beyond its role.
    ACTION_REFUSED = "action refused"
    #: A payload was not what the run announced.
    PAYLOAD_REFUSED = "payload refused"
    #: One certificate asked for more calls, at once or a second, than it may.
    CALLS_LIMITED = "calls limited"
    REVOCATION_LIST_READ = "revocation list read"
    #: A call under way was ended: its certificate was revoked meanwhile, or it kept the node waiting.
    CALL_ENDED = "call ended"


class _Base(DeclarativeBase):
    pass


class _Row(_Base):
    __tablename__ = "audit"
    seq: Mapped[int] = mapped_column(Integer, primary_key=True)
    at: Mapped[float] = mapped_column(Float)
    kind: Mapped[str] = mapped_column(String(32))
    identity: Mapped[str] = mapped_column(String(64))
    serial: Mapped[str] = mapped_column(String(64))
    peer: Mapped[str] = mapped_column(String(128))
    run_id: Mapped[str] = mapped_column(String(64))
    detail: Mapped[str] = mapped_column(String)
    #: How many records like this one were left out before it.
    suppressed: Mapped[int] = mapped_column(Integer)
    previous: Mapped[str] = mapped_column(String(64))
    digest: Mapped[str] = mapped_column(String(64))


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord:
    """One line of the log; `at` in Unix seconds."""

    seq: int
    at: float
    kind: str
    identity: str
    serial: str
    peer: str
    run_id: str
    detail: str
    suppressed: int
    previous: str

    @property
    def digest(self) -> str:
        """SHA-256 over all fields, the previous record's digest included."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


class AuditLog:
    """Writes and checks the log in the node's database."""

    def __init__(self, engine: Engine, now: Callable[[], float] = time.time) -> None:
        self._engine = engine
        self._now = now
        self._lock = threading.Lock()
        self._head: tuple[int, str] | None = None
        self._counts: dict[tuple[str, str], tuple[int, int, int]] = {}
        #: Called when a record could not be written.
        self.on_failure: Callable[[], None] = lambda: None
        _Base.metadata.create_all(engine)

    def record(
        self,
        kind: AuditKind,
        *,
        identity: str = "",
        serial: str = "",
        peer: str = "",
        run_id: str = "",
        detail: str = "",
    ) -> None:
        """Append a record, unless this peer has had its share of this kind for the minute; then it is counted."""
        now = self._now()
        host = identity or peer.rsplit(":", 1)[0]
        with self._lock:
            minute, count, left_out = self._counts.get((kind, host), (0, 0, 0))
            if minute != int(now // 60):
                minute, count = int(now // 60), 0
            if count >= _MOST_A_MINUTE:
                self._counts[kind, host] = (minute, count, left_out + 1)
                return
            if len(self._counts) > 10_000:
                self._counts.clear()
            self._counts[kind, host] = (minute, count + 1, 0)
            try:
                self._append(kind, now, left_out, identity, serial, peer, run_id, detail)
            except SQLAlchemyError as error:
                # What was refused stays refused; the next record of this kind says that one is missing.
                self._counts[kind, host] = (minute, count, left_out + 1)
                logger.error("audit: '%s' of %s can't be recorded: %s", kind, host, type(error).__name__)
                self.on_failure()

    def _append(
        self,
        kind: AuditKind,
        now: float,
        left_out: int,
        identity: str,
        serial: str,
        peer: str,
        run_id: str,
        detail: str,
    ) -> None:
        with Session(self._engine) as session, session.begin():
            last = session.scalars(select(_Row).order_by(_Row.seq.desc()).limit(1)).first()
            record = AuditRecord(
                seq=last.seq + 1 if last else 0,
                at=round(now, 6),
                kind=kind.value,
                identity=identity[:64],
                serial=serial[:64],
                peer=peer[:128],
                run_id=run_id[:64],
                detail=detail[:_MOST_DETAIL_CHARS],
                suppressed=left_out,
                previous=last.digest if last else _GENESIS,
            )
            fields = {name: getattr(record, name) for name in AuditRecord.__slots__}
            session.add(_Row(**fields, digest=record.digest))
        self._head = (record.seq + 1, record.digest)

    def head(self) -> tuple[int, str]:
        """How many records there are, and the last one's digest; none has an empty digest."""
        with self._lock:
            if self._head is None:
                with Session(self._engine) as session:
                    last = session.scalars(select(_Row).order_by(_Row.seq.desc()).limit(1)).first()
                self._head = (0, "") if last is None else (last.seq + 1, last.digest)
            return self._head

    def digest_of(self, number: int) -> str:
        """The digest of the n-th record, from 1; empty if there are not so many."""
        with Session(self._engine) as session:
            row = session.get(_Row, number - 1) if 0 < number < 1 << 62 else None
            return "" if row is None else row.digest

    def anchored(self, heads: Iterable[tuple[str, int, str]]) -> str:
        """What is wrong with the log by the ends of it that others have signed; "" if nothing.

        Args:
            heads: of each, who signed it and where, how many records the log had, and the last one's digest.
        """
        for who, number, digest in heads:
            if self.digest_of(number) != digest:
                return f"record {number} is not what {who} signed: the log was changed, or its end cut off"
        return ""

    def records(self, since: float = 0.0) -> list[AuditRecord]:
        """The records from a time on, oldest first."""
        with Session(self._engine) as session:
            rows = session.scalars(select(_Row).where(_Row.at >= since).order_by(_Row.seq))
            return [_record(row) for row in rows]

    def verify(self) -> tuple[int, str]:
        """How many records hold together from the first on, and what is wrong with the next one ("" if nothing)."""
        previous = _GENESIS
        with Session(self._engine) as session:
            for count, row in enumerate(session.scalars(select(_Row).order_by(_Row.seq))):
                record = _record(row)
                if record.seq != count:
                    return count, f"record {count} is missing"
                if record.previous != previous:
                    return count, f"record {count} does not follow the one before it"
                if record.digest != row.digest:
                    return count, f"record {count} was changed"
                previous = row.digest
            return session.query(_Row).count(), ""


def _record(row: _Row) -> AuditRecord:
    return AuditRecord(**{name: getattr(row, name) for name in AuditRecord.__slots__})
