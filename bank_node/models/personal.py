"""The personalised model: XGBoost boosts on from the consortium's model on the bank's own rows, and is kept if better.

Nothing of it leaves the bank. Whether it is better is judged on the bank's own later rows, which neither model saw.
"""

import datetime as dt
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import pandas as pd
import xgboost

from bank_node.boosting import BoostingParameters
from bank_node.boosting.row_files import BankRows
from bank_node.config import BankConfig
from bank_node.dataset.splits import labels_of
from bank_node.evaluation.metrics import RankingMetrics, rank_metrics
from bank_node.files import write_atomic
from bank_node.models.lineage import PERSONAL, note_trained_on, seen_until
from bank_node.models.local_baseline import margins_of, train_champion
from bank_node.models.registry import current_model, find_model
from bank_node.models.scoring import load_model
from features import DataContract, labelled_split
from protocol.errors import LocalError

__all__ = ["MINIMUM_FRAUDS", "PersonalReport", "Refinement", "make_personal", "personal_model", "refine"]

#: With fewer frauds to judge by, chance decides which model looks better: the consortium's stays.
MINIMUM_FRAUDS = 10
#: The latest share of the rows to train on tells when to stop.
_STOPPING_SHARE = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Refinement:
    """What boosting on came to: the model, None where the bank's rows can't teach one, and how many trees it added."""

    booster: xgboost.Booster | None
    trees: int


def refine(
    consortium: xgboost.Booster, rows: BankRows, later: BankRows, params: BoostingParameters, threads: int = 1
) -> Refinement:
    """Boost on from a model with XGBoost.

    Args:
        consortium: the model whose trees come first.
        rows: to train on, in the order of its features.
        later: rows by which it stops early; without both kinds of label all ``n_estimators`` trees are added.
        params: of the new trees.
        threads: of XGBoost.
    """
    names = consortium.feature_names or []
    types = consortium.feature_types or []
    sets = [name for name, kind in zip(names, types, strict=True) if kind == "c"]
    chosen = BoostingParameters.from_mapping(params.to_mapping() | {"categorical_features": sets})
    booster = train_champion(
        rows.columns, rows.labels, chosen, names, threads, validation=later, going_on_from=consortium
    )
    before = consortium.num_boosted_rounds()
    return Refinement(booster=booster, trees=0 if booster is None else booster.num_boosted_rounds() - before)


class PersonalReport(TypedDict):
    """What `make_personal` did, and ``report.json``: ``kept`` is "personal" or "consortium", ``why`` says it in words.

    ``consortium`` and ``personal`` are metrics on the judging rows, by `RankingMetrics.to_mapping`.
    """

    kept: str
    why: str
    from_sha256: str
    model_sha256: str | None
    trees_added: int
    trained: dict[str, Any]
    consortium: dict[str, Any]
    personal: dict[str, Any] | None
    params: dict[str, Any]


def make_personal(
    config: BankConfig,
    contract: DataContract,
    table: pd.DataFrame,
    params: BoostingParameters,
    *,
    until: dt.datetime | None = None,
    log: Callable[[str], None],
) -> PersonalReport:
    """Personalise the bank's current model, judge it, keep the better one, and write the model and a report.

    Args:
        config: the bank's; its registry has the current model.
        contract: the bank's own.
        table: its features, all days.
        params: of the new trees.
        until: train on rows before it, judge on those after it plus the label delay; by default, and at the earliest,
            the end of what the consortium's model was trained on.

    Returns:
        The report, as it is written to ``work_dir/models/personal/report.json``.

    Raises:
        LocalError: there is no current model, its training's end is not known and not given, `until` is before it, or
            no labelled rows are on one side of it.
    """
    current, record = current_model(config)
    consortium, digest = load_model(current, config.registry / "current.json"), record.model_sha256
    end = _end(config, digest, until)
    names = consortium.feature_names or []
    if missing := [name for name in names if name not in table.columns]:
        raise LocalError(f"the bank's rows lack the model's feature columns {', '.join(missing)}")
    training, judging = labelled_split(table, end, contract)
    for part, which in ((training, "before"), (judging, f"{contract.label.delay_days} days and more after")):
        if part.empty:
            raise LocalError(f"bank {config.bank_id} has no labelled row {which} {end.date()}: choose another --until")
    middle = training["event_time"].quantile(1.0 - _STOPPING_SHARE)
    first, stopping = training[training["event_time"] < middle], training[training["event_time"] >= middle]
    done = refine(consortium, _rows(first, names), _rows(stopping, names), params)
    judged = _rows(judging, names)

    def metrics(booster: xgboost.Booster) -> RankingMetrics:
        return rank_metrics(judged.labels, margins_of(booster, judged.columns), contract.alert_budget)

    theirs = metrics(consortium)
    ours = None if done.booster is None else metrics(done.booster)
    better, why = _verdict(theirs, ours)
    report: PersonalReport = {
        "kept": "personal" if better else "consortium",
        "why": why,
        "from_sha256": digest,
        "model_sha256": None,
        "trees_added": done.trees,
        "trained": {"until": end.isoformat(), "rows": len(training), "frauds": int(labels_of(training).sum())},
        "consortium": theirs.to_mapping(),
        "personal": None if ours is None else ours.to_mapping(),
        "params": params.to_mapping(),
    }
    folder = config.registry / PERSONAL
    model_path = folder / "model.json"
    if better and done.booster is not None:
        model = bytes(done.booster.save_raw("json"))
        report["model_sha256"] = hashlib.sha256(model).hexdigest()
        note_trained_on(config, PERSONAL, contract, end)
        write_atomic(model_path, model)
    else:
        model_path.unlink(missing_ok=True)
    write_atomic(folder / "report.json", json.dumps(report, indent=2).encode())
    log(f"kept the {report['kept']} model: {why}")
    return report


def personal_model(config: BankConfig) -> tuple[bytes, Path] | None:
    """The personalised model's bytes and file; None if none was kept, or it was made from another than the current one.

    Raises:
        LocalError: it is not the file that its report tells of, or the current model is not the released one.
    """
    folder = config.registry / PERSONAL
    path, report_path = folder / "model.json", folder / "report.json"
    if not path.exists():
        return None
    try:
        report = json.loads(report_path.read_bytes())
        made_from, kept = str(report["from_sha256"]), report["model_sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LocalError(f"{report_path} is missing or damaged; run `bank-node personalise` again") from error
    if made_from != current_model(config)[1].model_sha256:
        return None
    model = path.read_bytes()
    if hashlib.sha256(model).hexdigest() != kept:
        raise LocalError(
            f"model {path} was changed since it was made; it is not used: run `bank-node personalise` again"
        )
    return model, path


def _verdict(consortium: RankingMetrics, personal: RankingMetrics | None) -> tuple[bool, str]:
    """Whether the personalised model is kept, and why."""
    if personal is None:
        return False, "the bank's rows to train on lack frauds, or others"
    if personal.frauds < MINIMUM_FRAUDS or personal.auc_pr is None or consortium.auc_pr is None:
        return False, f"only {personal.frauds} frauds to judge by, at least {MINIMUM_FRAUDS} are needed"
    return personal.auc_pr > consortium.auc_pr, (
        f"AUC-PR {personal.auc_pr:.4f} personalised, {consortium.auc_pr:.4f} the consortium's, on {personal.frauds} "
        f"frauds in {personal.rows} later rows"
    )


def _end(config: BankConfig, sha256: str, until: dt.datetime | None) -> dt.datetime:
    """The end of the rows to train on, naive UTC."""
    given = until.astimezone(dt.UTC).replace(tzinfo=None) if until is not None and until.tzinfo else until
    model = find_model(config, sha256)
    seen = None if model is None else seen_until(config, model.stem)
    found = given or seen
    if found is None:
        raise LocalError(
            f"it is not known until when model {sha256[:12]} saw rows (its run had no train_until, or this bank was "
            "not in it): give --until, and judge on no rows that it was trained on"
        )
    if seen is not None and found < seen:
        raise LocalError(
            f"--until {found.date()} is before {seen.date()}: the consortium's model was trained on rows up to then, "
            "and would be judged on rows it knows"
        )
    return found


def _rows(table: pd.DataFrame, names: list[str]) -> BankRows:
    return BankRows(columns=np.ascontiguousarray(table[names].to_numpy(np.float32)), labels=labels_of(table))
