"""Rows on disk, one raw file an array, mapped into memory where they are read. It computes nothing.

Rows are written piece by piece, so they never need to be in memory together, and any part of them can be mapped by any
process that reads the folder. They are a bank's customer data: the folder is 0700, the files 0600, and whoever made
them removes them.
"""

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bank_node.boosting.errors import RowError
from bank_node.dtypes import Floats, Marks, Words

__all__ = ["BankRows", "RowFiles", "RowWriter", "write_rows"]

_DTYPES: dict[str, npt.DTypeLike] = {
    "columns": np.float32,
    "labels": np.uint8,
    "weights": np.float32,
    "keys": np.uint64,
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class BankRows:
    """Rows of one bank, mapped or in memory; read-only, so that kernels are compiled once for both.

    Attributes:
        columns: float32 (n, features), row-major, NaN for missing.
        labels: uint8 (n,), 0 or 1.
        weights: float32 (n,), how much a row counts in training; None where each counts 1.
        keys: uint64 (n,), from `row_keys` of the rows' ids; None where no rows are to be sampled.
    """

    columns: Floats
    labels: Marks
    weights: Floats | None = None
    keys: Words | None = None

    def __post_init__(self) -> None:
        for name in _DTYPES:
            array = getattr(self, name)
            if array is not None and array.flags.writeable:
                array = array.view()
                array.flags.writeable = False
                object.__setattr__(self, name, array)


@dataclass(frozen=True, slots=True, kw_only=True)
class RowFiles:
    """Where rows are, and how many."""

    folder: Path
    n_rows: int
    n_features: int
    weighted: bool = False
    keyed: bool = False

    def part(self, begin: int = 0, end: int | None = None) -> BankRows:
        """Rows from `begin` to before `end` (all the rest without one), mapped, read-only.

        Raises:
            RowError: a file is gone or shorter than it was.
        """
        stop = self.n_rows if end is None else end
        return BankRows(
            columns=self._mapped("columns", begin, stop),
            labels=self._mapped("labels", begin, stop),
            weights=self._mapped("weights", begin, stop) if self.weighted else None,
            keys=self._mapped("keys", begin, stop) if self.keyed else None,
        )

    def remove(self) -> None:
        """Delete the files; harmless when it has been done. Parts mapped before stay readable."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _mapped(self, name: str, begin: int, end: int) -> Any:
        kind = np.dtype(_DTYPES[name])
        width = self.n_features if name == "columns" else 1
        shape = (end - begin, self.n_features) if name == "columns" else (end - begin,)
        if 0 in shape:
            return np.empty(shape, dtype=kind)
        path = self.folder / f"{name}.bin"
        try:
            return np.asarray(np.memmap(path, dtype=kind, mode="r", offset=begin * width * kind.itemsize, shape=shape))
        except (OSError, ValueError) as error:
            raise RowError(f"rows {path} are gone or incomplete; train again") from error


class RowWriter:
    """Writes rows piece by piece, in place of what the folder held; all pieces have weights and keys, or none has."""

    def __init__(self, folder: Path, n_features: int) -> None:
        """Empties the folder."""
        self._folder = folder
        self._n_features = n_features
        self._n_rows = 0
        self._files: dict[str, Any] = {}
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, mode=0o700)

    def append(self, rows: BankRows) -> None:
        """Write some more rows.

        Raises:
            RowError: they do not fit those before.
        """
        given = {name: getattr(rows, name) for name in _DTYPES if getattr(rows, name) is not None}
        if not self._files:
            self._files = {name: _create(self._folder / f"{name}.bin") for name in given}
        count = len(rows.labels)
        if set(given) != set(self._files) or rows.columns.shape != (count, self._n_features):
            raise RowError(
                f"a piece of rows has {sorted(given)} of shape {rows.columns.shape}, not {sorted(self._files)}"
            )
        for name, values in given.items():
            if len(values) != count:
                raise RowError(f"a piece of rows has {len(values)} {name} for {count} rows")
            self._files[name].write(np.ascontiguousarray(values, dtype=_DTYPES[name]).data)
        self._n_rows += count

    def finish(self) -> RowFiles:
        """Close the files."""
        for file in self._files.values():
            file.close()
        return RowFiles(
            folder=self._folder,
            n_rows=self._n_rows,
            n_features=self._n_features,
            weighted="weights" in self._files,
            keyed="keys" in self._files,
        )


def write_rows(folder: Path, parts: Iterable[BankRows], n_features: int) -> RowFiles:
    """Write some pieces with a `RowWriter`."""
    writer = RowWriter(folder, n_features)
    try:
        for part in parts:
            writer.append(part)
    finally:
        files = writer.finish()
    return files


def _create(path: Path) -> Any:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")
