"""Drift of a bank's rows, feature by feature: population stability index against the consortium and its own past.

Everything is computed at the bank, from counts per cell of the contract's grids: its own, and the consortium's, which
are the sum that the bins are made of. Nothing is sent; whether the largest value is told is the contract's to say.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bank_node.boosting.binning import BINNING_TOTALS
from bank_node.dtypes import Integers

__all__ = ["DRIFTED", "RECENT_DAYS", "SHORT_DAYS", "Drift", "drift_of", "psi", "recent_and_past", "split_counts"]


GROUPS = 10
"""Groups of about equal consortium counts, and one more for missing: the usual way to take the index."""

DRIFTED = 0.25
"""From here on a distribution counts as another one, by convention; 0.1 is worth a look."""

RECENT_DAYS = 28
"""A bank's newest rows, compared with its earlier ones."""

SHORT_DAYS = 30
"""The first days of a history, in which the longest windows are not full yet: no past to compare with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """PSI of each feature; None where there are too few rows.

    Attributes:
        growing: features that grow with history, which the words leave out: they would hide the others.
    """

    consortium: dict[str, float | None]
    own_past: dict[str, float | None]
    growing: frozenset[str] = frozenset()

    @property
    def words(self) -> str:
        """One line: the largest values, without a count."""
        parts = []
        for name, found in (("the consortium", self.consortium), ("its own past", self.own_past)):
            known = {
                feature: value for feature, value in found.items() if value is not None and feature not in self.growing
            }
            if known:
                worst = max(known, key=lambda feature: known[feature])
                over = sum(value >= DRIFTED for value in known.values())
                parts.append(f"against {name} {known[worst]:.2f} ({worst}), {over} of {len(known)} above {DRIFTED}")
        return "drift (largest PSI): " + ("; ".join(parts) or "too few rows")

    def to_mapping(self) -> dict[str, Any]:
        """A plain mapping, rounded."""
        return {
            name: {feature: None if value is None else round(value, 4) for feature, value in found.items()}
            for name, found in (("consortium", self.consortium), ("own_past", self.own_past))
        }


def psi(ours: Integers, reference: Integers, *, groups: int = GROUPS, fewest: int = 100) -> float | None:
    """Population stability index of two rows of counts over the same cells; the first cell is "missing".

    Cells are gathered into groups of about equal reference counts; half a row is added to each group on either side,
    so that an empty one does not make it infinite. None with fewer than ``fewest`` rows on a side.

    Args:
        ours, reference: int64 (1 + cells,).
    """
    if int(ours.sum()) < fewest or int(reference.sum()) < fewest:
        return None
    below = np.cumsum(reference[1:])
    total = int(below[-1]) if len(below) else 0
    # A cell belongs to the group that its middle falls into.
    middle = below - reference[1:] / 2
    group = np.minimum((middle * groups / max(total, 1)).astype(np.int64), groups - 1) + 1
    place = np.concatenate([[0], group])
    p = np.bincount(place, weights=ours, minlength=groups + 1)
    q = np.bincount(place, weights=reference, minlength=groups + 1)
    used = (p + q) > 0
    a, b = p[used] + 0.5, q[used] + 0.5
    a, b = a / a.sum(), b / b.sum()
    return float(((a - b) * np.log(a / b)).sum())


def split_counts(vector: Integers, sizes: Sequence[int]) -> list[Integers]:
    """The counts of each feature in the binning step's vector: after the totals, one missing cell and the grid's."""
    parts, place = [], BINNING_TOTALS
    for size in sizes:
        parts.append(vector[place : place + size])
        place += size
    if place != len(vector):
        raise ValueError(f"{len(vector)} counts for {len(sizes)} features of {place - BINNING_TOTALS} cells")
    return parts


def recent_and_past(times: npt.NDArray[np.datetime64]) -> tuple[slice, slice]:
    """Which rows are the newest `RECENT_DAYS`, and which the past: those before, without a history's `SHORT_DAYS`.

    Args:
        times: datetime64 (n,), in order.
    """
    if not len(times):
        return slice(0, 0), slice(0, 0)
    newest = int(np.searchsorted(times, times[-1] - np.timedelta64(RECENT_DAYS, "D"), side="right"))
    full = int(np.searchsorted(times, times[0] + np.timedelta64(SHORT_DAYS, "D")))
    return slice(newest, len(times)), slice(min(full, newest), newest)


def drift_of(
    names: Sequence[str],
    ours: Sequence[Integers],
    consortium: Sequence[Integers],
    recent: Sequence[Integers],
    past: Sequence[Integers],
    growing: Sequence[str] = (),
) -> Drift:
    """PSI of each feature: all our rows against the consortium's, and our recent rows against our earlier ones."""
    return Drift(
        consortium={name: psi(a, b) for name, a, b in zip(names, ours, consortium, strict=True)},
        own_past={name: psi(a, b) for name, a, b in zip(names, recent, past, strict=True)},
        growing=frozenset(growing),
    )
