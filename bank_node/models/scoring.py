"""Batch scoring with a released model by XGBoost itself, and alerts with SHAP reason codes. No network."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import xgboost

from bank_node.evaluation.calibration import Calibration
from protocol.errors import ConfigError, LocalError

__all__ = ["load_model", "make_alerts", "score_rows"]

#: Reasons given with an alert.
REASONS = 3


def load_model(model: bytes, where: Path) -> xgboost.Booster:
    """A Booster from a model file's bytes, which the caller has checked.

    Args:
        model: XGBoost's JSON.
        where: the file, for the error.

    Raises:
        ConfigError: XGBoost can't read it.
    """
    booster = xgboost.Booster()
    try:
        booster.load_model(bytearray(model))
    except xgboost.core.XGBoostError as error:
        raise ConfigError(f"model {where} can't be read by XGBoost") from error
    return booster


def score_rows(
    booster: xgboost.Booster, rows: pd.DataFrame, calibration: Calibration | None = None
) -> npt.NDArray[np.float64]:
    """Fraud probabilities, float64 of shape (n,), for rows that have the model's feature columns.

    Args:
        calibration: the model's; without one the scores are XGBoost's own.

    Raises:
        LocalError: a feature column is missing; names it.
    """
    names = booster.feature_names or []
    missing = [name for name in names if name not in rows.columns]
    if missing:
        raise LocalError(f"the rows lack the model's feature columns {', '.join(missing)}")
    if calibration is None:
        return np.asarray(booster.predict(_matrix(booster, rows)), dtype=np.float64)
    margins = booster.predict(_matrix(booster, rows), output_margin=True)
    return calibration.probability(margins.astype(np.float64))


def make_alerts(
    booster: xgboost.Booster, rows: pd.DataFrame, scores: np.ndarray, budget: float, amount: str = ""
) -> pd.DataFrame:
    """The highest-scored rows within the alert budget, with the features that raised each score most.

    Args:
        booster: the model.
        rows: with ``row_id``, ``event_time`` and the feature columns.
        scores: shape (n,).
        budget: share of rows to alert on; at least one row.
        amount: the column that says what a missed fraud costs; without it the expected loss is missing.

    Returns:
        ``row_id, event_time, score, expected_loss, reason_1..3``, highest score first; the expected loss is score times
        amount. A reason is a feature name and its SHAP
        value in log-odds; only features that raise the score are reasons.
    """
    count = min(len(rows), max(1, int(budget * len(rows))))
    top = np.argsort(-scores, kind="stable")[:count]
    chosen = rows.iloc[top]
    names = booster.feature_names or []
    shap = booster.predict(_matrix(booster, chosen), pred_contribs=True)[:, :-1]
    order = np.argsort(-shap, axis=1, kind="stable")[:, :REASONS]
    alerts = chosen[["row_id", "event_time"]].reset_index(drop=True)
    alerts["score"] = scores[top]
    alerts["expected_loss"] = scores[top] * chosen[amount].to_numpy(np.float64) if amount in chosen.columns else np.nan
    for place in range(REASONS):
        if place >= len(names):
            alerts[f"reason_{place + 1}"] = ""
            continue
        column = order[:, place]
        value = shap[np.arange(count), column]
        alerts[f"reason_{place + 1}"] = [
            f"{names[c]} {v:+.2f}" if v > 0 else "" for c, v in zip(column, value, strict=True)
        ]
    return alerts


def _matrix(booster: xgboost.Booster, rows: pd.DataFrame) -> xgboost.DMatrix:
    names = booster.feature_names or []
    return xgboost.DMatrix(
        rows[names].to_numpy(np.float32),
        feature_names=names,
        feature_types=booster.feature_types,
        enable_categorical=True,
        nthread=1,
    )
