"""The first rows of a bank's payments or labels, from a file, a folder of files, or a table. Keeps nothing on disk."""

import csv
import gzip
import re
import zlib
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any

from features.contract.mapping import CsvFormat
from features.errors import EmptyTableError, SourceError
from features.sources.engines import BankTable, open_table
from features.sources.files import csv_header, engine, kind_of, parquet_header, reading, source_files
from features.sources.other_tables import TextRows, jsonl_rows, xlsx_rows
from features.sources.plain_csv import MAX_LINES_BEFORE
from features.sources.readers import message_columns, message_rows, read_csv

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow

__all__ = ["SAMPLE_ROWS", "Sample", "first_rows", "form_of"]

SAMPLE_ROWS = 50_000
SAMPLE_BYTES = 8_000_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """Rows that were looked at.

    Attributes:
        where: the file's name, or the table's, for messages.
        rows: all their columns, text throughout for a CSV file, where empty is null.
        form: how a CSV file is written; None for other kinds.
        more: the source has more rows than these.
        files: files of the source; 1 for a table.
        messages: the file is of messages or statements, whose columns are known.
        file: which one it is, None for a table.
        unreadable: lines or entries among them that make no row, by reason; of messages only if all were read.
    """

    where: str
    rows: "pyarrow.Table"
    form: CsvFormat | None = None
    more: bool = False
    files: int = 1
    messages: bool = False
    file: Path | None = None
    unreadable: "dict[str, int]"

    def column(self, name: str) -> "pd.Series[Any]":
        """One column, as pandas has it."""
        return self.rows[name].to_pandas()


def first_rows(source: Path | str | BankTable, *, form: CsvFormat | None = None, most: int = SAMPLE_ROWS) -> Sample:
    """The first rows of the first file that has any, or some rows of a table.

    Args:
        form: how CSV files are written, where it is known; found out otherwise.

    Raises:
        SourceError: there is no file or table, or it can't be read.
        EmptyTableError: it has no row.
    """
    if isinstance(source, BankTable):
        with open_table(source) as opened:
            rows = opened.backend.to_pyarrow(opened.rows.limit(most))
        if not len(rows):
            raise EmptyTableError(f"{source} has no row: there is nothing to look at.")
        return Sample(where=str(source), rows=rows, more=len(rows) == most, unreadable={})
    files = source_files(source)
    for file in files:
        sample = _of_file(file, len(files), form, most)
        if sample.rows.num_rows:
            return replace(sample, file=file)
    raise EmptyTableError(f"{source} has no row that can be read: there is nothing to look at.")


def _of_file(file: Path, files: int, form: CsvFormat | None, most: int) -> Sample:
    kind = kind_of(file)
    if kind in ("jsonl", "xlsx"):
        return _text_rows(file, files, kind, most)
    if message_columns(file) is not None:
        return _messages(file, files, most)
    if kind == "parquet":
        parquet_header(file)
        with engine() as connection, reading(file):
            found = connection.con.sql(
                f"SELECT * FROM read_parquet($file) LIMIT {most + 1}", params={"file": str(file)}
            )
            table = found.to_arrow_table()
        return Sample(where=file.name, rows=table.slice(0, most), more=len(table) > most, files=files, unreadable={})
    return _csv_rows(file, files, form, most)


def _csv_rows(file: Path, files: int, form: CsvFormat | None, most: int) -> Sample:
    """The first rows as text, and how the file is written; a copy of the head in UTF-8 is what is read."""
    head, whole = _head(file)
    given = form
    form = form or form_of(head, file.name)
    codec = {"windows-1252": "cp1252", "utf-8": "utf-8-sig"}.get(form.encoding, form.encoding)
    lines = head.decode(codec, "replace").splitlines(keepends=True)
    if not whole:
        del lines[-1:]
    lines = lines[_before_header(lines, form) if form.skip is None else form.skip :]
    plain = form.model_copy(update={"encoding": "utf-8", "skip": 0})
    with NamedTemporaryFile(suffix=".csv") as copy, engine() as connection:
        copy.write("".join(lines).encode())
        copy.flush()
        with reading(file):
            names = tuple(name for name, _ in csv_header(Path(copy.name), form.delimiter, form.quote, "utf-8", file))
            _check_header(file, names)
            raw = read_csv(connection, Path(copy.name), names, plain, file)
            table = connection.to_pyarrow(raw.table.order_by("row_").drop("row_").limit(most))
    more = not whole or raw.rows - sum(raw.unreadable.values()) > most
    return Sample(
        where=file.name, rows=table, form=given or form, more=more, files=files, unreadable=dict(raw.unreadable)
    )


def _check_header(file: Path, names: tuple[str, ...]) -> None:
    """A draft names columns: a line of data taken for the header would put data into it.

    Raises:
        SourceError: the line has numbers or times among its names.
    """
    data = [name for name in names if any(c.isdigit() for c in name) and not any(c.isalpha() for c in name)]
    if len(data) >= 2:
        raise SourceError(
            f"File {file}: the line taken for its header has numbers or times in {len(data)} of {len(names)} cells: it "
            "looks like data. A CSV file needs one line with the columns' names."
        )


def _head(file: Path) -> tuple[bytes, bool]:
    """The first bytes, decompressed, and whether they are all."""
    try:
        with gzip.open(file) if file.name.lower().endswith(".gz") else file.open("rb") as stream:
            head = stream.read(SAMPLE_BYTES)
            return head, not stream.read(1)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or "it is truncated or damaged"
        raise SourceError(f"File {file} can't be read: {reason}.") from error


def form_of(head: bytes, name: str) -> CsvFormat:
    """How a CSV file is written, by its first bytes: encoding, delimiter, quotation marks."""
    encoding = _encoding_of(head)
    codec = {"windows-1252": "cp1252", "utf-8": "utf-8-sig"}.get(encoding, encoding)
    lines = [line for line in head[:200_000].decode(codec, "replace").splitlines()[:60] if line.strip()]
    told = re.fullmatch(r'"?sep=(.)"?', lines[0].strip()) if lines else None
    if told is not None and told.group(1) in ",;\t|":
        delimiter = told.group(1)
    else:
        # The one that most lines have equally often, and often: lines before the header have few.
        delimiter = max(",;\t|", key=lambda each: _steadiness(lines, each))
    return CsvFormat.model_validate({"delimiter": delimiter, "encoding": encoding})


def _steadiness(lines: list[str], delimiter: str) -> tuple[int, int]:
    counts = Counter(line.count(delimiter) for line in lines if delimiter in line)
    if not counts:
        return (0, 0)
    count, times = counts.most_common(1)[0]
    return (times * count, count)


def _encoding_of(head: bytes) -> str:
    if head.startswith(b"\xff\xfe"):
        return "utf-16"
    try:
        head.decode("utf-8")
        return "utf-8"
    except UnicodeDecodeError as error:
        # Cut within a character at the very end is no sign of another encoding.
        if error.start > len(head) - 4:
            return "utf-8"
    # Where they differ Latin-1 has control characters, which no export holds, and windows-1252 the euro and dashes.
    return "windows-1252" if any(0x80 <= byte < 0xA0 for byte in head) else "latin-1"


def _before_header(lines: list[str], form: CsvFormat) -> int:
    """Lines that stand before the header: a title, a period, ``sep=;``. The header has as many cells as most lines."""
    cells = [_cells(line, form) for line in lines[:MAX_LINES_BEFORE]]
    usual = Counter(count for count in cells if count > 1).most_common(1)
    return next((number for number, count in enumerate(cells) if count == usual[0][0]), 0) if usual else 0


def _cells(line: str, form: CsvFormat) -> int:
    try:
        return len(next(csv.reader([line.rstrip("\r\n")], delimiter=form.delimiter, quotechar=form.quote), []))
    except csv.Error:
        return 0


def _text_rows(file: Path, files: int, kind: str, most: int) -> Sample:
    """Line-JSON and spreadsheets: once for the names, once for the values."""
    import pyarrow

    read: Callable[[Collection[str]], TextRows] = (
        partial(jsonl_rows, file) if kind == "jsonl" else lambda wanted: xlsx_rows(file, wanted, None)
    )
    found = read(tuple(read(()).names))
    rows = pyarrow.table(
        {name: pyarrow.array(values[:most], pyarrow.string()) for name, values in found.columns.items()}
    )
    return Sample(where=file.name, rows=rows, more=found.good > most, files=files, unreadable=dict(found.unreadable))


def _messages(file: Path, files: int, most: int) -> Sample:
    """The first rows of messages or statements, without those that are no payments."""
    import pyarrow

    found: list[pyarrow.Table] = []
    unreadable: dict[str, int] = {}
    for rows in message_rows(file, (), unreadable):
        found.append(rows)
        if sum(len(each) for each in found) > most:
            break
    table = pyarrow.concat_tables(found)
    return Sample(
        where=file.name,
        rows=table.slice(0, most),
        more=len(table) > most,
        files=files,
        messages=True,
        unreadable=unreadable,
    )
