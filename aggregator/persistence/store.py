"""What the aggregator keeps: runs, members, reports, relayed keys and events. No decisions are made here.

A store that fails says so (`Store.trouble`) until a write succeeds again. The file of an SQLite store that is removed
under the running node is noticed: SQLite itself would go on writing to a file that nobody can find any more.
"""

import contextlib
import json
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from sqlalchemy import (
    Boolean,
    Engine,
    Float,
    Integer,
    LargeBinary,
    String,
    create_engine,
    delete,
    event,
    select,
    update,
)
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from protocol import crossbank_pb2 as pb
from protocol.errors import LocalError, NodeNotReady
from protocol.messages import RunEvent, RunSettings

__all__ = [
    "DATABASE",
    "SUMS",
    "DeclineRow",
    "EventRow",
    "KeyRow",
    "MemberRow",
    "ReportRow",
    "RunRow",
    "Store",
    "Writes",
    "settings_from_json",
    "settings_to_json",
]

logger = logging.getLogger(__name__)

#: The parts of the store that fail, and come back, each by itself: the database and the files of sums.
DATABASE, SUMS = "database", "sums"


class _Base(DeclarativeBase):
    pass


class RunRow(_Base):
    """One run."""

    __tablename__ = "runs"
    run_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    phase: Mapped[str] = mapped_column(String(16))
    settings_json: Mapped[str] = mapped_column(String)
    reason: Mapped[str] = mapped_column(String, default="")
    model_sha256: Mapped[str] = mapped_column(String(64), default="")
    metrics_json: Mapped[str] = mapped_column(String, default="")
    step: Mapped[str] = mapped_column(String(64), default="")
    rounds_done: Mapped[int] = mapped_column(Integer, default=0)
    bytes_received: Mapped[int] = mapped_column(Integer, default=0)
    created_at: Mapped[float] = mapped_column(Float)
    updated_at: Mapped[float] = mapped_column(Float)
    #: How often the roster has shrunk.
    attempt: Mapped[int] = mapped_column(Integer, default=0)
    #: Sums of this unit made before attempt `void_before` are void.
    void_unit: Mapped[str] = mapped_column(String(64), default="")
    void_before: Mapped[int] = mapped_column(Integer, default=0)


class MemberRow(_Base):
    """A bank that has joined a run."""

    __tablename__ = "members"
    run_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    bank: Mapped[str] = mapped_column(String(64), primary_key=True)
    joined_at: Mapped[float] = mapped_column(Float)
    #: Unix seconds when it was dropped for not answering; 0 for a bank that is in.
    dropped_at: Mapped[float] = mapped_column(Float, default=0.0)


class DeclineRow(_Base):
    """A bank that has said that it does not join a run."""

    __tablename__ = "declines"
    run_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    bank: Mapped[str] = mapped_column(String(64), primary_key=True)
    at: Mapped[float] = mapped_column(Float)


class ReportRow(_Base):
    """A bank's report that it ended a phase, with the signed message itself."""

    __tablename__ = "reports"
    run_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    bank: Mapped[str] = mapped_column(String(64), primary_key=True)
    phase: Mapped[str] = mapped_column(String(16), primary_key=True)
    digest: Mapped[str] = mapped_column(String(64))
    accept: Mapped[bool] = mapped_column(Boolean)
    message: Mapped[bytes] = mapped_column(LargeBinary)


class KeyRow(_Base):
    """A relayed key message, encoded: ``kind`` is ``announcement`` or ``bundle``."""

    __tablename__ = "keys"
    run_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    bank: Mapped[str] = mapped_column(String(64), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16), primary_key=True)
    message: Mapped[bytes] = mapped_column(LargeBinary)


class EventRow(_Base):
    """One line of a run's history."""

    __tablename__ = "events"
    run_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    seq: Mapped[int] = mapped_column(Integer, primary_key=True)
    at: Mapped[float] = mapped_column(Float)
    bank: Mapped[str] = mapped_column(String(64))
    text: Mapped[str] = mapped_column(String)


class _ProbeRow(_Base):
    """Written, while the store is in trouble, to see whether it can be written again."""

    __tablename__ = "probe"
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    count: Mapped[int] = mapped_column(Integer)


@dataclass(slots=True)
class Writes:
    """What one change puts into the store, all of it or nothing.

    Attributes:
        rows: inserted, or updated where they are there.
        dropped: banks that leave the run, and when (Unix seconds).
        undeclined: banks that join after all.
        unjoined: banks that had joined and decline before the run has begun.
        forgotten: phases whose reports are void: the roster changed before all had come.
    """

    rows: list[DeclarativeBase] = field(default_factory=list)
    dropped: tuple[Sequence[str], float] = ((), 0.0)
    undeclined: list[str] = field(default_factory=list)
    unjoined: list[str] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)


def settings_to_json(settings: RunSettings) -> str:
    """Settings as canonical JSON."""
    return json.dumps(asdict(settings), sort_keys=True)


def settings_from_json(text: str) -> RunSettings:
    """The inverse of `settings_to_json`."""
    fields = json.loads(text)
    fields["roster"] = tuple(fields["roster"])
    return RunSettings(**fields)


class Store:
    """Opens the database and makes its tables. Each method is one transaction."""

    def __init__(self, url: str) -> None:
        """Open ``sqlite:///path`` (its folder is made) or any other SQLAlchemy URL.

        Raises:
            LocalError: it can't be opened, or its tables can't be made.
        """
        path = Path(url.removeprefix("sqlite:///")) if url.startswith("sqlite:///") else None
        self.folder = Path.cwd() if path is None else path.parent
        self._lock = threading.Lock()
        self._troubles: dict[str, str] = {}
        #: Told the new `trouble` whenever it changes.
        self.on_trouble: Callable[[str], None] = lambda trouble: None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if path is not None and not path.exists():
                logger.warning("there was no store at %s: a new one begins, without runs", path)
            self.engine: Engine = create_engine(url)
            if self.engine.dialect.name == "sqlite":
                event.listen(self.engine, "connect", _sqlite_pragmas)
            _Base.metadata.create_all(self.engine)
            self._file = None if path is None else (path, _identity(path))
        except (OSError, SQLAlchemyError) as error:
            raise LocalError(f"the store {path or 'of the configuration'} can't be opened: {_reason(error)}") from error

    def write(self, run_id: str, writes: Writes) -> None:
        """Keep a change of a run, all of it or nothing.

        Raises:
            NodeNotReady: it could not be kept. After a connection that broke at the last moment it may have been all
                the same: read the run again.
        """
        with self._transaction() as session:
            for row in writes.rows:
                session.merge(row)
            banks, at = writes.dropped
            if banks:
                session.flush()
                session.execute(
                    update(MemberRow).where(MemberRow.run_id == run_id, MemberRow.bank.in_(banks)).values(dropped_at=at)
                )
            if writes.undeclined:
                declined = (DeclineRow.run_id == run_id, DeclineRow.bank.in_(writes.undeclined))
                session.execute(delete(DeclineRow).where(*declined))
            if writes.unjoined:
                members = (MemberRow.run_id == run_id, MemberRow.bank.in_(writes.unjoined))
                session.execute(delete(MemberRow).where(*members))
            if writes.forgotten:
                session.execute(
                    delete(ReportRow).where(ReportRow.run_id == run_id, ReportRow.phase.in_(writes.forgotten))
                )

    def save(self, *rows: _Base) -> None:
        """Insert or update rows."""
        with self._transaction() as session:
            for row in rows:
                session.merge(row)

    @property
    def trouble(self) -> str:
        """Why something of the store can't be written; empty while all can."""
        with self._lock:
            return "; ".join(self._troubles.values())

    def failing(self, part: str) -> bool:
        """Whether the last write to a part failed."""
        return part in self._troubles

    def look(self) -> None:
        """See whether the store is still there and, if it was in trouble, whether it can be written again."""
        if not self.failing(DATABASE):
            with contextlib.suppress(NodeNotReady):
                self._check_file()
            return
        with contextlib.suppress(NodeNotReady), self._transaction() as session:
            row = session.get(_ProbeRow, 1)
            session.merge(_ProbeRow(number=1, count=1 if row is None else row.count + 1))

    def failed(self, why: str, part: str = DATABASE) -> NodeNotReady:
        """Note that a part of the store can't be written; returns the error to raise."""
        self._tell(part, why)
        return NodeNotReady(f"the node can't keep its state ({why}); nothing was changed, try again later")

    def note_failure(self, why: str) -> None:
        """As `failed`, for what goes on all the same."""
        self._tell(DATABASE, why)

    def recovered(self, part: str) -> None:
        """Note that a part of the store was written."""
        if part in self._troubles:
            self._tell(part, "")

    def _check_file(self) -> None:
        if self._file is not None and _identity(self._file[0]) != self._file[1]:
            raise self.failed(
                f"the store {self._file[0].name} was removed or replaced under the running node; "
                "put it back or stop the node and restore a copy"
            )

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[Session]:
        self._check_file()
        try:
            with Session(self.engine) as session, session.begin():
                yield session
        except (SQLAlchemyError, OSError) as error:
            raise self.failed(_reason(error)) from error
        self.recovered(DATABASE)

    def _tell(self, part: str, why: str) -> None:
        before = self.trouble
        with self._lock:
            if why:
                self._troubles[part] = why
            else:
                self._troubles.pop(part, None)
        now = self.trouble
        if now and not before:
            logger.error("the node is not ready: its store fails: %s", now)
        elif before and not now:
            logger.warning("the node's store can be written again: the node is ready")
        if now != before:
            self.on_trouble(now)

    def audit_heads(self) -> list[tuple[str, int, str]]:
        """The ends of the audit log that banks signed in their reports: who and where, records, digest."""
        with Session(self.engine) as session:
            found = [pb.PhaseReport.FromString(body) for body in session.scalars(select(ReportRow.message))]
        return [
            (f"bank {report.bank} in run {report.run_id}, {report.phase},", report.audit_records, report.audit_digest)
            for report in found
            if report.audit_digest
        ]

    def run(self, run_id: str) -> RunRow | None:
        """One run."""
        with Session(self.engine, expire_on_commit=False) as session:
            return session.get(RunRow, run_id)

    def declines(self, run_id: str) -> set[str]:
        """The banks that have said that they don't join a run."""
        with Session(self.engine) as session:
            return set(session.scalars(select(DeclineRow.bank).where(DeclineRow.run_id == run_id)))

    def keys(self, run_id: str) -> list[KeyRow]:
        """The relayed key messages of a run."""
        with Session(self.engine, expire_on_commit=False) as session:
            return list(session.scalars(select(KeyRow).where(KeyRow.run_id == run_id)))

    def runs(self) -> list[RunRow]:
        """All runs, oldest first."""
        with Session(self.engine, expire_on_commit=False) as session:
            return list(session.scalars(select(RunRow).order_by(RunRow.created_at)))

    def members(self, run_id: str) -> list[MemberRow]:
        """The members of a run in the order they joined."""
        with Session(self.engine, expire_on_commit=False) as session:
            query = select(MemberRow).where(MemberRow.run_id == run_id).order_by(MemberRow.joined_at)
            return list(session.scalars(query))

    def reports(self, run_id: str) -> list[ReportRow]:
        """All reports of a run."""
        with Session(self.engine, expire_on_commit=False) as session:
            return list(session.scalars(select(ReportRow).where(ReportRow.run_id == run_id)))

    def events(self, run_id: str) -> list[RunEvent]:
        """A run's history in order."""
        with Session(self.engine, expire_on_commit=False) as session:
            rows = session.scalars(select(EventRow).where(EventRow.run_id == run_id).order_by(EventRow.seq))
            return [RunEvent(seq=r.seq, at=r.at, bank=r.bank, text=r.text) for r in rows]


def _identity(path: Path) -> tuple[int, int]:
    """Which file that is; (0, 0) for none."""
    try:
        status = os.stat(path)
    except OSError:
        return 0, 0
    return status.st_dev, status.st_ino


def _reason(error: Exception) -> str:
    """In a few words, without the statement and its values."""
    if isinstance(error, DBAPIError):
        return str(error.orig).splitlines()[0][:200] if str(error.orig) else type(error.orig).__name__
    if isinstance(error, OSError):
        return str(error.strerror or type(error).__name__)
    return type(error).__name__


def _sqlite_pragmas(connection: object, _record: object) -> None:
    cursor = connection.cursor()  # type: ignore[attr-defined]
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA busy_timeout=10000")
    cursor.close()
