"""How far scores hold as probabilities: rows, frauds and summed probability by score cell. It fits and sums nothing.

All of it is integers of a row alone, so that sums over the banks do not depend on which bank holds which row. Rows fall
into two folds by their own features, so that what is fitted on one can be judged on the other.
"""

import math
from dataclasses import dataclass

import numpy as np

from bank_node.boosting.gradients import log_odds, probabilities
from bank_node.dtypes import Doubles, Floats, Integers, Marks

__all__ = ["CELLS", "FOLDS", "CellCounts", "Reliability", "cell_counts", "fold_of", "reliability"]

#: Cells of a fold, so that the three counts of both folds fill one ciphertext: log-odds are told apart by 0.0375.
CELLS = 640
FOLDS = 2
_MARGIN_LIMIT = 12.0
_CELLS_OF_BIN = 20
"""Cells of a bin of the reliability curve: 0.75 in log-odds, so that rare high scores have bins of their own."""

PROBABILITY_BITS = 28
"""Fraction bits of a row's probability: sums of 2**28 rows stay below the field's 2**56."""

_BLOCK = 8192
_NAN, _ODD = 0x7FC00000, 0x9E3779B97F4A7C15


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CellCounts:
    """What is known of the rows of each score cell, ascending by score.

    Attributes:
        rows: int64 (CELLS,).
        frauds: int64 (CELLS,).
        probability: int64 (CELLS,), the rows' summed probability in units of 2**-28.
    """

    rows: Integers
    frauds: Integers
    probability: Integers

    def __add__(self, other: "CellCounts") -> "CellCounts":
        return CellCounts(
            rows=self.rows + other.rows,
            frauds=self.frauds + other.frauds,
            probability=self.probability + other.probability,
        )

    @property
    def margins(self) -> Doubles:
        """float64 (CELLS,): log-odds of a cell's mean probability; of its middle where it has no row."""
        middle = (np.arange(CELLS, dtype=np.float64) + 0.5) * (2.0 * _MARGIN_LIMIT / CELLS) - _MARGIN_LIMIT
        scale = float(2**PROBABILITY_BITS)
        mean = self.probability / np.maximum(self.rows, 1) / scale
        inside = (self.rows > 0) & (mean > 0.0) & (mean < 1.0)
        return np.where(inside, log_odds(np.where(inside, mean, 0.5)), middle)

    @classmethod
    def folds(cls, vector: Integers) -> tuple["CellCounts", ...]:
        """The folds of a vector of `cell_counts`, or of a sum of such."""
        parts = np.asarray(vector, dtype=np.int64).reshape(FOLDS, 3, CELLS)
        return tuple(cls(rows=part[0], frauds=part[1], probability=part[2]) for part in parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reliability:
    """How far probabilities hold.

    Attributes:
        rows, frauds: judged by.
        expected_frauds: the probabilities' sum.
        error: expected calibration error: over bins of log-odds, the mean distance between the bin's mean probability
            and its share of frauds, weighted by rows; None without a row.
        curve: for each bin with rows, ascending: its mean probability, its share of frauds, its rows.
    """

    rows: int
    frauds: int
    expected_frauds: float
    error: float | None
    curve: tuple[tuple[float, float, int], ...]

    def to_mapping(self) -> dict[str, object]:
        """A plain mapping."""
        return {
            "rows": self.rows,
            "frauds": self.frauds,
            "expected_frauds": round(self.expected_frauds, 3),
            "error": None if self.error is None else round(self.error, 6),
            "curve": [
                {"probability": round(mean, 7), "share_of_frauds": round(share, 7), "rows": rows}
                for mean, share, rows in self.curve
            ],
        }


def fold_of(columns: Floats) -> Marks:
    """The fold of each row, 0 or 1, uint8 (n,): a hash of its own features, the same at whichever bank it lies.

    Args:
        columns: float32 (n, f), NaN for missing. Cost: a multiplication a value, in blocks.
    """
    found = np.empty(columns.shape[0], dtype=np.uint8)
    odd = np.array([pow(_ODD, i + 1, 1 << 64) for i in range(columns.shape[1])], dtype=np.uint64)
    for start in range(0, columns.shape[0], _BLOCK):
        # One zero and one NaN, whatever a machine made of them.
        block = np.ascontiguousarray(columns[start : start + _BLOCK], dtype=np.float32) + np.float32(0.0)
        bits = block.view(np.uint32).astype(np.uint64)
        bits[np.isnan(block)] = _NAN
        with np.errstate(over="ignore"):
            x = ((bits + np.uint64(1)) * odd).sum(axis=1, dtype=np.uint64)
            x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        found[start : start + _BLOCK] = ((x ^ (x >> np.uint64(31))) & np.uint64(1)).astype(np.uint8)
    return found


def cell_counts(labels: Marks, margins: Floats, folds: Marks) -> Integers:
    """A bank's rows by fold and score cell: int64 (2 * 3 * CELLS,), of each fold rows, frauds, summed probability.

    Args:
        labels: uint8 (n,), 0 or 1.
        margins: float32 (n,), log-odds.
        folds: uint8 (n,), of `fold_of`.
    """
    share = (margins.astype(np.float64) + _MARGIN_LIMIT) / (2.0 * _MARGIN_LIMIT)
    cell = np.clip((share * CELLS).astype(np.int64), 0, CELLS - 1) + folds.astype(np.int64) * CELLS
    size = FOLDS * CELLS
    probability = np.zeros(size, dtype=np.int64)
    scale = float(2**PROBABILITY_BITS)
    np.add.at(probability, cell, np.floor(probabilities(margins.astype(np.float64)) * scale + 0.5).astype(np.int64))
    counts = [np.bincount(cell, minlength=size), np.bincount(cell[labels == 1], minlength=size), probability]
    return np.stack([each.reshape(FOLDS, CELLS) for each in counts], axis=1).astype(np.int64).ravel()


def reliability(counts: CellCounts, probability: Doubles) -> Reliability:
    """Judge probabilities by the frauds there were.

    Args:
        counts: of the rows judged by.
        probability: float64 (CELLS,), what each cell's rows are said to have on average.
    """
    expected = probability * counts.rows
    bins = CELLS // _CELLS_OF_BIN
    rows = counts.rows.reshape(bins, _CELLS_OF_BIN).sum(axis=1).tolist()
    frauds = counts.frauds.reshape(bins, _CELLS_OF_BIN).sum(axis=1).tolist()
    said = [math.fsum(part) for part in expected.reshape(bins, _CELLS_OF_BIN).tolist()]
    total = sum(rows)
    far = math.fsum(abs(e - f) for e, f in zip(said, frauds, strict=True))
    return Reliability(
        rows=total,
        frauds=sum(frauds),
        expected_frauds=math.fsum(said),
        error=far / total if total else None,
        curve=tuple((e / n, f / n, n) for e, f, n in zip(said, frauds, rows, strict=True) if n),
    )
