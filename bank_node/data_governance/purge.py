"""Removing a customer or a period everywhere at the bank, with a record and the models that had seen the rows.

Everywhere is: the store, alerts, and requests themselves. Run folders hold no rows. The bank's own source files are its
own; what they still hold is kept out when they are read again. A model can't forget: the record names the released
ones that were trained on rows now gone, for the bank to decide.
"""

import csv
import datetime as dt
import io
import json
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from bank_node.config import BankConfig
from bank_node.dataset.feature_tables import identifier_keys
from bank_node.files import write_atomic
from bank_node.models.lineage import seen_by
from features import DataContract
from features.incremental import purge_days
from features.store.partitions import FeatureStore
from features.store.purging import Affected
from protocol.channel import read_secret_file
from protocol.errors import LocalError

__all__ = [
    "purge_rows",
    "requested_accounts",
]


def requested_accounts(config: BankConfig) -> tuple[list[str], list[Path]]:
    """Accounts in the files of ``work_dir/purge_requests``, one a line, and these files.

    Raises:
        ConfigError: a file is open to other users.
    """
    files = sorted((config.work_dir / "purge_requests").glob("*.txt"))
    lines = [line.strip() for file in files for line in read_secret_file(file, "purge request").decode().splitlines()]
    return [line for line in lines if line], files


def purge_rows(
    config: BankConfig,
    contract: DataContract,
    *,
    now: dt.datetime,
    accounts: Sequence[str] = (),
    periods: Iterable[tuple[dt.date | None, dt.date]] = (),
    reason: str = "",
    log: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Purge accounts and periods, and what the configuration's ``retention_days`` and waiting requests ask for.

    Args:
        now: for the record and for retention, UTC.
        reason: for the record; name no customer in it.

    Returns:
        The record: counts, periods and runs, no identifier. Its ``runs_under_way`` held rows at that time: if such a
        run is released later, its model may have seen them.
    """
    asked, files = requested_accounts(config)
    wanted = list(periods)
    if config.retention_days is not None:
        wanted.append((None, (now - dt.timedelta(days=config.retention_days)).date()))
    everyone = sorted({*accounts, *asked})
    record: dict[str, Any] = {
        "at": now.isoformat(timespec="seconds"),
        "reason": reason,
        "accounts": len(everyone),
        "periods": [[start and start.isoformat(), end.isoformat()] for start, end in wanted],
    }

    def begin(found: Affected) -> None:
        record.update(rows=found.rows, days=len(found.days), models=seen_by(config, found))
        _append(config, record | {"state": "begun"})

    key, _ = identifier_keys(config)
    found = purge_days(
        contract, FeatureStore(config.store_dir), key=key, accounts=everyone, periods=wanted, record=begin
    )
    record["runs_under_way"] = _without_held_rows(config)
    record["alerts"] = _without_alerts(config, found.payments)
    for file in files:
        file.unlink()
    _append(config, record | {"state": "done"})
    seen = ", ".join(model["run_id"] for model in record["models"]) or "none"
    log(f"{record['rows']} rows and {record['alerts']} alerts purged; released models that had seen them: {seen}")
    return record


def _without_held_rows(config: BankConfig) -> list[str]:
    """Take away what runs hold of rows; returns those runs: killed ones, and ones that still have them mapped.

    Raises:
        LocalError: the files can't be removed.
    """
    runs = sorted(folder.name for folder in config.rows_dir.iterdir()) if config.rows_dir.is_dir() else []
    try:
        if runs:
            shutil.rmtree(config.rows_dir)
    except OSError as error:
        raise LocalError(f"rows in {config.rows_dir} can't be removed: {error.strerror}; purge again") from error
    return runs


def _without_alerts(config: BankConfig, payments: frozenset[str]) -> int:
    """Take the payments' alerts out; returns how many they were."""
    path = config.work_dir / "alerts" / "alerts.csv"
    if not path.exists() or not payments:
        return 0
    with path.open(newline="") as stream:
        header, *rows = list(csv.reader(stream))
    place = header.index("row_id")
    kept = [row for row in rows if row[place] not in payments]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *kept])
    write_atomic(path, text.getvalue().encode())
    return len(rows) - len(kept)


def _append(config: BankConfig, record: dict[str, Any]) -> None:
    path = config.work_dir / "purges.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as stream:
        stream.write(json.dumps(record, sort_keys=True) + "\n")
        stream.flush()
        os.fsync(stream.fileno())
