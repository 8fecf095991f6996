"""Removing a customer or a period everywhere at the bank, with a record and the models that had seen the rows.

Everywhere is: the store, alerts, and requests themselves. Run folders hold no rows. The bank's own source files are its
own; what they still hold is kept out when they are read again. A model can't forget: the record names the released
ones that were trained on rows now gone, for the bank to decide.
"""

import csv
import datetime as dt
import io
import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from bank_node.config import BankConfig
from bank_node.dataset.feature_tables import identifier_keys
from bank_node.files import append_record, write_atomic
from bank_node.models.lineage import seen_by
from features import DataContract
from features.identifiers import hashed
from features.incremental import purge_days, would_purge
from features.store.partitions import FeatureStore
from features.store.purging import Affected
from protocol.channel import read_secret_file
from protocol.errors import ConfigError, LocalError

__all__ = ["Account", "PurgeRecord", "Requests", "purge_rows", "read_accounts", "waiting_requests"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One account that is to go, and where it is written: a file's name and line, which a log may name."""

    number: str = field(repr=False)
    place: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """What waits in ``work_dir/purge_requests``.

    Attributes:
        accounts: of all files that can be read.
        files: these files and what was read of them: one that has changed since is not removed.
        refused: name of a file there → why nothing of it is done.
    """

    accounts: tuple[Account, ...] = ()
    files: dict[Path, bytes] = field(default_factory=dict, repr=False)
    refused: dict[str, str] = field(default_factory=dict)


def read_accounts(path: Path, what: str = "list of accounts") -> list[Account]:
    """The accounts of a file, one a line.

    Raises:
        ConfigError: it can't be read, is open to other users, is no UTF-8 text, or has no account.
    """
    return _accounts(path, read_secret_file(path, what), what)


def _accounts(path: Path, body: bytes, what: str) -> list[Account]:
    try:
        # utf-8-sig: a byte order mark is no part of the first account.
        lines = body.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{what} {path} is no UTF-8 text") from error
    found = [
        Account(number=line.strip(), place=f"{path.name}, line {number}")
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]
    if not found:
        raise ConfigError(f"{what} {path} has no account; it must have one a line")
    return found


def waiting_requests(config: BankConfig) -> Requests:
    """The files of ``work_dir/purge_requests``: each is read, or refused with a reason."""
    folder = config.work_dir / "purge_requests"
    accounts: list[Account] = []
    files: dict[Path, bytes] = {}
    refused: dict[str, str] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.is_symlink() or not path.is_file():
            refused[path.name] = "is no file"
        elif path.suffix.lower() != ".txt" or path.name.startswith("."):
            refused[path.name] = "must be called *.txt and have an account a line"
        else:
            try:
                body = read_secret_file(path, "purge request")
                accounts += _accounts(path, body, "purge request")
                files[path] = body
            except ConfigError as error:
                refused[path.name] = str(error)
    return Requests(accounts=tuple(accounts), files=files, refused=refused)


class PurgeRecord(TypedDict, total=False):
    """What a purge did, and a line of ``purges.jsonl``: counts, periods and runs, no identifier.

    ``dry_run`` is there, and true, where nothing was removed; then what only a removal can tell is missing.
    """

    at: str
    reason: str
    accounts: int
    refused_requests: int
    periods: list[list[str | None]]
    rows: int
    of_rows: int
    days: int
    accounts_without_rows: int
    models: list[dict[str, Any]]
    dry_run: bool
    runs_under_way: list[str]
    alerts: int


def purge_rows(
    config: BankConfig,
    contract: DataContract,
    *,
    now: dt.datetime,
    accounts: Sequence[Account] = (),
    periods: Iterable[tuple[dt.date | None, dt.date]] = (),
    reason: str = "",
    dry_run: bool = False,
    confirm: int | None = None,
    log: Callable[[str], None] = lambda text: None,
) -> PurgeRecord:
    """Purge accounts and periods, and what the configuration's ``retention_days`` and waiting requests ask for.

    Args:
        now: for the record and for retention, UTC.
        reason: for the record; name no customer in it.
        dry_run: only say what would go.
        confirm: how many rows somebody agreed to; needed where more than the configuration's ``purge_share`` would go.

    Returns:
        The record: counts, periods and runs, no identifier. Its ``runs_under_way`` held rows at that time: if such a
        run is released later, its model may have seen them.

    Raises:
        LocalError: more rows would go than may without a confirmation, or other than were confirmed, and nothing is
            done; or a waiting request is refused, and everything else is done.
    """
    asked = waiting_requests(config)
    wanted = _wanted_periods(config, periods, now)
    named = (*accounts, *asked.accounts)
    numbers = sorted({account.number for account in named})
    record: PurgeRecord = {
        "at": now.isoformat(timespec="seconds"),
        "reason": reason,
        "accounts": len(numbers),
        "refused_requests": len(asked.refused),
        "periods": [[None if start is None else start.isoformat(), end.isoformat()] for start, end in wanted],
    }
    key, store = identifier_keys(config)[0], FeatureStore(config.store_dir)

    def approve(found: Affected) -> None:
        absent = _without_rows(named, hashed(key, "account_id", [account.number for account in named]), found)
        record["rows"], record["of_rows"], record["days"] = found.rows, found.of_rows, len(found.days)
        record["accounts_without_rows"] = len({account.number for account in absent})
        record["models"] = seen_by(config, found)
        log(
            f"{found.rows} of {found.of_rows} rows ({found.share:.1%}) on {len(found.days)} days "
            f"{'would be' if dry_run else 'are to be'} removed, for good: there is no way back"
        )
        for account in absent:
            log(f"{account.place}: this account has no row here, or was purged before; is it spelt as in the payments?")
        if not dry_run:
            _check_confirmed(config, found, confirm)

    def begin(_: Affected) -> None:
        _append(config, record, "begun")

    if dry_run:
        found = would_purge(store, key=key, accounts=numbers, periods=wanted)
        approve(found)
        record["dry_run"] = True
    else:
        found = purge_days(contract, store, key=key, accounts=numbers, periods=wanted, approve=approve, record=begin)
        record["runs_under_way"] = _without_held_rows(config)
        record["alerts"] = _without_alerts(config, found.payments)
        _remove_done(asked, log)
        _append(config, record, "done")
    _tell_end(record, log)
    if asked.refused:
        each = "; ".join(f"{name}: {why}" for name, why in asked.refused.items())
        rest = "the rest would be done" if dry_run else "the rest is done"
        raise LocalError(
            f"{len(asked.refused)} of the files in {config.work_dir / 'purge_requests'} are refused, {rest}: {each}"
        )
    return record


def _wanted_periods(
    config: BankConfig, periods: Iterable[tuple[dt.date | None, dt.date]], now: dt.datetime
) -> list[tuple[dt.date | None, dt.date]]:
    """The periods asked for, and what is older than the configuration keeps."""
    wanted = list(periods)
    for start, end in wanted:
        if start is not None and start >= end:
            raise LocalError(f"the period to purge begins {start} and ends before {end}: it has no day")
    if config.retention_days is not None:
        wanted.append((None, (now - dt.timedelta(days=config.retention_days)).date()))
    return wanted


def _tell_end(record: PurgeRecord, log: Callable[[str], None]) -> None:
    seen = ", ".join(model["run_id"] for model in record["models"]) or "none"
    if "dry_run" in record:
        log(f"nothing was removed, this was a dry run; released models that have seen the rows: {seen}")
    else:
        log(f"{record['rows']} rows and {record['alerts']} alerts purged; released models that had seen them: {seen}")


def _without_rows(accounts: Sequence[Account], hashes: Sequence[str], found: Affected) -> list[Account]:
    return [account for account, digest in zip(accounts, hashes, strict=True) if digest not in found.parties]


def _check_confirmed(config: BankConfig, found: Affected, confirm: int | None) -> None:
    """Refuse what nobody agreed to.

    Raises:
        LocalError: too large a share without a confirmation, or one of another number of rows.
    """
    if confirm is not None and confirm != found.rows:
        raise LocalError(f"{confirm} rows were confirmed, but {found.rows} would be removed; nothing was: look again")
    if confirm is None and found.share > config.purge_share:
        raise LocalError(
            f"{found.rows} of {found.of_rows} rows ({found.share:.1%}) would be removed for good, more than the "
            f"configuration's purge_share ({config.purge_share:.1%}); nothing was. If that is right: `bank-node purge "
            f"--config … --confirm {found.rows}`, with the same options"
        )


def _remove_done(asked: Requests, log: Callable[[str], None]) -> None:
    """Remove the requests that are done; one that somebody wrote to meanwhile stays for the next time."""
    for path, body in asked.files.items():
        if path.read_bytes() == body:
            path.unlink()
        else:
            log(f"{path.name} has changed while it was being done; it stays, and is done again the next time")


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


def _append(config: BankConfig, record: PurgeRecord, state: str) -> None:
    append_record(config.work_dir / "purges.jsonl", json.dumps(record | {"state": state}, sort_keys=True))
