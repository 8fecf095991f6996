"""A CSV file as the engine reads it best: uncompressed, in UTF-8, the header on its first line. Interprets no field.

Most files are that already and are read where they lie. Of others a copy is made in a temporary folder that only this
user can read, in bounded memory, and is gone when the block ends.
"""

import codecs
import csv
import gzip
import tempfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from features.contract.mapping import CsvFormat
from features.errors import SourceError

__all__ = ["MAX_LINES_BEFORE", "lines_before_header", "plain_csv"]

MAX_LINES_BEFORE = 50
"""Lines in which a header is looked for: a bank's name, a period, a balance stand before it, not a page."""

MAX_PLAIN_BYTES = 50_000_000_000
"""A compressed file that grows beyond is refused: a year of a large bank's payments is a tenth."""

_CHUNK = 1 << 20
_LINE_BYTES = 200_000
_DECODED = {"windows-1252": "cp1252"}


@contextmanager
def plain_csv(file: Path, form: CsvFormat, wanted: Collection[str]) -> Iterator[tuple[Path, CsvFormat, int]]:
    """The file or its copy, how that is written, and how many lines of the file stand before its header.

    Args:
        wanted: names that the header must have, by which it is found where ``form`` doesn't say where it is.

    Raises:
        SourceError: the file can't be read or decompressed, or is not in the encoding.
    """
    packed = file.name.lower().endswith(".gz")
    try:
        skip = lines_before_header(file, form, wanted) if form.skip is None else form.skip
        if not packed and not skip and form.encoding not in _DECODED:
            yield file, form, 0
            return
        with tempfile.TemporaryDirectory(prefix="crossbank-") as folder:
            copy = Path(folder) / "plain.csv"
            _copy(file, copy, form, skip)
            encoding = "utf-8" if form.encoding in _DECODED or form.encoding == "utf-16" else form.encoding
            yield copy, form.model_copy(update={"encoding": encoding, "skip": 0}), skip
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise SourceError(f"File {file} is no whole gzip file: it is truncated or damaged.") from None
    except UnicodeDecodeError as error:
        raise SourceError(f"File {file} is not in {form.encoding}, as the mapping says: {error.reason}.") from None


def lines_before_header(file: Path, form: CsvFormat, wanted: Collection[str]) -> int:
    """How many lines stand before the first that has all wanted names; 0 where none of the first has."""
    if not wanted:
        return 0
    codec = {"utf-8": "utf-8-sig", **_DECODED}.get(form.encoding, form.encoding)
    try:
        with _opened(file) as stream:
            head = stream.read(_LINE_BYTES)
    except OSError as error:
        raise SourceError(f"File {file} can't be read: {error.strerror or 'no whole gzip file'}.") from error
    lines = codecs.decode(head, codec, "replace").split("\n")[:MAX_LINES_BEFORE]
    for number, line in enumerate(lines):
        try:
            cells = next(csv.reader([line.rstrip("\r")], delimiter=form.delimiter, quotechar=form.quote), [])
        except csv.Error:
            continue
        if {cell.strip() for cell in cells} >= {name.partition("#")[0] for name in wanted}:
            return number
    return 0


def _opened(file: Path) -> IO[bytes]:
    return gzip.open(file, "rb") if file.name.lower().endswith(".gz") else file.open("rb")  # type: ignore[return-value]


def _copy(file: Path, copy: Path, form: CsvFormat, skip: int) -> None:
    codec = {"utf-8": None, "latin-1": None}.get(form.encoding, _DECODED.get(form.encoding, form.encoding))
    decoder = codecs.getincrementaldecoder(codec)() if codec else None
    written = 0
    with _opened(file) as stream, copy.open("wb") as out:
        left = skip
        while chunk := stream.read(_CHUNK):
            part = decoder.decode(chunk).encode() if decoder else chunk
            while left and (end := part.find(b"\n")) >= 0:
                part, left = part[end + 1 :], left - 1
            if left:
                continue
            written += out.write(part)
            if written > MAX_PLAIN_BYTES:
                raise SourceError(f"File {file} holds more than {MAX_PLAIN_BYTES} bytes when it is decompressed.")
        if decoder:
            out.write(decoder.decode(b"", True).encode())
