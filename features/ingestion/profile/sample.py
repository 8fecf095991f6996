"""The first rows of a bank's payments or labels, from a file, a folder of files, or a table. Keeps nothing on disk."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any

from features.contract.mapping import CsvFormat
from features.errors import EmptyTableError, SourceError
from features.sources.engines import BankTable, open_table
from features.sources.files import csv_header, engine, parquet_header, reading, source_files
from features.sources.readers import read_csv

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow

__all__ = ["SAMPLE_ROWS", "Sample", "first_rows"]

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
        messages: the file is an ISO 20022 message, whose columns are known.
        unreadable: lines among them that could not be told into columns, by reason.
    """

    where: str
    rows: "pyarrow.Table"
    form: CsvFormat | None = None
    more: bool = False
    files: int = 1
    messages: bool = False
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
        if sample.messages or sample.rows.num_rows:
            return sample
    raise EmptyTableError(f"{source} has no row that can be read: there is nothing to look at.")


def _of_file(file: Path, files: int, form: CsvFormat | None, most: int) -> Sample:
    ending = file.suffix.lower()
    if ending == ".xml":
        import pyarrow

        return Sample(where=file.name, rows=pyarrow.table({}), files=files, messages=True, unreadable={})
    if ending == ".parquet":
        parquet_header(file)
        with engine() as connection, reading(file):
            found = connection.con.sql(
                f"SELECT * FROM read_parquet($file) LIMIT {most + 1}", params={"file": str(file)}
            )
            table = found.to_arrow_table()
        return Sample(where=file.name, rows=table.slice(0, most), more=len(table) > most, files=files, unreadable={})
    return _csv_rows(file, files, form, most)


def _csv_rows(file: Path, files: int, form: CsvFormat | None, most: int) -> Sample:
    """The first rows as text, and how the file is written."""
    try:
        with file.open("rb") as stream:
            head = stream.read(SAMPLE_BYTES)
    except OSError as error:
        raise SourceError(f"File {file} can't be read: {error.strerror or 'unreadable'}.") from error
    cut = len(head) == SAMPLE_BYTES
    form = form or _form_of(head)
    line_end = "\n".encode("utf-16-le") if form.encoding == "utf-16" else b"\n"
    if cut:
        head = head[: head.rfind(line_end) + len(line_end)]
    names = tuple(name for name, _ in csv_header(file, form.delimiter, form.quote, form.encoding))
    with NamedTemporaryFile(suffix=".csv") as copy, engine() as connection:
        copy.write(head)
        copy.flush()
        with reading(file):
            raw = read_csv(connection, Path(copy.name), names, form)
            table = connection.to_pyarrow(raw.table.order_by("row_").drop("row_").limit(most))
    more = cut or raw.rows - sum(raw.unreadable.values()) > most
    return Sample(where=file.name, rows=table, form=form, more=more, files=files, unreadable=dict(raw.unreadable))


def _form_of(head: bytes) -> CsvFormat:
    encoding = "utf-16" if head.startswith(b"\xff\xfe") else "utf-8"
    if encoding == "utf-8":
        try:
            head.decode("utf-8")
        except UnicodeDecodeError as error:
            # Cut within a character at the very end is no sign of another encoding.
            encoding = "utf-8" if error.start > len(head) - 4 else "latin-1"
    first = head.decode(encoding, "replace").partition("\n")[0]
    return CsvFormat.model_validate({"delimiter": max(",;\t|", key=first.count), "encoding": encoding})
