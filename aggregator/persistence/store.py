"""What the aggregator keeps: runs, members, reports, relayed keys and events. No decisions are made here."""

import json
from dataclasses import asdict
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
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from protocol.messages import RunEvent, RunSettings

__all__ = ["EventRow", "KeyRow", "MemberRow", "ReportRow", "RunRow", "Store", "settings_from_json", "settings_to_json"]


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
        """Open ``sqlite:///path`` (its folder is made) or any other SQLAlchemy URL."""
        if url.startswith("sqlite:///"):
            Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        self.folder = Path(url.removeprefix("sqlite:///")).parent if url.startswith("sqlite:///") else Path.cwd()
        self.engine: Engine = create_engine(url)
        if self.engine.dialect.name == "sqlite":
            event.listen(self.engine, "connect", _sqlite_pragmas)
        _Base.metadata.create_all(self.engine)

    def save(self, *rows: _Base) -> None:
        """Insert or update rows."""
        with Session(self.engine) as session, session.begin():
            for row in rows:
                session.merge(row)

    def drop(self, row: RunRow, banks: list[str], at: float) -> None:
        """Note that banks left a run, together with the run's new attempt."""
        with Session(self.engine) as session, session.begin():
            session.merge(row)
            session.execute(
                update(MemberRow).where(MemberRow.run_id == row.run_id, MemberRow.bank.in_(banks)).values(dropped_at=at)
            )

    def forget_reports(self, run_id: str, phase: str) -> None:
        """Remove a phase's reports: the roster changed before all had come."""
        with Session(self.engine) as session, session.begin():
            session.execute(delete(ReportRow).where(ReportRow.run_id == run_id, ReportRow.phase == phase))

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


def _sqlite_pragmas(connection: object, _record: object) -> None:
    cursor = connection.cursor()  # type: ignore[attr-defined]
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA busy_timeout=10000")
    cursor.close()
