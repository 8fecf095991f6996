"""What the DAG files read from the environment: bank configs, schedule, the consortium's config. No secrets.

Read at every parse of a DAG file, so it uses the standard library and `protocol.documents` only and looks at
nothing of a bank's config but its id; `bank_node` validates the rest when a task runs. A file that can't be used takes
no other bank's DAGs away: it is named apart, and `dags/bank_config_faults.py` makes it Airflow's import error.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Final

__all__ = [
    "BANKS_DIR",
    "CONSORTIUM_CONFIG",
    "DAILY_SCHEDULE",
    "PAUSED",
    "BankConfigs",
    "SettingsError",
    "bank_configs",
    "consortium_config",
    "daily_schedule",
    "jsonable",
    "paused",
    "read_mapping",
]

#: Folder of bank configs: ``*.yaml`` and ``*.yml`` with a bank's keys; others are left alone. Unset: no bank DAGs.
BANKS_DIR: Final = "CROSSBANK_BANKS_DIR"
#: The consortium operator's config. Unset: no consortium DAG.
CONSORTIUM_CONFIG: Final = "CROSSBANK_CONSORTIUM_CONFIG"
#: Schedule of the daily DAGs: a cron expression, a preset, or ``none`` for runs by hand only.
DAILY_SCHEDULE: Final = "CROSSBANK_DAILY_SCHEDULE"
#: ``true`` or ``false``: whether new DAGs start paused. Unset: Airflow's own setting.
PAUSED: Final = "CROSSBANK_DAGS_PAUSED"

_BANK_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}\Z")
#: A mapping with one of these is a bank's config; one with none (of columns, a contract, the operator's) is not.
_BANK_KEYS: Final = frozenset({"bank_id", "work_dir", "events"})
_WORDS: Final = {"true": True, "1": True, "false": False, "0": False}


class SettingsError(ValueError):
    """A variable or a config file is wrong; the text names it. Airflow shows it as an import error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BankConfigs:
    """What the folder of bank configs holds.

    Attributes:
        paths: bank id → path of its config, sorted by id.
        faults: one sentence for each file that is a bank's, or might be, and can't be used; names the file.
        others: names of files that are no bank's config, such as a mapping beside it.
    """

    paths: Mapping[str, str]
    faults: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


def bank_configs(environ: Mapping[str, str] = os.environ) -> BankConfigs:
    """Returns the banks of the folder, what is wrong with other files there, and which are no bank's.

    Raises:
        SettingsError: If the folder is missing.
    """
    if not (folder := environ.get(BANKS_DIR)):
        return BankConfigs(paths={})
    if not Path(folder).is_dir():
        raise SettingsError(f"{BANKS_DIR} names the folder {folder}, which does not exist.")
    found: dict[str, list[str]] = {}
    faults, others = [], []
    for path in sorted(p for p in Path(folder).iterdir() if p.suffix.lower() in (".yaml", ".yml")):
        try:
            document = _document(path)
        except SettingsError as error:
            faults.append(str(error))
            continue
        if document is not None and (not isinstance(document, dict) or not _BANK_KEYS & document.keys()):
            others.append(path.name)
            continue
        bank_id = (document or {}).get("bank_id")
        if isinstance(bank_id, str) and _BANK_ID.match(bank_id):
            found.setdefault(bank_id, []).append(str(path))
        else:
            faults.append(f"{path} needs a bank_id of at most 64 letters, digits, '_', '.' or '-'.")
    for bank_id, paths in found.items():
        if len(paths) > 1:
            faults.append(f"{' and '.join(paths)} all have the bank_id {bank_id}; none of them is used.")
    return BankConfigs(
        paths={bank_id: paths[0] for bank_id, paths in sorted(found.items()) if len(paths) == 1},
        faults=tuple(faults),
        others=tuple(others),
    )


def consortium_config(environ: Mapping[str, str] = os.environ) -> str | None:
    """Returns the path of the operator's config, or None when this Airflow is not the consortium's."""
    return environ.get(CONSORTIUM_CONFIG) or None


def daily_schedule(environ: Mapping[str, str] = os.environ) -> str | None:
    """Returns the schedule of the daily DAGs; None means that they run by hand only."""
    schedule = environ.get(DAILY_SCHEDULE) or "@daily"
    return None if schedule.lower() == "none" else schedule


def paused(environ: Mapping[str, str] = os.environ) -> bool | None:
    """Returns whether new DAGs start paused; None leaves it to Airflow."""
    if not (word := environ.get(PAUSED)):
        return None
    try:
        return _WORDS[word.lower()]
    except KeyError:
        raise SettingsError(f"{PAUSED} must be true or false, not {word!r}.") from None


def read_mapping(path: str | Path) -> dict[str, Any]:
    """Reads a YAML file that holds one mapping.

    Raises:
        SettingsError: If the file cannot be read, is not YAML, or holds something else.
    """
    document = _document(path)
    if not isinstance(document, dict):
        raise SettingsError(f"{path} must hold a mapping of keys to values.")
    return document


def _document(path: str | Path) -> Any:
    """Reads a YAML file, whatever it holds; None where it is empty.

    Raises:
        SettingsError: If the file cannot be read or is not YAML; names it and the line, never what is in it.
    """
    from protocol.documents import read_document
    from protocol.errors import ConfigError

    try:
        return read_document(Path(path), "file")
    except ConfigError as error:
        raise SettingsError(f"{error}.") from None


def jsonable(document: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a mapping read from YAML with its dates as ISO 8601 text, tuples as lists."""
    return dict(json.loads(json.dumps(dict(document), default=_as_text)))


def _as_text(value: object) -> str:
    if isinstance(value, date):
        return value.isoformat()
    raise SettingsError(f"The settings of a run can't hold a {type(value).__name__}.")
