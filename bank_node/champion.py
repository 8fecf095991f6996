"""The local champion: what the bank gets from XGBoost on its own rows alone, to compare with. No network."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xgboost

from bank_node.boosting import BoostingParameters

__all__ = ["train_champion"]


def train_champion(
    columns: npt.NDArray[np.float32],
    labels: npt.NDArray[Any],
    params: BoostingParameters,
    feature_names: Sequence[str],
    threads: int = 1,
) -> xgboost.Booster | None:
    """Train XGBoost (``hist``) with the run's parameters on the given rows; None when there is no fraud to learn."""
    if not 0 < int(np.count_nonzero(labels)) < len(labels):
        return None
    settings = params.to_mapping()
    rounds = int(settings.pop("n_estimators"))
    for ours in ("xgboost_arithmetic", "histogram_layout"):  # XGBoost follows its own
        settings.pop(ours, None)
    if settings.get("base_score") is None:
        settings.pop("base_score", None)
    settings |= {"tree_method": "hist", "objective": "binary:logistic", "nthread": threads, "verbosity": 0}
    matrix = xgboost.QuantileDMatrix(
        columns, label=labels, feature_names=list(feature_names), max_bin=params.max_bin, nthread=threads
    )
    return xgboost.train(settings, matrix, num_boost_round=rounds)
