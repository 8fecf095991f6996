"""What a model was trained on: which days, and what they were made of. Removes nothing."""

import datetime as dt
import json
from typing import Any

from bank_node.config import BankConfig
from bank_node.files import write_atomic
from bank_node.models.registry import find_model, released_runs
from features import DataContract
from features.store.partitions import FeatureStore
from features.store.purging import Affected

__all__ = ["PERSONAL", "note_trained_on", "seen_by", "seen_until"]


#: Stands for a run where a model is the bank's personalised one; also its folder in the registry.
PERSONAL = "personal"


_TRAINED_ON = "trained_on.json"


def note_trained_on(
    config: BankConfig, run_id: str, contract: DataContract, until: dt.datetime | None, *, warm_start: str = ""
) -> None:
    """Write down which days a run's training rows are of, and what these were made from.

    Args:
        config: the bank's.
        run_id: the run.
        contract: the run's.
        until: the end of its training rows; None where they have none.
        warm_start: SHA-256 of the model that it goes on from, whose rows count too; the end is not known where that
            model's is not.
    """
    store = FeatureStore(config.store_dir)
    days = {}
    end = until.astimezone(dt.UTC).replace(tzinfo=None) if until is not None and until.tzinfo else until
    for day in store.days("features"):
        if end is None or dt.datetime.combine(day, dt.time.min) < end:
            facts = store.facts(store.partition("features", day))
            days[day.isoformat()] = [facts.get("chain"), facts.get("labels")]
    if warm_start:
        model = find_model(config, warm_start)
        noted = None if model is None else config.run_dir(model.stem) / _TRAINED_ON
        before = json.loads(noted.read_text()) if noted is not None and noted.exists() else {"until": None, "days": {}}
        days = before["days"] | days
        known = before["until"] and dt.datetime.fromisoformat(before["until"])
        end = max(end, known) if end and known else None
    document = {"contract": contract.fingerprint, "until": end and end.isoformat(), "days": days}
    write_atomic(config.run_dir(run_id) / _TRAINED_ON, json.dumps(document).encode())


def seen_until(config: BankConfig, run_id: str) -> dt.datetime | None:
    """The end of the rows that a run's model was trained on, naive UTC; None where it is not known, or had none."""
    noted = config.run_dir(run_id) / _TRAINED_ON
    until = json.loads(noted.read_text())["until"] if noted.exists() else None
    return None if until is None else dt.datetime.fromisoformat(until)


def seen_by(config: BankConfig, found: Affected) -> list[dict[str, Any]]:
    """Released models, and the bank's personalised one, that were trained on rows that are to go.

    Returns:
        For each: the run, or ``personal``, how many of the days it was trained on have such rows, and whether that is
        certain: a day whose partition is still the one of the training had them then, another one may have got them
        since.
    """
    store, models = FeatureStore(config.store_dir), []
    runs = list(released_runs(config))
    if (config.registry / PERSONAL / "model.json").exists():
        runs.append(PERSONAL)
    for run in runs:
        noted = config.work_dir / "runs" / run / _TRAINED_ON
        if not noted.exists():
            continue
        days = json.loads(noted.read_text())["days"]
        hit = sorted(days.keys() & found.days.keys())
        if hit:
            now = {}
            for day in hit:
                facts = store.facts(store.partition("features", dt.date.fromisoformat(day)))
                now[day] = [facts.get("chain"), facts.get("labels")]
            certain = any(now[day] == days[day] for day in hit)
            models.append({"run_id": run, "days": len(hit), "certain": certain})
    return models
