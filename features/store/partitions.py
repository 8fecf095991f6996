"""A bank's store of day partitions: where files lie, and how each is written whole or not at all. Decides nothing.

Layout under one folder:

- ``intake/<source>/`` : what one source file became: ``YYYY-MM-DD.parquet`` of canonical rows, ``quarantine.parquet``
  (row numbers, columns and reasons only) and ``entry.json`` (the file's stamp, its days, its counts);
- ``events/YYYY-MM-DD.parquet`` : the payments of one UTC day, merged over source files;
- ``purged.json`` : hashes of customers and periods that stay out;
- ``features/YYYY-MM-DD.parquet`` : the features and labels of that day's outgoing payments.

A partition carries in its own Parquet metadata a digest of everything it was made from. So there is no journal to be
wrong after a crash: a partition is good if its digest is the one that its inputs would give now, and is made again if
not. Identifiers are hashes in every file.
"""

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from features.errors import SourceError

if TYPE_CHECKING:
    import pyarrow

__all__ = ["FeatureStore", "Step", "content_digest", "digest_of"]

_MARK = b"crossbank"


Step = Callable[[str], None]
"""Told the name of each change of the store before it is made; a test ends the process there."""


@dataclass(frozen=True, slots=True)
class FeatureStore:
    """Paths and atomic writes below one folder."""

    root: Path

    @contextmanager
    def locked(self, patience_seconds: float = 600.0) -> Iterator[None]:
        """One writer at a time: a second one waits a while, since an extraction and a purge may be due together.

        Raises:
            SourceError: another process is still writing here.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        give_up = time.monotonic() + patience_seconds
        with (self.root / ".lock").open("w") as handle:
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError as error:
                    if time.monotonic() >= give_up:
                        raise SourceError(f"Another extraction or purge is at work in {self.root}.") from error
                    time.sleep(0.2)
            yield

    def partition(self, kind: str, day: date) -> Path:
        """Where a day's ``events`` or ``features`` are."""
        return self.root / kind / f"{day.isoformat()}.parquet"

    def days(self, kind: str) -> list[date]:
        """Days that have a partition, in order."""
        return sorted(date.fromisoformat(file.stem) for file in (self.root / kind).glob("????-??-??.parquet"))

    def entries(self) -> dict[str, dict[str, Any]]:
        """What was taken in: by source name, each ``entry.json``."""
        found = {}
        for file in sorted((self.root / "intake").glob("*/entry.json")):
            if not file.parent.name.startswith("."):
                entry = json.loads(file.read_text())
                found[entry["source"]] = entry
        return found

    def others(self) -> dict[str, tuple[int, list[int]]]:
        """Rows that were set aside when days were merged, since a newer row of another payment has their id.

        Returns:
            By source: how many, and the first of their numbers.
        """
        found: dict[str, tuple[int, list[int]]] = {}
        for day in self.days("events"):
            for source, (count, first) in self.facts(self.partition("events", day)).get("others", {}).items():
                before, rows = found.get(source, (0, []))
                found[source] = (before + int(count), sorted([*rows, *first]))
        return found

    def intake(self, source: str) -> Path:
        """The folder of one source file. Named by a digest: a file's name may be long or personal."""
        return self.root / "intake" / hashlib.sha256(source.encode()).hexdigest()[:20]

    @contextmanager
    def new_intake(self, source: str) -> Iterator[Path]:
        """A folder to fill; it replaces the source's old one when the block ends well, and vanishes when not."""
        final = self.intake(source)
        draft = final.with_name(f".{final.name}.draft")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        try:
            yield draft
            self.drop_intake(source)
            os.replace(draft, final)
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def drop_intake(self, source: str) -> None:
        """Forget one source file. Its entry goes first: without it the rest is no longer counted."""
        folder = self.intake(source)
        (folder / "entry.json").unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)

    def write(self, path: Path, table: "pyarrow.Table", facts: Mapping[str, Any]) -> None:
        """Write a partition whole or not at all, with facts about it in its metadata."""
        import pyarrow.parquet

        table = table.replace_schema_metadata({_MARK: json.dumps(dict(facts), sort_keys=True).encode()})
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.draft")
        try:
            pyarrow.parquet.write_table(table, draft, compression="zstd")
            with draft.open("rb") as stream:
                os.fsync(stream.fileno())
            os.replace(draft, path)
        finally:
            draft.unlink(missing_ok=True)

    def facts(self, path: Path) -> dict[str, Any]:
        """The facts of a partition; empty if it is not there or is no partition of ours."""
        import pyarrow
        import pyarrow.parquet

        try:
            metadata = pyarrow.parquet.read_schema(path).metadata or {}
            return dict(json.loads(metadata[_MARK]))
        except (OSError, KeyError, ValueError, pyarrow.ArrowException):
            return {}

    def read(self, path: Path) -> "pyarrow.Table":
        """A partition.

        Raises:
            SourceError: it is damaged; delete it, the next extraction makes it again.
        """
        import pyarrow
        import pyarrow.parquet

        try:
            return pyarrow.parquet.read_table(path, partitioning=None)
        except (OSError, pyarrow.ArrowException) as error:
            raise SourceError(f"Partition {path} is damaged; delete it and extract again.") from error


def digest_of(*parts: Any) -> str:
    """SHA-256, hex, of JSON-able parts."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def content_digest(table: "pyarrow.Table") -> str:
    """SHA-256, hex, of a table's columns, values and order of rows; not of how its rows are chunked or nulls stored."""
    import pyarrow
    import pyarrow.compute

    plain = {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        # Bytes under a null are anything; a zero there makes equal columns equal bytes.
        zero = pyarrow.scalar("" if pyarrow.types.is_string(column.type) else 0).cast(column.type)
        plain[name] = pyarrow.compute.fill_null(column, zero)
        plain[f"{name} is null"] = pyarrow.compute.is_null(column)
    sink = pyarrow.BufferOutputStream()
    whole = pyarrow.table(plain)
    with pyarrow.ipc.new_stream(sink, whole.schema) as writer:
        writer.write_table(whole.combine_chunks())
    return hashlib.sha256(sink.getvalue()).hexdigest()
