"""A bank's table or view in PostgreSQL or Spark, as an Ibis table; and in what the engines differ. Computes no feature.

The feature expressions are the same on every engine. Only two things must be said in an engine's own words: how a
window is told to it, and how a time becomes whole microseconds. That is a `Dialect`.

A configuration names where the table is and never a password: PostgreSQL's own password file or service file has it.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from features.errors import SourceError
from features.sources.dialects import DIALECTS, Dialect

if TYPE_CHECKING:
    import ibis.expr.types as ir

__all__ = ["BankTable", "OpenTable", "open_table"]

logger = logging.getLogger(__name__)

_TableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*){0,2}$", max_length=200)]


class BankTable(BaseModel):
    """Where a bank's payments are, when they are a table or view of a database.

    Attributes:
        engine: ``postgresql`` or ``spark``.
        table: its name, with the schema (and on Spark the catalogue) before it if it isn't in the default one.
        connection: PostgreSQL: a libpq connection string or URL without a password, for instance
            ``service=warehouse`` or ``host=db dbname=payments user=crossbank passfile=/etc/crossbank/pgpass``.
        master: Spark: where it runs, for instance ``local[*]``, ``yarn`` or ``spark://host:7077``.
        settings: Spark: its own settings, for instance ``spark.sql.warehouse.dir``.
        parquet: Spark: a folder of Parquet files to read as ``table``, for a bank without a metastore.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    engine: Literal["postgresql", "spark"]
    table: _TableName
    connection: str | None = Field(default=None, max_length=2000)
    master: str = "local[*]"
    settings: dict[str, str] = {}
    parquet: str | None = None

    @model_validator(mode="after")
    def _fits_the_engine(self) -> "BankTable":
        if self.engine == "postgresql" and self.connection is None:
            raise ValueError("PostgreSQL needs a connection, for instance service=warehouse")
        if self.engine == "postgresql" and (self.settings or self.parquet):
            raise ValueError("settings and parquet are for Spark")
        if self.engine == "spark" and self.connection is not None:
            raise ValueError("connection is for PostgreSQL; Spark has master and settings")
        return self

    @property
    def label(self) -> str:
        """What messages call it."""
        return f"{self.engine} table {self.table}"

    def __str__(self) -> str:
        return self.label


@dataclass(frozen=True, slots=True)
class OpenTable:
    """A table that can be asked while the block of `open_table` lasts.

    Attributes:
        backend: the Ibis backend.
        rows: the table as it is at the bank.
    """

    source: BankTable
    backend: Any
    rows: "ir.Table"

    @property
    def dialect(self) -> Dialect:
        """The engine's."""
        return DIALECTS[self.source.engine]


@contextmanager
def open_table(source: BankTable) -> Iterator[OpenTable]:
    """Reach the table; reads are all that is done in the database.

    Raises:
        SourceError: the engine's package is not installed, the engine can't be reached, there is no such table, or a
            query fails. The message names the engine and the table, and never a value.
    """
    connect = _postgresql if source.engine == "postgresql" else _spark
    with connect(source) as backend, _asking(source):
        yield OpenTable(source, backend, _table(backend, source))


def _table(backend: Any, source: BankTable) -> "ir.Table":
    import ibis.common.exceptions as ibis_errors

    *place, name = source.table.split(".")
    try:
        return backend.table(name, database=tuple(place) if len(place) > 1 else place[0] if place else None)
    except ibis_errors.TableNotFound:
        raise SourceError(f"There is no {source.label}, or this user may not read it.") from None


@contextmanager
def _asking(source: BankTable) -> Iterator[None]:
    """The engine's complaint as ours, without its text, which may quote the data."""
    foreign: tuple[type[Exception], ...]
    if source.engine == "postgresql":
        import psycopg

        foreign = (psycopg.Error,)
    else:
        import py4j.protocol
        import pyspark.errors

        foreign = (pyspark.errors.PySparkException, py4j.protocol.Py4JError)
    try:
        yield
    except foreign as error:
        code = getattr(error, "sqlstate", None) or type(error).__name__
        raise SourceError(f"A query of {source.label} failed ({code}).") from None


@contextmanager
def _postgresql(source: BankTable) -> Iterator[Any]:
    import ibis

    try:
        import psycopg
        from psycopg.conninfo import conninfo_to_dict
    except ImportError:
        raise SourceError("PostgreSQL needs one more package: pip install 'crossbank[postgres]'.") from None
    try:
        if conninfo_to_dict(source.connection or "").get("password"):
            raise SourceError(f"The connection of {source.label} holds a password; use passfile= or a service file.")
        connection = psycopg.connect(source.connection or "", application_name="crossbank", connect_timeout=30)
    except psycopg.Error as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SourceError(f"PostgreSQL can't be reached for {source.label}: {first}.") from None
    with connection:
        connection.execute("SET default_transaction_read_only = on")
        connection.execute("SET TIME ZONE 'UTC'")
        connection.commit()
        yield ibis.postgres.from_connection(connection)


@contextmanager
def _spark(source: BankTable) -> Iterator[Any]:
    import ibis

    try:
        from pyspark.errors import PySparkException
        from pyspark.sql import SparkSession
    except ImportError:
        raise SourceError("Spark needs one more package: pip install 'crossbank[spark]'.") from None
    running = SparkSession.getActiveSession()
    builder = SparkSession.builder.appName("crossbank").master(source.master)
    for name, value in (_SPARK_SETTINGS | source.settings | {"spark.sql.session.timeZone": "UTC"}).items():
        builder = builder.config(name, value)
    try:
        session = builder.getOrCreate()
    except (PySparkException, OSError) as error:
        raise SourceError(
            f"Spark can't start for {source.label} ({type(error).__name__}): it needs Java 17, and its master."
        ) from None
    try:
        if source.parquet is not None:
            try:
                session.read.parquet(source.parquet).createOrReplaceTempView(source.table)
            except PySparkException:
                raise SourceError(f"Spark can't read Parquet files in {source.parquet}.") from None
        yield ibis.pyspark.connect(session)
    finally:
        if running is None:
            session.stop()


_SPARK_SETTINGS = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
}
"""Ours, where the bank sets nothing else."""
