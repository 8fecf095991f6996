"""Small random tables for whole-run tests."""

import numpy as np

from bank_node.boosting.row_files import BankRows
from simulator.harness.tables import SimulatedTable, auto_grid

__all__ = ["cut", "rows_and_labels", "small_table"]


def rows_and_labels(rows: int, features: int, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Float32 rows with 5 % missing values and labels with a learnable signal."""
    rng = np.random.default_rng(seed)
    columns = rng.normal(size=(rows, features)).astype(np.float32)
    columns[:, -1] = rng.integers(0, 4, rows)
    labels = (columns[:, 0] * columns[:, 1] + 0.5 * columns[:, -1] + rng.normal(size=rows) > 2).astype(np.uint8)
    columns[rng.random(columns.shape) < 0.05] = np.nan
    return columns, labels


def cut(columns: np.ndarray, labels: np.ndarray, bank_of_row: np.ndarray, banks: int) -> SimulatedTable:
    """A table with the rows given to banks as told; a bank may get none."""
    parts = {
        f"bank_{b}": BankRows(columns=columns[bank_of_row == b], labels=labels[bank_of_row == b]) for b in range(banks)
    }
    return SimulatedTable(
        feature_names=tuple(f"f{i}" for i in range(columns.shape[1])),
        grids=tuple(auto_grid(columns[:, i]) for i in range(columns.shape[1])),
        train=parts,
        test=parts,
        in_sample=True,
    )


def small_table(banks: int, rows: int, features: int, seed: int = 3) -> SimulatedTable:
    """A table split at random."""
    columns, labels = rows_and_labels(rows, features, seed)
    return cut(columns, labels, np.random.default_rng(seed).integers(0, banks, rows), banks)
