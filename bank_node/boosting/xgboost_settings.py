"""What XGBoost itself takes of the consortium's parameters. Trains nothing."""

from collections.abc import Sequence
from typing import Any

import xgboost

from protocol.parameters import BoostingParameters

__all__ = ["feature_types", "rate_schedule", "xgboost_settings"]


#: Parameters that XGBoost has under the same name and takes with the same meaning.
_SHARED = (
    "max_depth", "max_leaves", "grow_policy", "reg_lambda", "reg_alpha", "gamma", "min_child_weight",
    "max_delta_step", "scale_pos_weight", "max_bin", "seed", "subsample", "colsample_bytree", "colsample_bylevel",
    "colsample_bynode", "max_cat_to_onehot", "max_cat_threshold",
)  # fmt: skip


def xgboost_settings(params: BoostingParameters) -> dict[str, Any]:
    """What `xgboost.train` takes of the run's parameters; constraints by feature name, only where there are any.

    Not among them are the number of trees, the learning-rate schedule, early stopping and which features are
    categorical: those are arguments of training or of the matrix. XGBoost draws its own samples from the seed.
    """
    settings: dict[str, Any] = {name: getattr(params, name) for name in _SHARED}
    # Not "eta": XGBoost's learning-rate callback sets the other name, and eta would win.
    settings["learning_rate"] = params.rate(0)
    if params.base_score is not None:
        settings["base_score"] = params.base_score
    if params.monotone_constraints:
        settings["monotone_constraints"] = dict(params.monotone_constraints)
    if params.interaction_constraints:
        settings["interaction_constraints"] = [list(group) for group in params.interaction_constraints]
    return settings | {"tree_method": "hist", "objective": "binary:logistic", "verbosity": 0}


def feature_types(params: BoostingParameters, feature_names: Sequence[str]) -> list[str]:
    """XGBoost's type of each feature: ``c`` for categories, ``float`` for the others."""
    return ["c" if name in params.categorical_features else "float" for name in feature_names]


def rate_schedule(params: BoostingParameters) -> list[xgboost.callback.TrainingCallback]:
    """The callback that gives each tree its learning rate: XGBoost asks after a tree, for the one that comes next."""
    if not params.learning_rates:
        return []
    return [xgboost.callback.LearningRateScheduler(lambda index: params.rate(index + 1))]
