"""Which of a bank's rows train, validate and test in a run, what they weigh, and the model a run goes on from.

It trains nothing and sends nothing. The dates are the run plan's, so all banks split alike.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from bank_node.boosting import row_keys
from bank_node.boosting.binning import check_weights
from bank_node.boosting.errors import RowError
from bank_node.boosting.row_files import BankRows
from bank_node.config import BankConfig
from bank_node.dataset.feature_tables import identifier_keys
from bank_node.dtypes import Floats, Marks
from features import DataContract, labelled_split
from features.identifiers import hashed
from protocol.errors import ConfigError, LocalError, NothingToLearn
from protocol.run_plan import RunPlan

__all__ = [
    "RowParts",
    "arrays_of",
    "check_split",
    "columns_of",
    "labels_of",
    "split_block",
    "weigher",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class RowParts:
    """A bank's labelled rows of a run.

    Attributes:
        training: rows before the plan's ``validate_from``, or its ``train_until`` where it has none.
        validation: rows that judge after each tree; None where the plan names no ``validate_from``.
        test: rows after ``train_until``; the others again where the plan has none.
    """

    training: pd.DataFrame
    validation: pd.DataFrame | None
    test: pd.DataFrame


def split_block(contract: DataContract, table: pd.DataFrame, plan: RunPlan) -> RowParts:
    """Split some rows by the plan's dates, with the contract's label delay between the parts; parts may be empty.

    Args:
        contract: the bank's own.
        table: with ``event_time`` and ``is_fraud``.
        plan: the run's.
    """
    known = table[table["is_fraud"].notna()]
    early, test = known, known
    if plan.train_until is not None:
        early, test = labelled_split(table, plan.train_until, contract)
    training, validation = early, None
    if plan.validate_from is not None:
        training, validation = labelled_split(early, plan.validate_from, contract)
    return RowParts(training=training, validation=validation, test=test)


def check_split(config: BankConfig, plan: RunPlan, rows: int) -> None:
    """Check that a run has what it needs.

    Args:
        rows: labelled rows that are left to train on.

    Raises:
        LocalError: there are none, or the run needs validation rows and its plan names none.
    """
    plan.check_judges()
    if rows == 0:
        end = plan.validate_from or plan.train_until
        raise NothingToLearn(
            f"bank {config.bank_id} has no labelled row" + ("" if end is None else f" before {end.date()}")
        )


def arrays_of(
    contract: DataContract,
    table: pd.DataFrame,
    weights: Floats | None = None,
    *,
    sampled: bool = False,
) -> BankRows:
    """Rows as arrays, with sampling keys where rows are to be sampled."""
    return BankRows(
        columns=columns_of(table, contract),
        labels=labels_of(table),
        weights=weights,
        keys=row_keys(table["row_id"]) if sampled else None,
    )


def columns_of(table: pd.DataFrame, contract: DataContract) -> Floats:
    """The contract's features, float32 (n, features), row-major."""
    return np.ascontiguousarray(table[list(contract.feature_names)].to_numpy(np.float32))


def labels_of(table: pd.DataFrame) -> Marks:
    """1 for fraud, uint8 (n,)."""
    labels: Marks = (table["is_fraud"].to_numpy() > 0.5).astype(np.uint8)
    return labels


def weigher(config: BankConfig, contract: DataContract, column: str) -> Callable[[pd.DataFrame], Floats | None]:
    """What tells each row's weight, float32 (n,): a feature of the contract, or a column of the bank's ``row_weights``.

    A row with a missing feature, or that the bank's table does not have, weighs 1.

    Args:
        column: the plan's ``weight_column``; empty where each row weighs 1.

    Returns:
        A function of tables; it raises `ConfigError` where a weight is negative or too large.

    Raises:
        LocalError: the bank doesn't have the column.
        ConfigError: its table of weights can't be used.
    """
    if not column:
        return lambda table: None
    known: pd.Series | None = None
    where = f"feature {column}" if column in contract.feature_names else f"row_weights {config.row_weights}, {column}"
    if column not in contract.feature_names:
        if config.row_weights is None:
            raise LocalError(
                f"the run weighs rows by {column!r}, which is no feature of the contract, and bank {config.bank_id} "
                "has no row_weights in its configuration: a table with payment_id and that column"
            )
        known = _table_of_weights(config, config.row_weights, column)

    def weigh(table: pd.DataFrame) -> Floats | None:
        found = table[column] if known is None else table["row_id"].map(known)
        weights = found.to_numpy(np.float32, na_value=np.nan)
        try:
            return check_weights(np.where(np.isnan(weights), np.float32(1.0), weights), len(table))
        except RowError as error:
            # Its row number is that of a part, which nobody could look up.
            raise ConfigError(f"{where}: weights must lie between 0 and 2**20") from error

    return weigh


def _table_of_weights(config: BankConfig, path: Path, column: str) -> pd.Series:
    """Weights by hashed payment id."""
    try:
        text = {"payment_id": "string"}
        table = pd.read_csv(path, dtype=text) if path.suffix == ".csv" else pd.read_parquet(path)
    except OSError as error:
        raise ConfigError(f"row_weights {path} can't be read: {error.strerror or 'not a Parquet file'}") from error
    except ValueError as error:
        raise ConfigError(f"row_weights {path} is not {'CSV' if path.suffix == '.csv' else 'Parquet'}") from error
    for name in ("payment_id", column):
        if name not in table.columns:
            raise ConfigError(f"row_weights {path} has no column {name!r}; the run weighs rows by {column!r}")
    if not pd.api.types.is_numeric_dtype(table[column]):
        raise ConfigError(f"row_weights {path}, column {column!r}: a weight must be a number")
    if table["payment_id"].isna().any() or table["payment_id"].duplicated().any():
        raise ConfigError(f"row_weights {path}: a payment_id is missing or there twice")
    key, _ = identifier_keys(config)
    return pd.Series(table[column].to_numpy(), index=hashed(key, "payment_id", table["payment_id"].astype(str)))
