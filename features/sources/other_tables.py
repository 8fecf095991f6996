"""Line-JSON files and spreadsheets as tables of text, every row counted. Interprets no value.

Numbers keep the digits that the file has. A spreadsheet holds numbers as floats of some 15 digits: whole ones beyond
are given as a spreadsheet writes them (9.0072E+15), so that an identifier that lost its digits is found as one.
"""

import gzip
import json
from collections.abc import Collection, Iterator, Sequence
from datetime import date, datetime, time, timedelta
from itertools import islice
from pathlib import Path
from typing import IO, Any

from features.errors import EmptyTableError, SourceError
from features.sources.headers import usable_names
from features.sources.plain_csv import MAX_LINES_BEFORE

__all__ = ["TextRows", "jsonl_rows", "xlsx_rows"]

MAX_LINE_BYTES = 2_000_000
"""A line above this is skipped and counted, as in CSV."""

MAX_SHEET_BYTES = 200_000_000
"""A spreadsheet is read whole; the format ends at a million rows."""

EXACT = 10**15
"""Whole numbers from here on may have lost digits in a spreadsheet."""


class TextRows:
    """Rows of text as they are read, by column.

    Attributes:
        names: every column seen, in the order in which they came.
        columns: for the wanted names that were seen, the text of each row, None for no value.
        rows: data rows read so far, readable or not.
        unreadable: how many of them are not in ``columns``, by reason.
    """

    def __init__(self, wanted: Collection[str]) -> None:
        self.names: dict[str, None] = {}
        self.columns: dict[str, list[str | None]] = {name: [] for name in wanted}
        self.rows = 0
        self.good = 0
        self.unreadable: dict[str, int] = {}

    def add(self, row: dict[str, Any]) -> None:
        """One more row."""
        self.rows += 1
        self.good += 1
        self.names.update(dict.fromkeys(row))
        for name, found in self.columns.items():
            found.append(_text(row.get(name)))

    def refuse(self, reason: str) -> None:
        """One more that can't be read."""
        self.rows += 1
        self.unreadable[reason] = self.unreadable.get(reason, 0) + 1


def jsonl_rows(file: Path, wanted: Collection[str]) -> TextRows:
    """A file of one JSON object a line, UTF-8; empty lines don't count.

    Raises:
        SourceError: the file can't be read, or is compressed and damaged.
    """
    found = TextRows(wanted)
    try:
        with _opened(file) as stream:
            for line in _lines(stream):
                if line is None:
                    found.refuse("line too long")
                    continue
                try:
                    row = json.loads(line, parse_int=str, parse_float=str, parse_constant=str)
                except (ValueError, RecursionError):
                    row = None
                if isinstance(row, dict):
                    found.add(row)
                else:
                    found.refuse("unreadable line")
    except (OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or "it is truncated or damaged"
        raise SourceError(f"File {file} can't be read: {reason}.") from error
    return found


def xlsx_rows(file: Path, wanted: Collection[str], skip: int | None) -> TextRows:
    """The first sheet of a workbook; rows without any value don't count.

    Args:
        skip: rows before the header; None finds the first row that has every wanted name.

    Raises:
        SourceError: it is no workbook, or too large to be read whole.
        EmptyTableError: its first sheet has no row.
    """
    import python_calamine

    try:
        if file.stat().st_size > MAX_SHEET_BYTES:
            raise SourceError(f"File {file} is larger than {MAX_SHEET_BYTES} bytes: export it as CSV.")
        workbook = python_calamine.CalamineWorkbook.from_path(str(file))
        rows = workbook.get_sheet_by_index(0).to_python(skip_empty_area=True)
    except (OSError, python_calamine.CalamineError) as error:
        raise SourceError(f"File {file} is no whole workbook: it is truncated, locked or damaged.") from error
    place = _header_row(rows, wanted) if skip is None else skip
    if place >= len(rows):
        raise EmptyTableError(f"File {file} is empty: its first sheet has no header row.")
    names = usable_names(["" if cell is None else str(cell) for cell in rows[place]])
    found = TextRows(wanted)
    found.names.update(dict.fromkeys(names))
    for row in rows[place + 1 :]:
        if any(cell not in (None, "") for cell in row):
            found.add(dict(zip(names, row, strict=False)))
    return found


def _header_row(rows: Sequence[Sequence[Any]], wanted: Collection[str]) -> int:
    plain = {name.partition("#")[0] for name in wanted}
    for number, row in enumerate(islice(rows, MAX_LINES_BEFORE)):
        if {str(cell).strip() for cell in row} >= plain:
            return number
    return 0


def _text(value: Any) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if not value.is_integer():
            return repr(value)
        return str(int(value)) if abs(value) < EXACT else f"{value:.5E}"
    if isinstance(value, datetime):
        return value.isoformat(" ")
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return str(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _opened(file: Path) -> IO[bytes]:
    return gzip.open(file, "rb") if file.name.lower().endswith(".gz") else file.open("rb")  # type: ignore[return-value]


def _lines(stream: IO[bytes]) -> Iterator[bytes | None]:
    """Each line that is not empty; None for one too long."""
    while line := stream.readline(MAX_LINE_BYTES):
        if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
            while (rest := stream.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                pass
            yield None
        elif line.strip():
            yield line
