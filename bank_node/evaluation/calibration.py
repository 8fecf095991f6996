"""Makes scores probabilities that hold: one line in log-odds, fitted to securely summed cells. It reads no row.

Platt's method (1999) with a pull towards leaving scores as they are. Two numbers from some hundred frauds: isotonic
regression has more freedom than so few frauds bear (docs/calibration.md). Every operation is a correctly rounded one or
the engine's own exponential and logarithm, in one order, so that all banks get the same bytes.
"""

import hashlib
import json
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bank_node.boosting.gradients import probabilities
from bank_node.dtypes import Doubles
from bank_node.evaluation.reliability import CellCounts, Reliability, reliability
from protocol.errors import LocalError

__all__ = [
    "BUDGETS",
    "FORMAT",
    "MINIMUM_FRAUDS",
    "Calibrated",
    "Calibration",
    "Threshold",
    "calibrate",
    "digest_of",
    "fit",
    "own_reliability",
    "read",
]

FORMAT = "crossbank-calibration/1"

MINIMUM_FRAUDS = 20
"""With fewer frauds in either fold scores stay as they are: what chance says of so few would be taken for the truth."""

BUDGETS = (0.001, 0.002, 0.005, 0.01, 0.02)
"""Shares of rows alerted on for which a threshold is told, beside the run's own."""

_PULL_OF_SLOPE, _PULL_OF_INTERCEPT = 4.0, 1.0
"""Towards slope 1 and intercept 0, as if their standard deviations were known to be 0.5 and 1."""
_STEPS = 60
_DIGITS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Log-odds become ``slope * log-odds + intercept``: monotone, so that the order of rows stays.

    Attributes:
        slope: above 0.
        intercept: in log-odds.
        why: why scores stay as they are; empty where they don't.
    """

    slope: float = 1.0
    intercept: float = 0.0
    why: str = ""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.slope) and math.isfinite(self.intercept) and self.slope > 0.0):
            raise LocalError("a calibration's slope must be above 0, and both its numbers finite")

    def probability(self, margins: Doubles) -> Doubles:
        """Calibrated probabilities, float64 (n,), of log-odds, float64 (n,)."""
        return probabilities(self.slope * margins + self.intercept)


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """Alert on rows of at least this calibrated probability.

    Attributes:
        budget: share of rows that may be alerted on.
        probability: the threshold; None where even the highest scores are of more rows than the budget has.
        alerts, caught: rows and frauds above it among those judged by.
        recall: share of the frauds that are caught.
        expected_precision: mean calibrated probability of the alerts, by the other fold's calibration.
        precision: their share of frauds.
    """

    budget: float
    probability: float | None
    alerts: int
    caught: int
    recall: float | None
    expected_precision: float | None
    precision: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrated:
    """A calibration and what it is worth, on rows that did not fit it.

    Attributes:
        calibration: of both folds' rows: what ships.
        of_fold: for each fold the one fitted on the other, by which the fold is judged.
        before, after: how far probabilities hold.
        thresholds: for alert budgets, ascending.
    """

    calibration: Calibration
    of_fold: tuple[Calibration, ...] = field(repr=False)
    before: Reliability
    after: Reliability
    thresholds: tuple[Threshold, ...]

    def document(self, model_sha256: str) -> bytes:
        """The sidecar's bytes, the same at every bank.

        Args:
            model_sha256: the model it belongs to.
        """
        return (
            json.dumps(self.to_mapping() | {"model_sha256": model_sha256}, indent=2, sort_keys=True) + "\n"
        ).encode()

    def to_mapping(self) -> dict[str, Any]:
        """A plain mapping, all but the model that it belongs to."""
        return {
            "format": FORMAT,
            "log_odds": {"slope": self.calibration.slope, "intercept": self.calibration.intercept},
            "uncalibrated_because": self.calibration.why,
            "before": self.before.to_mapping(),
            "after": self.after.to_mapping(),
            "thresholds": [_told(each) for each in self.thresholds],
        }


def digest_of(document: bytes) -> str:
    """SHA-256 of a sidecar, in hexadecimal."""
    return hashlib.sha256(document).hexdigest()


def read(document: bytes, model_sha256: str) -> Calibration:
    """The calibration in a sidecar.

    Raises:
        LocalError: it is none, or another model's.
    """
    try:
        found = json.loads(document)
        if found["format"] != FORMAT:
            raise LocalError(f"the calibration is of format {str(found['format'])[:40]!r}, this version reads {FORMAT}")
        line, owner = found["log_odds"], found["model_sha256"]
        made = Calibration(
            slope=float(line["slope"]), intercept=float(line["intercept"]), why=str(found["uncalibrated_because"])
        )
    except (ValueError, KeyError, TypeError) as error:
        raise LocalError("the calibration is damaged; register the model's run again") from error
    if owner != model_sha256:
        raise LocalError(f"the calibration is of model {str(owner)[:12]}, not of {model_sha256[:12]}")
    return made


def fit(counts: CellCounts) -> Calibration:
    """The line in log-odds under which the cells' frauds are likeliest, pulled towards slope 1 and intercept 0.

    Args:
        counts: of the rows to fit on.
    """
    frauds = int(counts.frauds.sum())
    if frauds < MINIMUM_FRAUDS or int(counts.rows.sum()) - frauds < MINIMUM_FRAUDS:
        return Calibration(why=f"fewer than {MINIMUM_FRAUDS} frauds, or others, to fit on")
    used = counts.rows > 0
    rows, hits, x = counts.rows[used].astype(np.float64), counts.frauds[used], counts.margins[used]
    slope, intercept = 1.0, 0.0
    for _ in range(_STEPS):
        p = probabilities(slope * x + intercept)
        wrong, spread = rows * p - hits, rows * p * (1.0 - p)
        g0 = math.fsum(wrong.tolist()) + _PULL_OF_INTERCEPT * intercept
        g1 = math.fsum((wrong * x).tolist()) + _PULL_OF_SLOPE * (slope - 1.0)
        h00 = math.fsum(spread.tolist()) + _PULL_OF_INTERCEPT
        h01 = math.fsum((spread * x).tolist())
        h11 = math.fsum((spread * x * x).tolist()) + _PULL_OF_SLOPE
        determinant = h00 * h11 - h01 * h01
        step1, step0 = (h00 * g1 - h01 * g0) / determinant, (h11 * g0 - h01 * g1) / determinant
        # Newton's steps far from the optimum are cut, so that they can't run away.
        cut = max(1.0, abs(step0), abs(step1))
        slope, intercept = slope - step1 / cut, intercept - step0 / cut
    slope, intercept = round(slope, _DIGITS), round(intercept, _DIGITS)
    if slope <= 0.0:
        return Calibration(why="higher scores have no more frauds among the rows to fit on")
    return Calibration(slope=slope, intercept=intercept)


def calibrate(folds: tuple[CellCounts, ...], budget: float) -> Calibrated:
    """Fit on both folds together, and judge each fold by what the other says.

    Args:
        folds: of all banks' rows, from the secure sum.
        budget: the run's alert budget.
    """
    whole = folds[0] + folds[1]
    of_fold = (fit(folds[1]), fit(folds[0]))
    calibration = fit(whole)
    if unfit := next((each.why for each in (calibration, *of_fold) if each.why), ""):
        # What can't be judged is not shipped.
        calibration = Calibration(why=unfit)
        of_fold = (calibration, calibration)
    said = [each.probability(counts.margins) for each, counts in zip(of_fold, folds, strict=True)]
    expected = said[0] * folds[0].rows + said[1] * folds[1].rows
    mean = expected / np.maximum(whole.rows, 1)
    before = reliability(whole, probabilities(whole.margins))
    return Calibrated(
        calibration=calibration,
        of_fold=of_fold,
        before=before,
        after=before if calibration.why else reliability(whole, mean),
        thresholds=_thresholds(whole, expected, calibration, sorted({*BUDGETS, budget})),
    )


def own_reliability(folds: tuple[CellCounts, ...], made: Calibrated) -> tuple[Reliability, Reliability]:
    """Before and after, on a bank's own rows, each fold by the calibration that it did not fit."""
    whole = folds[0] + folds[1]
    before = reliability(whole, probabilities(whole.margins))
    if made.calibration.why:
        return before, before
    said = [each.probability(counts.margins) for each, counts in zip(made.of_fold, folds, strict=True)]
    expected = said[0] * folds[0].rows + said[1] * folds[1].rows
    return before, reliability(whole, expected / np.maximum(whole.rows, 1))


def _thresholds(
    counts: CellCounts, expected: Doubles, calibration: Calibration, budgets: list[float]
) -> tuple[Threshold, ...]:
    rows, frauds = np.cumsum(counts.rows[::-1]), np.cumsum(counts.frauds[::-1])
    edges = np.arange(counts.rows.size, dtype=np.float64)[::-1] * (24.0 / counts.rows.size) - 12.0
    floor = calibration.probability(edges)
    found = []
    for budget in budgets:
        cells = int(np.searchsorted(rows, math.floor(budget * int(rows[-1])), side="right"))
        alerts, caught = (int(rows[cells - 1]), int(frauds[cells - 1])) if cells else (0, 0)
        said = math.fsum(expected[::-1][:cells].tolist())
        found.append(
            Threshold(
                budget=budget,
                probability=float(floor[cells - 1]) if alerts else None,
                alerts=alerts,
                caught=caught,
                recall=caught / int(frauds[-1]) if frauds[-1] else None,
                expected_precision=said / alerts if alerts else None,
                precision=caught / alerts if alerts else None,
            )
        )
    return tuple(found)


def _told(threshold: Threshold) -> dict[str, Any]:
    return {
        name: round(value, 7) if isinstance(value, float) else value
        for name in Threshold.__slots__
        for value in [getattr(threshold, name)]
    }
