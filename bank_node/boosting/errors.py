"""The errors of the boosting engine; it handles none of them.

All are the fault of our own side: wrong parameters, wrong rows, or a sum that cannot be a histogram of the
agreed rows. Messages name parameters, columns, counts and steps, never values of a row.
"""

from protocol.errors import LocalError

__all__ = ["BoostingError", "ParameterError", "RowError", "SumError"]


class BoostingError(LocalError):
    """Root of the boosting engine's errors."""


class ParameterError(BoostingError, ValueError):
    """A training parameter is unknown or outside its range; correct the parameters file."""


class RowError(BoostingError, ValueError):
    """The rows or labels of this bank cannot be trained on; correct the feature table."""


class SumError(BoostingError):
    """A summed vector is impossible for the agreed rows; abort the run and look at the step named."""
