"""Made-up rows for the boosting tests, and the short way through binning and training at one bank."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bank_node.boosting import (
    BinnedRows,
    BoostingParameters,
    Cuts,
    Tree,
    bin_rows,
    export_booster,
    global_bins,
    train_trees,
)
from bank_node.consortium import SecureSum


def alone(step: str, vector: np.ndarray) -> np.ndarray:
    """The secure sum of a single bank."""
    return vector


def make_rows(
    n: int, f: int = 6, *, seed: int = 0, missing: float = 0.0, share: float = 0.1
) -> tuple[np.ndarray, np.ndarray]:
    """float32 (n, f) columns and uint8 labels; being missing in column 0 makes a 1 more likely."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, f)).astype(np.float32)
    z = x[:, 0] + 0.8 * x[:, 1] * x[:, 2] + 0.5 * np.sin(3 * x[:, 3]) + rng.normal(size=n)
    if missing:
        gone = rng.random(x.shape) < missing
        z += gone[:, 0]
        x[gone] = np.nan
    return x, (z > np.quantile(z, 1 - share)).astype(np.uint8)


def grids(f: int) -> list[np.ndarray]:
    """The fine grids of `make_rows` columns."""
    return [np.linspace(-3.5, 3.5, 400)] * f


@dataclass
class Trained:
    """What one bank ends with."""

    trees: list[Tree]
    cuts: Cuts
    binned: BinnedRows
    base_score: float
    model: bytes


def names(f: int) -> list[str]:
    """Feature names."""
    return [f"feature_{i}" for i in range(f)]


def make_mixed_rows(n: int, *, seed: int = 0, categories: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """float32 (n, 6) columns of which 4 and 5 are category numbers (5 has three), with missing values, and labels."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 6)).astype(np.float32)
    x[:, 4], x[:, 5] = rng.integers(0, categories, n), rng.integers(0, 3, n)
    effect = rng.normal(size=categories)[x[:, 4].astype(int)]
    z = x[:, 0] + effect + 0.7 * (x[:, 5] == 1) * x[:, 1] - 0.4 * x[:, 2] + rng.normal(size=n)
    x[rng.random(x.shape) < 0.06] = np.nan
    return x, (z > np.quantile(z, 0.85)).astype(np.uint8)


def train(
    x: np.ndarray,
    y: np.ndarray,
    params: BoostingParameters,
    secure_sum: SecureSum = alone,
    edges: Sequence[np.ndarray] | None = None,
    *,
    weights: np.ndarray | None = None,
    keys: np.ndarray | None = None,
) -> Trained:
    """Bins, trains and exports at one bank."""
    labels = names(x.shape[1])
    cuts = global_bins(
        x,
        y,
        edges or grids(x.shape[1]),
        params.max_bin,
        secure_sum,
        feature_names=labels,
        categorical=[name in params.categorical_features for name in labels],
        weights=weights,
    )
    binned = bin_rows(x, cuts)
    trees = train_trees(binned, y, params, secure_sum, n_rows_total=cuts.n_rows_total, weights=weights, row_keys=keys)
    base_score = cuts.base_score(params)
    model = export_booster(trees, cuts, params, labels, base_score)
    return Trained(trees, cuts, binned, base_score, model)
