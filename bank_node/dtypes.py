"""The dtypes of the bank's arrays, one name each, with the reason. It holds no array and checks none.

Docstrings say shape and meaning; these names only the dtype, so that no two modules call the same one differently.
"""

import numpy as np
import numpy.typing as npt

__all__ = ["Doubles", "Floats", "Indices", "Integers", "Words", "Marks", "RowNumbers", "Signs"]

Integers = npt.NDArray[np.int64]
"""Whatever is summed over rows or banks: sums of integers are exact and do not depend on order."""

Floats = npt.NDArray[np.float32]
"""Feature values, weights, margins and bounds: XGBoost's own width, so that both round alike."""

Doubles = npt.NDArray[np.float64]
"""Edges of grids, and arithmetic on sums before it is rounded where XGBoost rounds."""

Marks = npt.NDArray[np.uint8]
"""Flags, labels and bin numbers, a byte each: bins are at most 256, and rows are many."""

RowNumbers = npt.NDArray[np.uint32]
"""Places of rows: half the memory traffic of int64, for up to 2**32 rows at one bank."""

Indices = npt.NDArray[np.int32]
"""Nodes and features of a tree: the width they have in XGBoost's files."""

Signs = npt.NDArray[np.int8]
"""Directions of monotone constraints: -1, 0 or 1."""

Words = npt.NDArray[np.uint64]
"""Sixty-four bits as they are: hashes that draw a sample of rows, and places that kernels index by."""
