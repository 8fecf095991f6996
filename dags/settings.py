"""What the DAG files read from the environment: bank configs, schedule, the consortium's config. No secrets.

Read at every parse of a DAG file, so it uses the standard library and PyYAML only and looks at nothing
of a bank's config but its id; `bank_node` validates the rest when a task runs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

__all__ = [
    "BANKS_DIR",
    "CONSORTIUM_CONFIG",
    "DAILY_SCHEDULE",
    "PAUSED",
    "SettingsError",
    "bank_configs",
    "consortium_config",
    "daily_schedule",
    "paused",
    "read_mapping",
]

#: Folder of bank configs; every ``*.yaml`` in it is one bank. Unset: no bank DAGs.
BANKS_DIR: Final = "CROSSBANK_BANKS_DIR"
#: The consortium operator's config. Unset: no consortium DAG.
CONSORTIUM_CONFIG: Final = "CROSSBANK_CONSORTIUM_CONFIG"
#: Schedule of the daily DAGs: a cron expression, a preset, or ``none`` for runs by hand only.
DAILY_SCHEDULE: Final = "CROSSBANK_DAILY_SCHEDULE"
#: ``true`` or ``false``: whether new DAGs start paused. Unset: Airflow's own setting.
PAUSED: Final = "CROSSBANK_DAGS_PAUSED"

_BANK_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*\Z")
_WORDS: Final = {"true": True, "1": True, "false": False, "0": False}


class SettingsError(ValueError):
    """A variable or a config file is wrong; the text names it. Airflow shows it as an import error."""


def bank_configs(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Returns bank id → path of its config, sorted by id; empty when no folder is set.

    Raises:
        SettingsError: If the folder is missing, a config has no usable ``bank_id``, or two share one.
    """
    if not (folder := environ.get(BANKS_DIR)):
        return {}
    if not Path(folder).is_dir():
        raise SettingsError(f"{BANKS_DIR} names the folder {folder}, which does not exist.")
    found: dict[str, str] = {}
    for path in sorted(Path(folder).glob("*.yaml")):
        bank_id = read_mapping(path).get("bank_id")
        if not isinstance(bank_id, str) or not _BANK_ID.match(bank_id):
            raise SettingsError(f"{path} needs a bank_id of letters, digits, '_', '.' or '-'.")
        if bank_id in found:
            raise SettingsError(f"{found[bank_id]} and {path} both have the bank_id {bank_id}.")
        found[bank_id] = str(path)
    return dict(sorted(found.items()))


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
    try:
        document = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path} can't be read: {error.strerror}.") from error
    except yaml.YAMLError as error:
        # Only the place: the parser's own text quotes the file.
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark is not None else ""
        raise SettingsError(f"{path} is not valid YAML{where}.") from None
    if not isinstance(document, dict):
        raise SettingsError(f"{path} must hold a mapping of keys to values.")
    return document
