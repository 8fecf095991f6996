"""The steps that use a released model at a bank: score the newest payments, personalise."""

import datetime as dt
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from bank_node.config import load_config
from bank_node.consortium import Log
from bank_node.files import write_atomic
from bank_node.pipeline.results import Scored
from bank_node.pipeline.working import told_when_full, wipe_keys

if TYPE_CHECKING:
    from bank_node.models.personal import PersonalReport

__all__ = ["personalise", "score"]

logger = logging.getLogger(__name__)


@told_when_full
def score(config_path: Path | str, *, log: Log = logger.info) -> Scored:
    """Score the newest rows with the bank's current model, or its own, and write alerts with reason codes."""
    from bank_node.dataset.feature_tables import feature_rows, last_day
    from bank_node.models.calibrated import AMOUNT, current_calibration, worth_their_cost
    from bank_node.models.personal import personal_model
    from bank_node.models.registry import current_model
    from bank_node.models.scoring import load_model, make_alerts, score_rows
    from features import load_contract

    config = load_config(Path(config_path))
    wipe_keys(config, log=log)
    contract = load_contract(config.contract)
    personal = personal_model(config) if config.scoring_model == "personal" else None
    if config.scoring_model == "personal" and personal is None:
        log("no personalised model of the current one was kept; scoring with the consortium's")
    calibration = None
    if personal is None:
        model, record = current_model(config)
        booster = load_model(model, config.registry / "current.json")
        log(f"model {record.model_sha256[:12]} of run {record.run_id}, trained on rows until {record.trained_until}")
        calibration = current_calibration(config, record)
    else:
        booster = load_model(*personal)
    table = feature_rows(config, contract, since=last_day(config) - dt.timedelta(days=8))
    newest = table["event_time"].max() - pd.Timedelta(days=7)
    recent = table[table["event_time"] > newest].reset_index(drop=True)
    if calibration is None or calibration.why:
        log("scores are the model's own: they rank, and are not calibrated as probabilities")
    scores = score_rows(booster, recent, calibration)
    within = make_alerts(booster, recent, scores, contract.alert_budget, amount=AMOUNT)
    alerts = worth_their_cost(within, config.alert_cost, log)
    path = config.work_dir / "alerts" / "alerts.csv"
    write_atomic(path, alerts.to_csv(index=False).encode())
    log(f"{len(recent)} rows of the last 7 days scored, {len(alerts)} alerts in {path}")
    return {
        "alerts_path": str(path),
        "alerts": len(alerts),
        "rows": len(recent),
        "model": "consortium" if personal is None else "personal",
        "calibrated": calibration is not None and not calibration.why,
        "left_out_by_cost": len(within) - len(alerts),
    }


@told_when_full
def personalise(
    config_path: Path | str,
    *,
    trees: int = 100,
    eta: float = 0.1,
    max_depth: int = 4,
    until: dt.datetime | None = None,
    log: Log = logger.info,
) -> "PersonalReport":
    """Boost on from the consortium's model on the bank's own rows; keep what is better; `models.personal`."""
    from bank_node.boosting import BoostingParameters
    from bank_node.dataset.feature_tables import feature_rows
    from bank_node.models.personal import make_personal
    from features import load_contract

    config = load_config(Path(config_path))
    contract = load_contract(config.contract)
    params = BoostingParameters(n_estimators=trees, eta=eta, max_depth=max_depth, max_bin=255, early_stopping_rounds=10)
    return make_personal(config, contract, feature_rows(config, contract), params, until=until, log=log)
