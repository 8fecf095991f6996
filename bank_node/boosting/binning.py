"""Global bins: one set of cuts for all banks, and rows as small integers; it knows nothing of trees.

A contract fixes a fine grid of cells for each feature. The banks sum how many rows fall in each cell, and
every bank picks the same quantile cuts from the same totals. Bin b of a feature with cuts c holds the values
c[b-1] <= x < c[b], the first bin reaching down and the last one up without end. A categorical feature has a bin
for each category number instead, up to the largest that any bank has.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from bank_node.boosting.archive import pack_arrays, unpack_arrays
from bank_node.boosting.errors import BoostingError, RowError, SumError
from bank_node.boosting.gradients import WEIGHT_BITS, estimate_base_score
from bank_node.consortium import SecureSum
from bank_node.dtypes import Doubles, Floats, Indices, Integers, Marks
from bank_node.kernels import kernel
from protocol.parameters import MAX_BINS, BoostingParameters
from protocol.steps import Step

__all__ = [
    "BINNING_TOTALS",
    "BinnedRows",
    "Cuts",
    "agreed_bins",
    "bin_counts",
    "bin_rows",
    "bin_rows_naive",
    "check_labels",
    "check_weights",
    "cuts_from_bytes",
    "cuts_to_bytes",
    "global_bins",
    "grid_counts",
    "quantile_cuts",
]


_LARGEST = np.finfo(np.float32).max
BINNING_TOTALS = 4
"""Numbers before the counts in the binning step's vector, see `_counts`."""
_CHECKED_ROWS = 1 << 16
MAX_CATEGORIES = MAX_BINS - 1
"""Categories of a feature: as many as there are bins besides the missing one."""
_LARGEST_WEIGHT = 2.0**20
_BLOCK = 256
"""Values searched together; their scratch stays in the innermost cache."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cuts:
    """The bins all banks agreed on, and the global counts that came with them.

    Attributes:
        values: Per feature the cuts, float32 increasing, 0 to 254 of them.
        has_missing: bool (f,), whether any bank has a missing value of the feature.
        n_rows_total: Rows of all banks.
        n_positive_total: Rows with label 1 of all banks.
        feature_names: Names, or None.
        categorical: bool (f,), whether a feature's bins are categories; by default none is.
        weight_total: Weight of all banks' rows, in units of 2**-`WEIGHT_BITS`; by default each row weighs 1.
        weight_positive_total: Weight of those with label 1.
    """

    values: tuple[Floats, ...]
    has_missing: npt.NDArray[np.bool_]
    n_rows_total: int
    n_positive_total: int
    feature_names: tuple[str, ...] | None = None
    categorical: npt.NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, dtype=np.bool_))
    weight_total: int = -1
    weight_positive_total: int = -1

    def __post_init__(self) -> None:
        """Checks shapes and order of the cuts, and fills in what was left to its default."""
        if not self.categorical.size:
            object.__setattr__(self, "categorical", np.zeros(len(self.values), dtype=np.bool_))
        for weight, rows in (("weight_total", self.n_rows_total), ("weight_positive_total", self.n_positive_total)):
            if getattr(self, weight) < 0:
                object.__setattr__(self, weight, rows << WEIGHT_BITS)
        if self.categorical.shape != (len(self.values),):
            raise BoostingError(f"{len(self.values)} features have cuts but {self.categorical.size} category marks")
        if self.has_missing.shape != (len(self.values),):
            raise BoostingError(f"{len(self.values)} features have cuts but {self.has_missing.size} missing marks")
        if self.feature_names is not None and len(self.feature_names) != len(self.values):
            raise BoostingError(f"{len(self.values)} features have cuts but {len(self.feature_names)} names")
        for feature, cuts in enumerate(self.values):
            if cuts.dtype != np.float32 or cuts.ndim != 1 or cuts.size >= MAX_BINS:
                raise BoostingError(f"cuts of feature {feature} must be at most {MAX_BINS - 1} float32 values")
            if not np.isfinite(cuts).all() or (np.diff(cuts) <= 0).any():
                raise BoostingError(f"cuts of feature {feature} must be finite and strictly increasing")

    @property
    def n_features(self) -> int:
        """Number of features."""
        return len(self.values)

    @property
    def n_bins(self) -> Integers:
        """Bins of each feature without the missing one, int64 (f,)."""
        return np.array([cuts.size + 1 for cuts in self.values], dtype=np.int64)

    @property
    def total_bins(self) -> int:
        """Bins of all features together, without the missing ones."""
        return int(self.n_bins.sum())

    def base_score(self, parameters: BoostingParameters) -> float:
        """The probability training starts from, see `estimate_base_score`."""
        unit = 2.0**-WEIGHT_BITS
        return estimate_base_score(parameters, self.weight_total * unit, self.weight_positive_total * unit)

    @property
    def total_weight(self) -> int:
        """Weight of all banks' rows, rounded up."""
        return -(-self.weight_total >> WEIGHT_BITS)

    def name(self, feature: int) -> str:
        """What to call a feature in a message."""
        return self.feature_names[feature] if self.feature_names else str(feature)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BinnedRows:
    """The rows of one bank as bin numbers.

    Attributes:
        bins: uint8 (n, f), row-major: the number of cuts <= x, or `n_bins[f]` for a missing value.
        cuts: The cuts used.
    """

    bins: Marks
    cuts: Cuts

    @property
    def n_rows(self) -> int:
        """Rows of this bank, may be 0."""
        return int(self.bins.shape[0])


def _checked_columns(columns: Floats, n_features: int, names: Sequence[str] | None = None) -> Floats:
    if columns.ndim != 2 or columns.shape[1] != n_features:
        raise RowError(f"feature columns have shape {columns.shape}, expected (rows, {n_features})")
    columns = np.ascontiguousarray(columns, dtype=np.float32)
    counts = np.zeros(n_features, dtype=np.int64)
    # In pieces: the rows may be a file larger than memory.
    for start in range(0, columns.shape[0], _CHECKED_ROWS):
        counts += (np.abs(columns[start : start + _CHECKED_ROWS]) >= _LARGEST).sum(axis=0)
    if counts.any():
        feature = int(np.argmax(counts > 0))
        raise RowError(
            f"{_called(names, feature)} has {int(counts[feature])} values that are infinite or too large for "
            "float32; use NaN for missing values"
        )
    return columns


def _called(names: Sequence[str] | None, feature: int) -> str:
    """A feature by its name, by its place where it has none."""
    return f"feature column {feature}" if names is None else f"feature {names[feature]}"


def check_labels(labels: npt.ArrayLike, n_rows: int) -> Marks:
    """Labels as uint8 (n,).

    Raises:
        RowError: When the number of labels is not `n_rows`, or one is not 0 or 1 (NaN included).
    """
    given = np.asarray(labels)
    if given.shape != (n_rows,):
        raise RowError(f"labels have shape {given.shape}, expected ({n_rows},)")
    if given.size == 0:
        return np.empty(0, dtype=np.uint8)
    bad = ~((given == 0) | (given == 1))
    if bad.any():
        raise RowError(
            f"{int(bad.sum())} of {n_rows} labels are not 0 or 1, the first in row {int(np.argmax(bad))}; "
            "train on rows with known labels only"
        )
    return np.ascontiguousarray(given, dtype=np.uint8)


def check_weights(weights: npt.ArrayLike | None, n_rows: int) -> Floats | None:
    """Weights as float32 (n,), or None where each row weighs 1.

    Raises:
        RowError: When the number of weights is not `n_rows`, or one is negative, not finite or above 2**20.
    """
    if weights is None:
        return None
    given = np.ascontiguousarray(weights, dtype=np.float32)
    if given.shape != (n_rows,):
        raise RowError(f"weights have shape {given.shape}, expected ({n_rows},)")
    bad = ~((given >= 0) & (given <= _LARGEST_WEIGHT))
    if bad.any():
        raise RowError(
            f"{int(bad.sum())} of {n_rows} weights are negative, missing or above {_LARGEST_WEIGHT:g}, the first in "
            f"row {int(np.argmax(bad))}"
        )
    return given


def quantile_cuts(counts: Integers, edges: Floats, max_bin: int) -> Floats:
    """Picks cuts among the edges so that at most `max_bin` bins hold about equally many rows.

    No bin is empty. With `max_bin` or fewer cells in use every one gets its bin; otherwise cells join from
    below until a bin has its share of the rows not yet placed, so one crowded cell does not starve the rest.

    Args:
        counts: int64 (m + 1,), rows in each cell, cell j holding edges[j-1] <= x < edges[j].
        edges: float32 (m,), increasing.
        max_bin: Most bins, 2 to 255.

    Returns:
        float32 increasing, at most max_bin - 1. Integers only are compared, so all banks pick the same.
    """
    used = np.flatnonzero(counts)
    if used.size <= 1:
        return np.empty(0, dtype=np.float32)
    if used.size <= max_bin:
        return edges[used[1:] - 1].copy()
    weights = [int(count) for count in counts[used]]
    rows_left, bins_left = sum(weights), max_bin
    chosen: list[int] = []
    inside = 0
    for position, weight in enumerate(weights):
        cells_left = len(weights) - position
        # Close the bin before this cell when it has its share, or would overshoot it by more than it misses.
        full = inside > 0 and (2 * inside + weight) * bins_left > 2 * rows_left
        if inside > 0 and bins_left > 1 and (full or cells_left <= bins_left - 1):
            chosen.append(int(used[position]) - 1)
            rows_left -= inside
            bins_left -= 1
            inside = 0
        inside += weight
    return edges[np.array(chosen, dtype=np.int64)].copy()


@kernel
def _search(table: Floats, values: Floats, places: Indices) -> None:
    # How many entries of `table`, 2**k - 1 of them, increasing, are <= each value; 0 for NaN. All values take each
    # of the k steps together, without a branch, so that the processor's vectors can be used.
    for i in range(values.shape[0]):
        places[i] = 0
    step = (table.shape[0] + 1) >> 1
    while step:
        for i in range(values.shape[0]):
            place = places[i]
            places[i] = place + np.int32(step) * np.int32(table[place + step - 1] <= values[i])
        step >>= 1


@kernel
def _count_cells(columns: Floats, feature: int, table: Floats, out: Integers) -> None:
    # out[0] counts missing values, out[1 + j] cell j.
    values = np.empty(_BLOCK, dtype=np.float32)
    places = np.empty(_BLOCK, dtype=np.int32)
    for start in range(0, columns.shape[0], _BLOCK):
        size = min(_BLOCK, columns.shape[0] - start)
        for i in range(size):
            values[i] = columns[start + i, feature]
        _search(table, values[:size], places[:size])
        for i in range(size):
            out[0 if values[i] != values[i] else 1 + places[i]] += 1


def global_bins(
    columns: Floats,
    labels: npt.ArrayLike,
    grids: Sequence[Doubles],
    max_bin: int,
    secure_sum: SecureSum,
    *,
    feature_names: Sequence[str] | None = None,
    categorical: Sequence[bool] | None = None,
    weights: npt.ArrayLike | None = None,
    step: str = Step.bins(0, 0).text,
) -> Cuts:
    """Agrees on the bins of all features with the other banks, in one secure sum.

    Args:
        columns: float32 (n, f) of this bank, NaN for missing; n may be 0.
        labels: 0 or 1, (n,).
        grids: Per feature the edges of the fine grid, increasing, the same at all banks.
        max_bin: Most bins of a feature, 2 to 255.
        secure_sum: The sum over the banks.
        feature_names: Names to carry in the result.
        categorical: Which features are category numbers, 0 to 253; their grids and `max_bin` are not used.
        weights: Weights of the rows, or None where each weighs 1. Bins hold equally many rows, not equal weight.
        step: Name of the step.

    Returns:
        The same cuts at every bank. A feature whose present values share one cell gets no cut.

    Raises:
        RowError: For values that are infinite, labels that are not 0 or 1, bad weights or category numbers.
        SumError: When the summed counts contradict one another.
    """
    vector = bin_counts(columns, labels, grids, feature_names=feature_names, categorical=categorical, weights=weights)
    return agreed_bins(
        vector, grids, max_bin, secure_sum, feature_names=feature_names, categorical=categorical, step=step
    )


def bin_counts(
    columns: Floats,
    labels: npt.ArrayLike,
    grids: Sequence[Doubles],
    *,
    feature_names: Sequence[str] | None = None,
    categorical: Sequence[bool] | None = None,
    weights: npt.ArrayLike | None = None,
) -> Integers:
    """What a bank adds to the binning step, for arguments as of `global_bins`: counts, so those of parts add up.

    Returns:
        int64 (m,): the rows' totals, and for each feature the missing values and those in each cell of its grid.

    Raises:
        RowError: For values that are infinite, labels that are not 0 or 1, bad weights or category numbers.
    """
    columns = _checked_columns(np.asarray(columns), len(grids), feature_names)
    marks = check_labels(labels, columns.shape[0])
    masses = check_weights(weights, columns.shape[0])
    kinds = _kinds(categorical, len(grids))
    _check_categories(columns, kinds, feature_names)
    edges = _all_edges(grids, kinds)
    starts = _starts(edges)
    vector = np.zeros(int(starts[-1]), dtype=np.int64)
    vector[:BINNING_TOTALS] = _counts(marks, masses)
    for feature, grid in enumerate(edges):
        _count_cells(columns, feature, _padded(grid), vector[starts[feature] : starts[feature + 1]])
    return vector


def agreed_bins(
    vector: Integers,
    grids: Sequence[Doubles],
    max_bin: int,
    secure_sum: SecureSum,
    *,
    feature_names: Sequence[str] | None = None,
    categorical: Sequence[bool] | None = None,
    step: str = Step.bins(0, 0).text,
) -> Cuts:
    """The second half of `global_bins`: one secure sum of this bank's `bin_counts`, and the cuts that follow from it.

    Raises:
        SumError: When the summed counts contradict one another.
    """
    if not 2 <= max_bin <= MAX_BINS:
        raise BoostingError(f"max_bin must be between 2 and {MAX_BINS}, got {max_bin}")
    kinds = _kinds(categorical, len(grids))
    edges = _all_edges(grids, kinds)
    starts = _starts(edges)
    total = secure_sum(step, vector)
    if total.shape != vector.shape or total.dtype != np.int64:
        raise SumError(f"step {step}: the sum has shape {total.shape} {total.dtype}, expected {vector.shape} int64")
    n_rows, n_positive, weight, positive_weight = (int(value) for value in total[:BINNING_TOTALS])
    if not 0 <= n_positive <= n_rows or not 0 <= positive_weight <= weight:
        raise SumError(f"step {step}: the summed counts or weights of labels contradict one another")
    values, has_missing = [], []
    for feature, grid in enumerate(edges):
        counts = total[starts[feature] : starts[feature + 1]]
        if (counts < 0).any() or int(counts.sum()) != n_rows:
            raise SumError(f"step {step}: the summed counts of feature {feature} do not add up to {n_rows} rows")
        used = np.flatnonzero(counts[1:])
        chosen = (
            grid[: int(used[-1]) if used.size else 0] if kinds[feature] else quantile_cuts(counts[1:], grid, max_bin)
        )
        values.append(chosen.astype(np.float32))
        has_missing.append(bool(counts[0] > 0))
    return Cuts(
        values=tuple(values),
        has_missing=np.array(has_missing, dtype=np.bool_),
        n_rows_total=n_rows,
        n_positive_total=n_positive,
        feature_names=None if feature_names is None else tuple(feature_names),
        categorical=kinds,
        weight_total=weight,
        weight_positive_total=positive_weight,
    )


def _kinds(categorical: Sequence[bool] | None, n_features: int) -> npt.NDArray[np.bool_]:
    return np.zeros(n_features, dtype=np.bool_) if categorical is None else np.asarray(categorical, dtype=np.bool_)


def _all_edges(grids: Sequence[Doubles], kinds: npt.NDArray[np.bool_]) -> list[Floats]:
    return [
        np.arange(1, MAX_CATEGORIES, dtype=np.float32) if kinds[feature] else _grid_edges(feature, grid)
        for feature, grid in enumerate(grids)
    ]


def _starts(edges: Sequence[Floats]) -> Integers:
    """Where each feature's counts begin in the binning step's vector, and where the last one's end."""
    return BINNING_TOTALS + np.concatenate(([0], np.cumsum([grid.size + 2 for grid in edges]))).astype(np.int64)


def grid_counts(columns: Floats, grids: Sequence[Doubles], names: Sequence[str] | None = None) -> list[Integers]:
    """Counts of each feature's values as `global_bins` takes them: missing first, then the cells of its grid."""
    columns = _checked_columns(np.ascontiguousarray(columns), len(grids), names)
    found = []
    for feature, grid in enumerate(_grid_edges(number, grid) for number, grid in enumerate(grids)):
        counts = np.zeros(grid.size + 2, dtype=np.int64)
        _count_cells(columns, feature, _padded(grid), counts)
        found.append(counts)
    return found


def _counts(marks: Marks, weights: Floats | None) -> tuple[int, int, int, int]:
    """Rows, positive rows, and the weights of both in units of 2**-`WEIGHT_BITS`."""
    rows, positive = marks.size, int(marks.sum())
    if weights is None:
        return rows, positive, rows << WEIGHT_BITS, positive << WEIGHT_BITS
    units = np.ceil(weights.astype(np.float64) * 2.0**WEIGHT_BITS).astype(np.int64)
    return rows, positive, int(units.sum()), int(units[marks == 1].sum())


def _check_categories(columns: Floats, categorical: npt.NDArray[np.bool_], names: Sequence[str] | None) -> None:
    for feature in np.flatnonzero(categorical).tolist():
        column = columns[:, feature]
        known = (column >= 0) & (column < MAX_CATEGORIES) & (column == np.floor(column))
        wrong = int(np.count_nonzero(~known & ~np.isnan(column)))
        if wrong:
            name = names[feature] if names else str(feature)
            raise RowError(
                f"feature {name} is categorical, but {wrong} values are no category numbers: whole numbers from 0 to "
                f"{MAX_CATEGORIES - 1}"
            )


def _grid_edges(feature: int, grid: Doubles) -> Floats:
    # Cuts are float32, so cells are too: edges that become equal in float32 are one edge.
    edges = np.asarray(grid, dtype=np.float64)
    if edges.ndim != 1 or not np.isfinite(edges).all() or (np.diff(edges) < 0).any():
        raise BoostingError(f"the grid of feature {feature} must be one row of finite, increasing edges")
    if (np.abs(edges) >= float(_LARGEST)).any():
        raise BoostingError(f"the grid of feature {feature} has edges too large for float32")
    return np.unique(edges.astype(np.float32))


@kernel
def _bin_into(
    columns: Floats,
    tables: Floats,
    missing_bins: Marks,
    out: Marks,
) -> None:
    values = np.empty(_BLOCK, dtype=np.float32)
    places = np.empty(_BLOCK, dtype=np.int32)
    for start in range(0, columns.shape[0], _BLOCK):
        size = min(_BLOCK, columns.shape[0] - start)
        for f in range(columns.shape[1]):
            for i in range(size):
                values[i] = columns[start + i, f]
            _search(tables[f], values[:size], places[:size])
            for i in range(size):
                out[start + i, f] = missing_bins[f] if values[i] != values[i] else np.uint8(places[i])


def _padded(edges: Floats, width: int = 0) -> Floats:
    """Edges filled up with infinity to 2**k - 1 of them, and at least `width`."""
    table = np.full((1 << max(edges.size, width).bit_length()) - 1, np.inf, dtype=np.float32)
    table[: edges.size] = edges
    return table


def bin_rows(columns: Floats, cuts: Cuts) -> BinnedRows:
    """Replaces each value by its bin.

    Args:
        columns: float32 (n, f), NaN for missing.
        cuts: From `global_bins`.

    Returns:
        uint8 (n, f): the number of cuts <= x, so a row goes left of cut i exactly when x < cut; missing is
        one past the last bin of its feature. Cost: a binary search a value.

    Raises:
        RowError: For a wrong number of columns, infinite values, or categories that the bins do not know.
    """
    columns = _checked_columns(np.asarray(columns), cuts.n_features, cuts.feature_names)
    longest = max((values.size for values in cuts.values), default=0)
    tables = np.empty((cuts.n_features, (1 << longest.bit_length()) - 1), dtype=np.float32)
    for f, values in enumerate(cuts.values):
        tables[f] = _padded(values, longest)
    _check_categories(columns, cuts.categorical, cuts.feature_names)
    for f in np.flatnonzero(cuts.categorical).tolist():
        unknown = int(np.count_nonzero(columns[:, f] > cuts.values[f].size))
        if unknown:
            raise RowError(f"feature {cuts.name(f)} has {unknown} categories that the bins were not agreed on")
    out = np.empty(columns.shape, dtype=np.uint8)
    _bin_into(columns, tables, cuts.n_bins.astype(np.uint8), out)
    return BinnedRows(bins=out, cuts=cuts)


def bin_rows_naive(columns: Floats, cuts: Cuts) -> Marks:
    """Twin of `bin_rows`: counts the cuts below each value one by one."""
    out = np.zeros(columns.shape, dtype=np.uint8)
    for i, row in enumerate(columns):
        for f, x in enumerate(row):
            values = cuts.values[f]
            out[i, f] = len(values) + 1 if np.isnan(x) else sum(1 for cut in values if cut <= x)
    return out


def cuts_to_bytes(cuts: Cuts) -> bytes:
    """Cuts as a checkpoint; equal cuts give equal bytes, so a digest of them shows that banks agree."""
    return pack_arrays(
        {
            "values": np.concatenate([np.empty(0, dtype=np.float32), *cuts.values]),
            "sizes": np.array([values.size for values in cuts.values], dtype=np.int64),
            "has_missing": cuts.has_missing,
            "categorical": cuts.categorical,
            "counts": np.array(
                [cuts.n_rows_total, cuts.n_positive_total, cuts.weight_total, cuts.weight_positive_total],
                dtype=np.int64,
            ),
            "names": np.array(json.dumps(cuts.feature_names)),
        }
    )


def cuts_from_bytes(data: bytes) -> Cuts:
    """Reads what `cuts_to_bytes` wrote.

    Raises:
        BoostingError: When the bytes are not such an archive.
    """
    arrays = unpack_arrays(data, ("values", "sizes", "has_missing", "categorical", "counts", "names"), what="bins")
    sizes = arrays["sizes"]
    names = json.loads(str(arrays["names"]))
    return Cuts(
        values=tuple(np.split(arrays["values"], np.cumsum(sizes)[:-1])) if sizes.size else (),
        has_missing=arrays["has_missing"],
        categorical=arrays["categorical"],
        n_rows_total=int(arrays["counts"][0]),
        n_positive_total=int(arrays["counts"][1]),
        weight_total=int(arrays["counts"][2]),
        weight_positive_total=int(arrays["counts"][3]),
        feature_names=None if names is None else tuple(names),
    )
