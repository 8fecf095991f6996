"""One file of a bank's as a table of its own columns in the engine, every line of it counted. Interprets no value.

Parquet keeps its types. CSV is text throughout: UTF-8, UTF-16 or Latin-1, one header line, empty is null. Lines are
counted apart from parsing them, since a parser can lose some: behind an open quote, or in a line of gigabytes.
"""

import codecs
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from features.contract.mapping import CsvFormat
from features.errors import SourceError
from features.sources.files import csv_header, kind_of, parquet_header
from features.sources.iso20022 import ISO20022_COLUMNS, transfers
from features.sources.other_tables import TextRows
from features.sources.swift_mt940 import MT940_COLUMNS, entries

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pyarrow
    from ibis.backends.duckdb import Backend

__all__ = ["RawTable", "message_columns", "message_rows", "read_csv", "read_messages", "read_parquet", "read_text_rows"]

MAX_LINE_BYTES = 2_000_000
"""A CSV line above this is skipped and counted: a payment has a few hundred bytes."""

_CHUNK = 1 << 24
_BLANK_LINE = re.compile(rb"\n\r?(?=\n)")


@dataclass(frozen=True, slots=True, kw_only=True)
class RawTable:
    """A file's rows.

    Attributes:
        table: the wanted columns that the file has, and ``row_``, from 1, among the rows that could be read.
        rows: data rows of the file, readable or not.
        unreadable: how many of them are not in ``table``, by reason.
    """

    table: "ir.Table"
    rows: int
    unreadable: dict[str, int] = field(default_factory=dict)


def read_parquet(connection: "Backend", file: Path, columns: tuple[str, ...]) -> RawTable:
    """Copied into the engine: DuckDB trusts a Parquet file's statistics, which leave NaN out."""
    header = dict(parquet_header(file))
    name = _select(connection, [column for column in columns if column in header], "read_parquet(?)", [str(file)])
    for column in columns:
        if header.get(column) == "null":
            # Nothing but nulls: the engine makes some type of it, as text it can be any.
            connection.con.execute(f"ALTER TABLE {name} ALTER {_identifier(column)} TYPE VARCHAR")
    return RawTable(table=connection.table(name), rows=_count(connection, name))


def read_csv(
    connection: "Backend", file: Path, columns: tuple[str, ...], form: CsvFormat, shown: Path | None = None
) -> RawTable:
    """Lines with too few or too many fields, in another encoding or too long are counted and left out.

    Args:
        file: plain CSV with the header on its first line, see `features.sources.plain_csv`.
        shown: the file that messages name, where ``file`` is a copy of it.
    """
    header = [name for name, _ in csv_header(file, form.delimiter, form.quote, form.encoding, shown)]
    types = ", ".join(f"{_literal(column)}: 'VARCHAR'" for column in header)
    rejects = f"rejects_{uuid.uuid4().hex}"
    scan = (
        f"read_csv(?, auto_detect = false, header = true, columns = {{{types}}}, delim = ?, quote = ?, escape = ?, "
        f"nullstr = '', encoding = ?, max_line_size = {MAX_LINE_BYTES}, strict_mode = true, store_rejects = true, "
        f"rejects_table = '{rejects}', rejects_scan = '{rejects}_scan', rejects_limit = 0)"
    )
    settings = [str(file), form.delimiter, form.quote, form.quote, form.encoding]
    name = _select(connection, [column for column in columns if column in header], scan, settings)
    bad = int(connection.con.execute(f"SELECT count(DISTINCT line) FROM {rejects}").fetchall()[0][0])
    _drop(connection, rejects)
    lines = _data_lines(file, form.encoding) - 1
    swallowed = lines - _count(connection, name) - bad
    if swallowed > 0:
        # Only then a text may have line ends in it: the file is read once more, with all columns.
        inside = _lines_inside(connection, scan, settings, header, form)
        _drop(connection, rejects)
        lines, swallowed = lines - inside, swallowed - inside
    if swallowed < 0:
        raise SourceError(f"File {shown or file} has line ends of several kinds: its rows can't be told apart.")
    reasons = {"unreadable line": bad, "line within a quoted text, or too long": swallowed}
    return RawTable(
        table=connection.table(name), rows=lines, unreadable={each: count for each, count in reasons.items() if count}
    )


def _lines_inside(connection: "Backend", scan: str, settings: list[str], header: list[str], form: CsvFormat) -> int:
    """Lines of the file that are within quoted texts of rows that could be read, such as notes of several lines.

    A line with as many delimiters as a row has is none of them: there an open quote took a row in.
    """
    delimiter, most = _literal(form.delimiter), len(header) - 1
    counts = []
    for column in header:
        # The first part stands on the row's own line; empty lines are no lines of the count.
        parts = f"string_split(replace({_identifier(column)}, chr(13), ''), chr(10))"
        counts.append(
            f"CASE WHEN contains({_identifier(column)}, chr(10)) THEN len(list_filter({parts}[2:-2], "
            f"lambda part: part <> '' AND length(part) - length(replace(part, {delimiter}, '')) < {most})) "
            f"+ (length({parts}[-1]) - length(replace({parts}[-1], {delimiter}, '')) < {most})::INT ELSE 0 END"
        )
    total = " + ".join(f"coalesce({each}, 0)" for each in counts)
    return int(connection.con.execute(f"SELECT coalesce(sum({total}), 0) FROM {scan}", settings).fetchall()[0][0])


def _drop(connection: "Backend", rejects: str) -> None:
    for table in (rejects, f"{rejects}_scan"):
        connection.con.execute(f"DROP TABLE {table}")


def read_text_rows(connection: "Backend", rows: TextRows) -> RawTable:
    """Rows of line-JSON or a spreadsheet; columns that were never seen are left out."""
    import pyarrow

    kept = {name: pyarrow.array(found, pyarrow.string()) for name, found in rows.columns.items() if name in rows.names}
    batch = f"batch_{uuid.uuid4().hex}"
    table = pyarrow.table({**kept, "row_": pyarrow.array(range(1, rows.good + 1), pyarrow.int64())})
    connection.con.register(batch, table)
    name = f"raw_{uuid.uuid4().hex}"
    connection.con.execute(f"CREATE TEMP TABLE {name} AS SELECT * FROM {batch}")
    connection.con.unregister(batch)
    return RawTable(table=connection.table(name), rows=rows.rows, unreadable=dict(rows.unreadable))


def message_columns(file: Path) -> tuple[str, ...] | None:
    """The columns of a file of messages or statements, which its format says; None for other files."""
    return {"xml": ISO20022_COLUMNS, "mt940": MT940_COLUMNS}.get(kind_of(file))


def message_rows(file: Path, own_agents: tuple[str, ...], unreadable: dict[str, int]) -> Iterator["pyarrow.Table"]:
    """The rows of such a file, some thousands at a time, all text.

    Args:
        own_agents: the bank's own BICs, by which a transfer is out or in.
        unreadable: takes what is no row of them, by reason, when all are read.

    Raises:
        SourceError: the file is not whole, or not of its kind.
    """
    import pyarrow

    names = message_columns(file) or ()
    mt940 = kind_of(file) == "mt940"
    for rows in entries(file, unreadable) if mt940 else transfers(file, own_agents, unreadable):
        fields = list(zip(*rows, strict=True)) or [()] * len(names)
        arrays = [pyarrow.array(values, pyarrow.string()) for values in fields]
        yield pyarrow.Table.from_arrays(arrays, names=list(names))


def read_messages(connection: "Backend", file: Path, columns: tuple[str, ...], own_agents: tuple[str, ...]) -> RawTable:
    """The payments of messages or statements; columns are those of `message_columns`, all text."""
    names = message_columns(file) or ()
    whole, batch = f"messages_{uuid.uuid4().hex}", f"batch_{uuid.uuid4().hex}"
    connection.con.execute(f"CREATE TEMP TABLE {whole} ({', '.join(f'{name} VARCHAR' for name in names)})")
    unreadable: dict[str, int] = {}
    for rows in message_rows(file, own_agents, unreadable):
        connection.con.register(batch, rows)
        connection.con.execute(f"INSERT INTO {whole} SELECT * FROM {batch}")
        connection.con.unregister(batch)
    name = _select(connection, [column for column in columns if column in names], whole, [])
    rows_ = _count(connection, name) + sum(unreadable.values())
    return RawTable(table=connection.table(name), rows=rows_, unreadable=unreadable)


def _select(connection: "Backend", columns: list[str], source: str, parameters: list[str]) -> str:
    """A new table of these columns and ``row_``; the engine keeps a file's order, so it numbers the file's rows."""
    name = f"raw_{uuid.uuid4().hex}"
    chosen = "".join(f"{_identifier(column)}, " for column in columns)
    connection.con.execute(
        f"CREATE TEMP TABLE {name} AS SELECT {chosen}row_number() OVER () AS row_ FROM {source}", parameters
    )
    return name


def _count(connection: "Backend", name: str) -> int:
    return int(connection.con.execute(f"SELECT count(*) FROM {name}").fetchall()[0][0])


def _data_lines(file: Path, encoding: str) -> int:
    """Lines that are not empty, the header among them; one pass in bounded memory."""
    lines, tail = 0, b"\n"
    for chunk in _chunks(file, encoding):
        lines += chunk.count(b"\n")
        joined = tail + chunk
        lines -= len(_BLANK_LINE.findall(joined))
        # What lies behind the last line end: enough of it to tell an empty line.
        rest = joined[joined.rfind(b"\n") :]
        tail = rest if len(rest) <= 2 else b"\nxx"
    return lines + (tail not in (b"\n", b"\n\r"))


def _chunks(file: Path, encoding: str) -> Iterator[bytes]:
    """The file's bytes; of UTF-16 (little-endian) those of its text in UTF-8, so that a line end is one byte."""
    decoder = codecs.getincrementaldecoder("utf-16-le")(errors="replace") if encoding == "utf-16" else None
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            yield decoder.decode(chunk).encode("utf-8", "replace") if decoder else chunk


def _identifier(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
