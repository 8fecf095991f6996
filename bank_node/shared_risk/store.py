"""The bank's files of shared counterparty risk: the link key and the consortium's daily tables. Exchanges nothing.

Tables are of counts over all banks and hold no identifier; they are of use only to who has the link key. A folder for
each key and sketch: tables of another key or another size are never mixed.
"""

import datetime as dt
import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np

from bank_node.boosting.archive import ONE_READER
from bank_node.dtypes import Integers
from bank_node.files import write_atomic
from features.contract.sections import COLUMNS, EntityKind, SharedRiskSpec
from protocol.channel import read_secret_file
from protocol.errors import LocalError
from protocol.private_files import write_secret

__all__ = ["SharedStore"]

_EPOCH = dt.date(1970, 1, 1).toordinal()


@dataclass(frozen=True, slots=True)
class SharedStore:
    """Files below one folder; whole or not there."""

    folder: Path

    def key(self) -> bytes | None:
        """The link key, or None before the first exchange.

        Raises:
            LocalError: the file is damaged; remove it, the next run brings the key again.
        """
        path = self.folder / "link.key"
        if not path.exists():
            return None
        try:
            key = bytes.fromhex(read_secret_file(path, "link key").decode())
        except ValueError:
            key = b""
        if len(key) != 32:
            raise LocalError(f"the link key {path} is damaged; remove it, the next run brings it again")
        return key

    def set_key(self, key: bytes) -> None:
        """Keep the link key, 0600."""
        if self.key() != key:
            write_secret(self.folder / "link.key", key.hex().encode())

    def days(self, key_id: str, sketch: str) -> list[int]:
        """Days that have a table, in order, from 1970-01-01."""
        files = self._folder(key_id, sketch).glob("????-??-??.npz")
        return sorted(dt.date.fromisoformat(file.stem).toordinal() - _EPOCH for file in files)

    def save(self, day: int, tables: Sequence[Integers], key_id: str, sketch: str) -> None:
        """Write one day's tables, one of each kind, int64 (4, depth, width)."""
        buffer = BytesIO()
        np.savez_compressed(buffer, *[table.astype(np.int32) for table in tables])
        write_atomic(self._file(day, key_id, sketch), buffer.getvalue())

    def load(self, day: int, spec: SharedRiskSpec, key_id: str, sketch: str) -> list[Integers]:
        """One day's tables, one of each kind.

        Raises:
            LocalError: missing or damaged; remove it, the next run brings it again.
        """
        return [self._read(day, kind, number, key_id, sketch) for number, kind in enumerate(spec.kinds)]

    def read(self, spec: SharedRiskSpec, key_id: str, kind: EntityKind, first: int, days: int) -> Integers:
        """Consecutive days' tables of one kind, int64 (days, 4, depth, width); zeros where there is none."""
        number, sketch = spec.kinds.index(kind), spec.sketch_digest
        tables = np.zeros((days, len(COLUMNS), kind.depth, kind.width), dtype=np.int64)
        for place in range(days):
            if self._file(first + place, key_id, sketch).exists():
                tables[place] = self._read(first + place, kind, number, key_id, sketch)
        return tables

    def keep_from(self, day: int, key_id: str, sketch: str) -> None:
        """Remove older days, and what belongs to another key or sketch."""
        for old in self.days(key_id, sketch):
            if old < day:
                self._file(old, key_id, sketch).unlink()
        ours = self._folder(key_id, sketch)
        for folder in (self.folder / "tables").glob("*"):
            if folder != ours:
                shutil.rmtree(folder)

    def size(self, key_id: str, sketch: str) -> int:
        """Bytes of all days' files."""
        return sum(file.stat().st_size for file in self._folder(key_id, sketch).glob("*.npz"))

    def _folder(self, key_id: str, sketch: str) -> Path:
        return self.folder / "tables" / f"{key_id[:16]}-{sketch[:16]}"

    def _file(self, day: int, key_id: str, sketch: str) -> Path:
        return self._folder(key_id, sketch) / f"{dt.date.fromordinal(day + _EPOCH).isoformat()}.npz"

    def _read(self, day: int, kind: EntityKind, number: int, key_id: str, sketch: str) -> Integers:
        path = self._file(day, key_id, sketch)
        try:
            with ONE_READER, np.load(path, allow_pickle=False) as file:
                table: Integers = file[f"arr_{number}"].astype(np.int64)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise LocalError(f"shared table {path} is damaged; remove it, the next run brings it again") from error
        if table.shape != (len(COLUMNS), kind.depth, kind.width):
            raise LocalError(f"shared table {path} has another size than the contract's sketch; remove it")
        return table
