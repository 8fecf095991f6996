"""The local champion: what the bank gets from XGBoost on its own rows alone, to compare with. No network."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xgboost

from bank_node.boosting import BoostingParameters
from bank_node.boosting.row_files import BankRows
from bank_node.boosting.xgboost_settings import feature_types, rate_schedule, xgboost_settings
from bank_node.dtypes import Floats

__all__ = [
    "margins_of",
    "train_champion",
]


def train_champion(
    columns: Floats,
    labels: npt.NDArray[Any],
    params: BoostingParameters,
    feature_names: Sequence[str],
    threads: int = 1,
    weights: Floats | None = None,
    validation: BankRows | None = None,
    going_on_from: xgboost.Booster | None = None,
) -> xgboost.Booster | None:
    """Train XGBoost (``hist``) with the run's parameters on the given rows; None when there is no fraud to learn.

    Args:
        columns: float32 (n, features).
        labels: 0 or 1, (n,).
        params: the run's.
        feature_names: names of the columns.
        threads: of XGBoost; 0 for one a core.
        weights: float32 (n,), or None where each row weighs 1.
        validation: with ``early_stopping_rounds``, the rows by which XGBoost stops early, if they have both kinds of
            label; without them it trains all ``n_estimators`` trees.
        going_on_from: a model whose trees come first.
    """
    if not 0 < int(np.count_nonzero(labels)) < len(labels):
        return None
    types = feature_types(params, feature_names)
    matrix = xgboost.QuantileDMatrix(
        columns,
        label=labels,
        weight=weights,
        feature_names=list(feature_names),
        feature_types=types,
        enable_categorical=True,
        max_bin=params.max_bin,
        nthread=threads,
    )
    evals, callbacks = [], rate_schedule(params)
    patience = params.early_stopping_rounds
    if patience and validation is not None and 0 < int(validation.labels.sum()) < validation.labels.size:
        judge = xgboost.QuantileDMatrix(
            validation.columns,
            label=validation.labels,
            feature_names=list(feature_names),
            feature_types=types,
            enable_categorical=True,
            max_bin=params.max_bin,
            ref=matrix,
            nthread=threads,
        )
        evals = [(judge, "validation")]
        callbacks.append(
            xgboost.callback.EarlyStopping(rounds=patience, save_best=True, maximize=params.eval_metric == "aucpr")
        )
    return xgboost.train(
        xgboost_settings(params) | {"nthread": threads, "eval_metric": params.eval_metric},
        matrix,
        params.n_estimators,
        evals=evals,
        callbacks=callbacks,
        verbose_eval=False,
        xgb_model=going_on_from,
    )


def margins_of(booster: xgboost.Booster, columns: Floats, threads: int = 1) -> Floats:
    """A Booster's log-odds, float32 (n,), of rows in its features' order; category numbers stay numbers."""
    matrix = xgboost.DMatrix(
        columns,
        feature_names=booster.feature_names,
        feature_types=booster.feature_types,
        enable_categorical=True,
        nthread=threads,
    )
    return np.asarray(booster.predict(matrix, output_margin=True))
