"""Reads anybody's table for `simulator train` and cuts it into banks. It sees all rows, as only a simulator may."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from bank_node.boosting import row_keys
from bank_node.boosting.row_files import BankRows
from bank_node.boosting.sampling import sample_rows
from protocol.errors import ConfigError
from protocol.layout import PAYLOAD_SLOTS

__all__ = ["SimulatedTable", "auto_grid", "read_table"]

#: Edges of an automatic grid: four features share one ciphertext in the binning step.
GRID_EDGES = PAYLOAD_SLOTS // 4 - 3
#: Any number; not a run's seed, so that a tree's sample of rows says nothing of validation.
_VALIDATION_SEED = 20_261


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedTable:
    """A table cut into banks: training rows and test rows of each, and the grid all banks share.

    ``validation`` has the rows of each bank that judge after each tree; it is empty where there are none.
    """

    feature_names: tuple[str, ...]
    grids: tuple[npt.NDArray[np.float64], ...]
    train: dict[str, BankRows]
    test: dict[str, BankRows]
    in_sample: bool
    validation: dict[str, BankRows] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of feature names and grids; it stands for the data contract."""
        digest = hashlib.sha256("\0".join(self.feature_names).encode())
        for grid in self.grids:
            digest.update(grid.tobytes())
        return digest.hexdigest()

    def pooled(self, part: dict[str, BankRows]) -> BankRows:
        """All banks' rows as one, with their weights, without keys."""
        weights = [rows.weights for rows in part.values() if rows.weights is not None]
        return BankRows(
            columns=np.concatenate([rows.columns for rows in part.values()]),
            labels=np.concatenate([rows.labels for rows in part.values()]),
            weights=np.concatenate(weights) if weights else None,
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
    validate_from: str | None = None,
    validation_share: float | None = None,
    weight_column: str | None = None,
    row_id_column: str | None = None,
) -> SimulatedTable:
    """Read a Parquet or CSV table and cut it.

    Args:
        path: the table.
        bank_column: says whose row it is.
        label: has 0 or 1.
        features: numeric columns.
        time_column: needed where the rows are split by time.
        train_until: rows before it train, the others test.
        validate_from: of those before `train_until`, the rows from it on validate and don't train.
        validation_share: instead, this share of them: the latest rows, or without a time those with the lowest hash of
            their id. Whose row it is doesn't matter.
        weight_column: what a row weighs in training.
        row_id_column: the rows' ids, for samples of rows.

    Raises:
        ConfigError: the file can't be read, a column is missing, not numeric or has no valid label; names file, column
            and how many rows.
    """
    _check_splits(time_column, train_until, validate_from, validation_share, row_id_column)
    wanted = [bank_column, label, *features, *filter(None, (time_column, weight_column, row_id_column))]
    table = _read(path, wanted)
    if len(set(features)) != len(features):
        raise ConfigError("a feature is named twice")
    _check_values(table, path, bank_column, label, features)
    columns = np.ascontiguousarray(table[features].to_numpy(np.float32, na_value=np.nan))
    labels = table[label].to_numpy().astype(np.uint8)
    banks = table[bank_column].map(_bank_id).to_numpy()
    weights = None if weight_column is None else _weights(table[weight_column], path)
    keys = None if row_id_column is None else _keys(table[row_id_column], path)
    early, in_test = _split(table, path, time_column, train_until)
    in_validation = _validation(table, path, early, time_column, validate_from, validation_share, keys)
    in_train = early & ~in_validation
    train, test, validation = {}, {}, {}
    for bank in sorted(set(banks)):
        mine = banks == bank
        here = mine & in_train
        train[bank] = BankRows(
            columns=columns[here],
            labels=labels[here],
            weights=None if weights is None else weights[here],
            keys=None if keys is None else keys[here],
        )
        test[bank] = BankRows(columns=columns[mine & in_test], labels=labels[mine & in_test])
        validation[bank] = BankRows(columns=columns[mine & in_validation], labels=labels[mine & in_validation])
    grids = tuple(auto_grid(columns[in_train][:, i]) for i in range(len(features)))
    return SimulatedTable(
        feature_names=tuple(features),
        grids=grids,
        train=train,
        test=test,
        in_sample=train_until is None,
        validation=validation if in_validation.any() else {},
    )


def _read(path: Path, wanted: Sequence[str]) -> pd.DataFrame:
    """The file, which has all these columns and some rows."""
    try:
        table = pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
    except OSError as error:
        raise ConfigError(f"table {path} can't be read: {error.strerror or 'not a Parquet file'}") from error
    except ValueError as error:
        raise ConfigError(f"table {path} is not {'CSV' if path.suffix == '.csv' else 'Parquet'}") from error
    for column in wanted:
        if column not in table.columns:
            raise ConfigError(f"table {path} has no column {column!r}; it has: {', '.join(map(str, table.columns))}")
    if table.empty:
        raise ConfigError(f"table {path} has no rows")
    return table


def _check_values(table: pd.DataFrame, path: Path, bank_column: str, label: str, features: Sequence[str]) -> None:
    """Every feature is a finite number or missing, every label 0 or 1, every row has a bank."""
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


def _bank_id(value: object) -> str:
    text = re.sub(r"[^A-Za-z0-9_.\-]", "_", str(value))[:60]
    return text if text[:1].isalnum() else f"bank{text}"


def _weights(column: pd.Series, path: Path) -> npt.NDArray[np.float32]:
    if not pd.api.types.is_numeric_dtype(column):
        raise ConfigError(f"table {path}, column {column.name!r}: a weight must be a number, not {column.dtype}")
    weights: npt.NDArray[np.float32] = column.to_numpy(np.float32, na_value=np.nan)
    wrong = ~((weights >= 0) & np.isfinite(weights))
    if wrong.any():
        raise ConfigError(
            f"table {path}, column {column.name!r}: {int(wrong.sum())} weights are missing, negative or infinite"
        )
    return weights


def _keys(column: pd.Series, path: Path) -> npt.NDArray[np.uint64]:
    wrong = int(column.isna().sum() + column.duplicated().sum())
    if wrong:
        raise ConfigError(f"table {path}, column {column.name!r}: {wrong} row ids are missing or there twice")
    return row_keys(column)


def _check_splits(
    time_column: str | None,
    train_until: str | None,
    validate_from: str | None,
    share: float | None,
    row_id_column: str | None,
) -> None:
    if time_column is not None and train_until is None and validate_from is None and share is None:
        raise ConfigError("--time-column needs --train-until, --validate-from or --validation-share")
    if time_column is None and (train_until is not None or validate_from is not None):
        raise ConfigError("--train-until and --validate-from need --time-column")
    if validate_from is not None and share is not None:
        raise ConfigError("give --validate-from or --validation-share, not both")
    if share is not None and not 0.0 < share < 1.0:
        raise ConfigError("--validation-share must be above 0 and below 1")
    if share is not None and time_column is None and row_id_column is None:
        raise ConfigError("--validation-share needs --time-column (the latest rows) or --row-id-column (a sample)")


def _validation(
    table: pd.DataFrame,
    path: Path,
    early: npt.NDArray[np.bool_],
    time_column: str | None,
    validate_from: str | None,
    share: float | None,
    keys: npt.NDArray[np.uint64] | None,
) -> npt.NDArray[np.bool_]:
    """Marks the rows that validate, all of them among the early ones."""
    if validate_from is not None and time_column is not None:
        found = early & ~_before(table, path, time_column, validate_from, "--validate-from")
    elif share is not None and time_column is not None:
        times = _times(table, path, time_column)
        found = early & (times >= times[early].quantile(1.0 - share)).to_numpy()
    elif share is not None and keys is not None:
        found = early & (sample_rows(keys, share, _VALIDATION_SEED, 0) == 1)
    else:
        return np.zeros(len(table), dtype=bool)
    if not found.any() or found.sum() == early.sum():
        raise ConfigError(f"table {path}: the validation rows are none or all of those to train on")
    return found


def _times(table: pd.DataFrame, path: Path, column: str) -> pd.Series:
    times = table[column]
    try:
        return times if pd.api.types.is_numeric_dtype(times) else pd.to_datetime(times)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"table {path}, column {column!r}: neither times nor numbers") from error


def _before(table: pd.DataFrame, path: Path, column: str, limit: str, option: str) -> npt.NDArray[np.bool_]:
    times = _times(table, path, column)
    try:
        end = float(limit) if pd.api.types.is_numeric_dtype(times) else pd.Timestamp(limit)
        return np.asarray((times < end).to_numpy(), dtype=bool)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"table {path}, column {column!r}: can't be compared with {option}") from error


def _split(
    table: pd.DataFrame, path: Path, time_column: str | None, until: str | None
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    everything = np.ones(len(table), dtype=bool)
    if time_column is None or until is None:
        return everything, everything
    early = _before(table, path, time_column, until, "--train-until")
    if not early.any() or early.all():
        raise ConfigError(f"table {path}: --train-until leaves no rows on one side of the split")
    return early, ~early
