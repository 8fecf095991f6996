"""Reads anybody's table for `simulator train` and cuts it into banks. It sees all rows, as only a simulator may."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from bank_node.federation import BankRows
from protocol.errors import ConfigError
from protocol.layout import PAYLOAD_SLOTS

__all__ = ["SimulatedTable", "auto_grid", "read_table"]

#: Edges of an automatic grid: four features share one ciphertext in the binning step.
GRID_EDGES = PAYLOAD_SLOTS // 4 - 3


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedTable:
    """A table cut into banks: training rows and test rows of each, and the grid all banks share."""

    feature_names: tuple[str, ...]
    grids: tuple[npt.NDArray[np.float64], ...]
    train: dict[str, BankRows]
    test: dict[str, BankRows]
    in_sample: bool

    @property
    def fingerprint(self) -> str:
        """SHA-256 of feature names and grids; it stands for the data contract."""
        digest = hashlib.sha256("\0".join(self.feature_names).encode())
        for grid in self.grids:
            digest.update(grid.tobytes())
        return digest.hexdigest()

    def pooled(self, part: dict[str, BankRows]) -> BankRows:
        """All banks' rows as one."""
        return BankRows(
            columns=np.concatenate([rows.columns for rows in part.values()]),
            labels=np.concatenate([rows.labels for rows in part.values()]),
        )


def auto_grid(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """A fine grid read off a column: every gap between few distinct values, else its quantiles.

    A real consortium takes its grids from the data contract; this looks at all banks' rows.
    """
    present = np.sort(values[~np.isnan(values)])
    known = np.unique(present)
    if known.size > GRID_EDGES:
        known = np.unique(present[np.linspace(0, present.size - 1, GRID_EDGES).astype(np.int64)])
    # Edges are values that occur: a cell is closed below and open above.
    return known[1:].astype(np.float64)


def read_table(
    path: Path,
    *,
    bank_column: str,
    label: str,
    features: list[str],
    time_column: str | None = None,
    train_until: str | None = None,
) -> SimulatedTable:
    """Read a Parquet or CSV table and cut it.

    Raises:
        ConfigError: the file can't be read, a column is missing, not numeric or has no valid label; names file, column
            and how many rows.
    """
    try:
        table = pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
    except OSError as error:
        raise ConfigError(f"table {path} can't be read: {error.strerror or 'not a Parquet file'}") from error
    except ValueError as error:
        raise ConfigError(f"table {path} is not {'CSV' if path.suffix == '.csv' else 'Parquet'}") from error
    wanted = [bank_column, label, *features] + ([time_column] if time_column else [])
    for column in wanted:
        if column not in table.columns:
            raise ConfigError(f"table {path} has no column {column!r}; it has: {', '.join(map(str, table.columns))}")
    if table.empty:
        raise ConfigError(f"table {path} has no rows")
    if len(set(features)) != len(features):
        raise ConfigError("a feature is named twice")
    for column in features:
        if not (pd.api.types.is_numeric_dtype(table[column]) or pd.api.types.is_bool_dtype(table[column])):
            raise ConfigError(f"table {path}, column {column!r}: a feature must be numeric, not {table[column].dtype}")
        infinite = int(np.isinf(table[column].to_numpy(np.float64, na_value=np.nan)).sum())
        if infinite:
            raise ConfigError(f"table {path}, column {column!r}: {infinite} values are infinite")
    if not (pd.api.types.is_numeric_dtype(table[label]) or pd.api.types.is_bool_dtype(table[label])):
        raise ConfigError(f"table {path}, column {label!r}: a label must be 0 or 1, not {table[label].dtype}")
    wrong = ~table[label].isin([0, 1])
    if wrong.any():
        where = int(np.flatnonzero(wrong)[0])
        raise ConfigError(
            f"table {path}, column {label!r}: {int(wrong.sum())} labels are not 0 or 1 (first: row {where})"
        )
    if table[bank_column].isna().any():
        raise ConfigError(
            f"table {path}, column {bank_column!r}: {int(table[bank_column].isna().sum())} rows have no bank"
        )
    columns = np.ascontiguousarray(table[features].to_numpy(np.float32, na_value=np.nan))
    labels = table[label].to_numpy().astype(np.uint8)
    banks = table[bank_column].map(_bank_id).to_numpy()
    in_train, in_test = _split(table, path, time_column, train_until)
    train, test = {}, {}
    for bank in sorted(set(banks)):
        mine = banks == bank
        train[bank] = BankRows(columns=columns[mine & in_train], labels=labels[mine & in_train])
        test[bank] = BankRows(columns=columns[mine & in_test], labels=labels[mine & in_test])
    grids = tuple(auto_grid(columns[in_train][:, i]) for i in range(len(features)))
    return SimulatedTable(
        feature_names=tuple(features), grids=grids, train=train, test=test, in_sample=train_until is None
    )


def _bank_id(value: object) -> str:
    text = re.sub(r"[^A-Za-z0-9_.\-]", "_", str(value))[:60]
    return text if text[:1].isalnum() else f"bank{text}"


def _split(
    table: pd.DataFrame, path: Path, time_column: str | None, until: str | None
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    everything = np.ones(len(table), dtype=bool)
    if time_column is None or until is None:
        if (time_column is None) != (until is None):
            raise ConfigError("--time-column and --train-until go together")
        return everything, everything
    times = table[time_column]
    try:
        limit = float(until) if pd.api.types.is_numeric_dtype(times) else pd.Timestamp(until)
        if not pd.api.types.is_numeric_dtype(times):
            times = pd.to_datetime(times)
        early = (times < limit).to_numpy()
    except (ValueError, TypeError) as error:
        raise ConfigError(f"table {path}, column {time_column!r}: can't be compared with --train-until") from error
    if not early.any() or early.all():
        raise ConfigError(f"table {path}: --train-until leaves no rows on one side of the split")
    return early, ~early
