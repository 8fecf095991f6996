"""The errors of the boosting engine; it handles none of them.

All are the fault of our own side: wrong rows, or a sum that cannot be a histogram of the
agreed rows. Messages name columns, counts and steps, never values of a row.
"""

from protocol.errors import LocalError

__all__ = ["BoostingError", "RowError", "SumError"]


class BoostingError(LocalError):
    """Root of the boosting engine's errors."""


class RowError(BoostingError, ValueError):
    """The rows or labels of this bank cannot be trained on; correct the feature table."""


class SumError(BoostingError):
    """A summed vector is impossible for the agreed rows; abort the run and look at the step named."""
