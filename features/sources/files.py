"""A bank's payments on disk as Ibis tables on an embedded DuckDB. Does not check what is in them: see `validation`.

A source is one Parquet or CSV file, or a folder of files of one of these kinds. Files with the same columns are read
together as one part, so a folder of a thousand day files is a few scans. CSV is read as text throughout (UTF-8, comma,
double quotes, one header line, empty is null) and cast later, so that a cell that isn't a number is counted and
located, not guessed.
"""

import csv
import re
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from features.errors import ColumnTypeError, EmptyTableError, SourceError
from features.sources.headers import usable_names

if TYPE_CHECKING:
    import ibis.expr.types as ir
    from ibis.backends.duckdb import Backend

__all__ = [
    "Part",
    "Source",
    "csv_header",
    "discard",
    "engine",
    "find_source",
    "kind_of",
    "parquet_header",
    "reading",
    "source_files",
]

_Header = tuple[tuple[str, str], ...]
"""Name and type of each column, in the file's order; files with equal headers are read together."""

MEMORY_LIMIT = "1GB"
"""Above this DuckDB spills to a temporary folder. With more it takes more and is hardly faster."""

ENDINGS = (
    *(".parquet", ".csv", ".csv.gz", ".tsv", ".tsv.gz", ".jsonl", ".ndjson", ".jsonl.gz", ".xlsx", ".xml"),
    *(".sta", ".mt940", ".940", ".swi"),
)
"""Of the files that can be a source; the last are what banks call MT940 files."""

_TOLD_FILES = 5

MAX_HEADER_BYTES = 1_000_000
"""A CSV header line longer than this is not one."""


@dataclass(frozen=True, slots=True)
class Part:
    """Files of one source with the same columns, in the order of their names.

    Attributes:
        null_columns: columns that Parquet declares as having no value at all; they have no type to check.
    """

    files: tuple[Path, ...]
    columns: tuple[str, ...]
    null_columns: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Source:
    """Where the payments are.

    Attributes:
        path: the file or folder the bank named.
        kind: all files of a source are of one kind.
        parts: at least one.
    """

    path: Path
    kind: Literal["parquet", "csv"]
    parts: tuple[Part, ...]

    @property
    def files(self) -> tuple[Path, ...]:
        """All files, in the order of their names: the order in which duplicates are told apart."""
        return tuple(sorted(file for part in self.parts for file in part.files))

    def read(self, connection: "Backend", part: Part) -> "ir.Table":
        """The part as a lazy table, all columns; CSV columns are all strings."""
        names = [str(file) for file in part.files]
        if self.kind == "parquet":
            return connection.read_parquet(names)
        return connection.read_csv(
            names,
            auto_detect=False,
            header=True,
            columns=dict.fromkeys(part.columns, "VARCHAR"),
            delim=",",
            quote='"',
            escape='"',
            nullstr="",
        )

    def load(self, connection: "Backend", part: Part, columns: Sequence[str]) -> "ir.Table":
        """Those of the columns that the part has, copied into the engine, with ``row_number_``, from 0.

        Values are looked at in such a copy only. DuckDB trusts a Parquet file's statistics, which by the format's
        rule leave NaN out, and answers ``isnan`` from them: asked of the file itself, a NaN is not found.
        The engine keeps the files' order, so numbering without an order numbers their rows.
        """
        import ibis

        raw = self.read(connection, part)
        kept = [name for name in columns if name in raw.columns]
        name = f"raw_{uuid.uuid4().hex}"
        return connection.create_table(name, raw.select(*kept, row_number_=ibis.row_number()), temp=True)

    def only(self, file: Path) -> Part:
        """A part of that one file."""
        return next(replace(part, files=(file,)) for part in self.parts if file in part.files)


def find_source(path: Path | str) -> Source:
    """Find the files and read their headers.

    Raises:
        SourceError: there is no such path, no file in the folder, both kinds in one folder, or a file that is
            truncated, damaged or not of its kind. The message names it.
        EmptyTableError: a CSV file without a header line.
    """
    path = Path(path)
    found = source_files(path)
    if kind_of(found[0]) not in ("parquet", "csv") or found[0].suffix.lower() not in (".parquet", ".csv"):
        raise SourceError(f"{path} is neither Parquet nor plain CSV: extract it into a store, with a mapping.")
    kind: Literal["parquet", "csv"] = "parquet" if found[0].suffix.lower() == ".parquet" else "csv"
    groups: dict[_Header, list[Path]] = {}
    for file in found:
        groups.setdefault(parquet_header(file) if kind == "parquet" else csv_header(file), []).append(file)
    parts = tuple(
        Part(tuple(files), tuple(header), frozenset(name for name, kind in header.items() if kind == "null"))
        for header, files in ((dict(header), files) for header, files in groups.items())
    )
    return Source(path, kind, parts)


def source_files(path: Path | str) -> list[Path]:
    """The data files of a source, in the order of their names; their headers are not read.

    Raises:
        SourceError: there is no such path, no file in the folder, both kinds in one folder, or a file beside them that
            would be left out.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if not _is_hidden(file.relative_to(path)) and file.is_file())
        found = [file for file in files if _is_data(file.relative_to(path))]
        if not found:
            raise SourceError(f"Folder {path} has no file that ends in one of {', '.join(sorted(ENDINGS))}.")
        _check_nothing_left_out(path, files, found)
    elif path.is_file():
        found = [path]
        if not _is_data(Path(path.name)):
            raise SourceError(f"File {path} must end in one of {', '.join(sorted(ENDINGS))}.")
    else:
        raise SourceError(f"There is no file or folder {path}.")
    kinds = {kind_of(file) for file in found}
    if len(kinds) > 1:
        raise SourceError(f"Folder {path} has both {' and '.join(sorted(kinds))} files; keep one kind.")
    return found


@contextmanager
def engine(threads: int | None = None) -> Iterator["Backend"]:
    """An embedded DuckDB that lives as long as the block (Ibis sets it to UTC), spilling to a folder of its own.

    Args:
        threads: how many threads it may use; None is all cores.
    """
    import ibis

    with tempfile.TemporaryDirectory(prefix="crossbank-") as folder:
        settings: dict[str, object] = {"memory_limit": MEMORY_LIMIT, "temp_directory": folder}
        if threads is not None:
            settings["threads"] = threads
        connection = ibis.duckdb.connect(**settings)
        # Hundreds of lines in a task's log.
        connection.raw_sql("SET enable_progress_bar = false")
        try:
            yield connection
        finally:
            connection.disconnect()


def discard(connection: "Backend", table: "ir.Table") -> None:
    """Drop a table that `Source.load` made. By hand: Ibis 12 with sqlglot 30 writes DROP TABLE without the name."""
    connection.raw_sql(f"DROP TABLE {table.get_name()}")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn the engine's complaint about a file into ours, without its text: that quotes the data.

    Raises:
        SourceError: a file is damaged; the message has the line number where the engine gives one.
        ColumnTypeError: a column has a type the engine can't read as the contract's.
    """
    import duckdb

    try:
        yield
    except duckdb.ConversionException:
        raise ColumnTypeError(f"{path} holds a value that can't be read as its column's type.") from None
    except (duckdb.InvalidInputException, duckdb.IOException, duckdb.SerializationException) as error:
        line = re.search(r"\bLine: (\d+)", str(error))
        where = f" near line {line.group(1)}" if line else ""
        raise SourceError(f"{path} can't be read to its end: it is truncated or damaged{where}.") from None


def kind_of(file: Path) -> str:
    """What is in a file by its name: csv (also compressed, or with tabs), parquet, xml, jsonl, xlsx or mt940."""
    name = file.name.lower().removesuffix(".gz")
    ending = name.rpartition(".")[2]
    return {"tsv": "csv", "ndjson": "jsonl", "sta": "mt940", "940": "mt940", "swi": "mt940"}.get(ending, ending)


def _is_hidden(relative: Path) -> bool:
    """Names that start with a dot or an underscore are other tools' markers."""
    return any(part.startswith((".", "_")) for part in relative.parts)


def _is_data(relative: Path) -> bool:
    """Data files by name."""
    return not _is_hidden(relative) and relative.name.lower().endswith(ENDINGS)


def _check_nothing_left_out(folder: Path, files: list[Path], data: list[Path]) -> None:
    """Refuse a folder in which payments could lie unread.

    Empty files hold none, nor does one that is named after a data file, as ``jan.csv.sha256`` is.

    Raises:
        SourceError: names the first such files.
    """
    names = set(data)
    left = [
        file.relative_to(folder).as_posix()
        for file in files
        if file not in names and file.stat().st_size and not any(part in names for part in _named_after(file))
    ]
    if left:
        more = f" and {len(left) - _TOLD_FILES} more" if len(left) > _TOLD_FILES else ""
        raise SourceError(
            f"Folder {folder} has {', '.join(left[:_TOLD_FILES])}{more} beside its data, which would be left out. "
            f"Files that are read end in one of {', '.join(sorted(ENDINGS))}: rename what is payments; move the rest "
            "away, or let its name begin with an underscore."
        )


def _named_after(file: Path) -> Iterator[Path]:
    """The files of which this could be a checksum or a mark: its name without one ending, without two, and so on."""
    while file.suffix:
        file = file.with_suffix("")
        yield file


def parquet_header(file: Path) -> _Header:
    import pyarrow
    import pyarrow.parquet

    try:
        schema = pyarrow.parquet.read_schema(file)
    except (pyarrow.ArrowException, OSError) as error:
        raise SourceError(f"File {file} is not a whole Parquet file: it is truncated or damaged.") from error
    return tuple((field.name, str(field.type)) for field in schema)


def _encoding_hint(line: bytes, encoding: str) -> str:
    """What to write where the bytes look like another encoding."""
    from charset_normalizer import from_bytes

    if line.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "; it looks like UTF-16: write csv: {encoding: utf-16}" if encoding != "utf-16" else ""
    best = None if encoding != "utf-8" or b"\0" in line else from_bytes(line, cp_isolation=["cp1252"]).best()
    return "" if best is None else "; it looks like windows-1252: write csv: {encoding: windows-1252}"


def csv_header(
    file: Path, delimiter: str = ",", quote: str = '"', encoding: str = "utf-8", shown: Path | None = None
) -> _Header:
    """The names in the first line of a CSV file, each with the type "text".

    Args:
        shown: the file that messages name, where ``file`` is a copy of it.

    Raises:
        SourceError: it can't be read or is no such line; a file without a byte is an `EmptyTableError`.
    """
    told = shown or file
    try:
        with file.open("rb") as stream:
            line = stream.readline(MAX_HEADER_BYTES + 1)
            if encoding == "utf-16":
                line += stream.read(1)
        if len(line) > MAX_HEADER_BYTES:
            raise SourceError(f"File {told} is not CSV: its first line is longer than {MAX_HEADER_BYTES} bytes.")
        codec = {"utf-8": "utf-8-sig", "windows-1252": "cp1252"}.get(encoding, encoding)
        text = line.decode(codec)
        names = next(csv.reader([text], strict=True, delimiter=delimiter, quotechar=quote), [])
    except OSError as error:
        raise SourceError(f"File {file} can't be read: {error.strerror or 'unreadable'}.") from error
    except (UnicodeDecodeError, csv.Error):
        hint = _encoding_hint(line, encoding)
        raise SourceError(
            f"File {told} is not CSV in {encoding.upper()}: its header line can't be read{hint}."
        ) from None
    if not names:
        raise EmptyTableError(f"File {told} is empty: it has no header line.")
    return tuple((name, "text") for name in usable_names(names))
