"""Turns the settings an operator writes (config file, trigger form) into `RunSettings`. No I/O."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date
from typing import Any, Final

from dags.settings import SettingsError

__all__ = ["jsonable", "run_settings"]

_DEFAULTS: Final[dict[str, Any]] = {
    "title": "consortium run",
    "params": {},
    "train_until": None,
    "validate_from": None,
    "weight_column": "",
    "tuning": None,
    "data_until": None,
    "alert_budget": 0.005,
    "enrol_seconds": 3600,
    "step_seconds": 600,
    "minimum_roster": 3,
    "pause_seconds": 3600,
}
_REQUIRED: Final = ("roster", "contract_fingerprint")
#: What goes into the document that the banks check (`bank_node.plan.RunPlan`).
_PLAN: Final = ("params", "train_until", "validate_from", "weight_column", "tuning", "data_until", "alert_budget")


def run_settings(document: Mapping[str, Any]) -> Any:
    """Returns `protocol.messages.RunSettings` for a mapping.

    Args:
        document: ``roster`` (list of bank ids) and ``contract_fingerprint`` (hex, of the data contract
            all banks use) are required. ``params`` (XGBoost's names; ``n_estimators`` is the number of
            trees, 50 if absent), ``train_until`` (date; rows before it train, later ones evaluate; null:
            no test rows), ``validate_from`` (date; rows from it to ``train_until`` judge when to stop early),
            ``weight_column`` (what rows weigh: a feature, or a column of each bank's own table), ``tuning`` (a
            mapping with ``sets`` of parameters and ``rungs``: a search, see docs/tuning.md), ``data_until`` (day
            up to which banks should have payments; null: freshness is not judged), ``alert_budget`` (share of
            rows), ``title``, ``enrol_seconds``, ``step_seconds`` (per secure sum), ``pause_seconds`` (how long to
            wait when too few banks answer) and ``minimum_roster`` (3; with 2, each bank can compute the other's
            sums) have defaults.

    Raises:
        SettingsError: If a key is missing, unknown or of the wrong kind.
    """
    from protocol.errors import CrossbankError
    from protocol.halving import tuning_rounds
    from protocol.messages import RunSettings

    if missing := [name for name in _REQUIRED if not document.get(name)]:
        raise SettingsError(f"The settings of a run need {' and '.join(missing)}.")
    if unknown := sorted(set(document) - set(_DEFAULTS) - set(_REQUIRED)):
        raise SettingsError(f"The settings of a run have no key {', '.join(unknown)}.")
    values = _DEFAULTS | jsonable(document)
    if not isinstance(values["params"], Mapping) or not isinstance(values["roster"], list):
        raise SettingsError("The settings of a run need a mapping of params and a list of banks as roster.")
    plan = {name: values[name] for name in _PLAN}
    plan["params"] = {"n_estimators": 50, **values["params"]}
    tuning = values["tuning"]
    try:
        rounds = int(plan["params"]["n_estimators"])
        if tuning is not None:
            rounds = tuning_rounds(tuning, values["validate_from"])
        return RunSettings(
            title=str(values["title"]),
            roster=tuple(str(bank) for bank in values["roster"]),
            contract_fingerprint=str(values["contract_fingerprint"]),
            parameters_json=json.dumps(plan, sort_keys=True),
            rounds=rounds,
            enrol_seconds=int(values["enrol_seconds"]),
            step_seconds=int(values["step_seconds"]),
            minimum_roster=int(values["minimum_roster"]),
            pause_seconds=int(values["pause_seconds"]),
        )
    except (CrossbankError, KeyError, TypeError, ValueError) as error:
        raise SettingsError(f"The settings of a run are wrong: {error}") from error


def jsonable(document: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a mapping read from YAML with its dates as ISO 8601 text, tuples as lists."""
    return dict(json.loads(json.dumps(dict(document), default=_as_text)))


def _as_text(value: object) -> str:
    if isinstance(value, date):
        return value.isoformat()
    raise SettingsError(f"The settings of a run can't hold a {type(value).__name__}.")
