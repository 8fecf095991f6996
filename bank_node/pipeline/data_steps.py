"""The steps that look after a bank's rows: extract features, purge customers. Each is safe to call again."""

import datetime as dt
import logging
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from bank_node.config import load_config
from bank_node.consortium import Log
from bank_node.pipeline.results import Extracted
from bank_node.pipeline.working import told_when_full, wipe_keys
from protocol.errors import LocalError

if TYPE_CHECKING:
    from bank_node.data_governance.purge import PurgeRecord

__all__ = ["extract", "purge"]

logger = logging.getLogger(__name__)


@told_when_full
def extract(config_path: Path | str, *, log: Log = logger.info) -> Extracted:
    """Bring the bank's store of features up to date with its payments: only what is new or changed is read.

    Raises:
        features.errors.TooManyQuarantined: all was extracted that could be, and more rows were set aside than the
            contract's quality gate lets pass; mend the mapping, see `bank-node quarantine`, and extract again.
        features.errors.DataError: a file of payments can't be used; the features of before stay.
    """
    from bank_node.data_governance.set_aside import warn_of_quarantine
    from bank_node.dataset.feature_tables import identifier_keys
    from bank_node.shared_risk.rows import link_noted
    from features import load_contract
    from features.contract.mapping import load_mapping
    from features.incremental import extract_days
    from features.store.partitions import FeatureStore

    config = load_config(Path(config_path))
    wipe_keys(config, log=log)
    contract = load_contract(config.contract)
    mapping = None if config.mapping is None else load_mapping(config.mapping, contract)
    started = perf_counter()
    log(f"bank {config.bank_id}: extracting features by contract {contract.name} {contract.version}")
    key, shared_key = identifier_keys(config)
    done = extract_days(
        contract,
        config.events,
        FeatureStore(config.store_dir),
        key=key,
        shared_key=shared_key,
        mapping=mapping,
        labels=config.labels,
    )
    link_noted(config, shared_key)
    quarantined = {f"{column or 'line'}: {reason}": count for (column, reason), count in done.quarantined.items()}
    log(
        f"{len(done.taken)} files read; of {done.rows} rows {done.stored} kept, {done.repeated} repeated, "
        f"{sum(quarantined.values())} quarantined; {len(done.built)} days built, {len(done.relabelled)} relabelled"
    )
    if config.labels is not None:
        bad = sum(done.labels.quarantined.values())
        log(
            f"labels: of {done.labels.rows} rows {done.labels.applied} applied, {done.labels.waiting} wait for their "
            f"payment, {done.labels.repeated} repeated, {bad} quarantined"
        )
    log(f"{done.feature_rows} rows, {done.frauds} known frauds, {perf_counter() - started:.1f} s")
    result: Extracted = {
        "rows": done.feature_rows,
        "frauds": done.frauds,
        "path": str(config.store_dir),
        "payments": {
            "read": done.rows,
            "kept": done.stored,
            "repeated": done.repeated,
            "purged": done.purged,
            "quarantined": quarantined,
        },
        "labels": {
            "read": done.labels.rows,
            "applied": done.labels.applied,
            "waiting": done.labels.waiting,
            "repeated": done.labels.repeated,
            "quarantined": {f"{column}: {reason}": n for (column, reason), n in done.labels.quarantined.items()},
        },
        "days": {"built": len(done.built), "relabelled": len(done.relabelled)},
    }
    shares = {
        "payments": (done.rows, sum(quarantined.values())),
        "labels": (done.labels.rows, sum(done.labels.quarantined.values())),
    }
    warn_of_quarantine(config, contract, shares, result, log)
    return result


@told_when_full
def purge(
    config_path: Path | str,
    *,
    accounts: Path | None = None,
    since: dt.date | None = None,
    until: dt.date | None = None,
    reason: str = "",
    dry_run: bool = False,
    confirm: int | None = None,
    log: Log = logger.info,
) -> "PurgeRecord":
    """Remove customers' rows, a period's, and what retention and waiting requests ask for.

    Args:
        accounts: a 0600 file of account numbers, one a line.
        dry_run: only say what would go.
        confirm: the number of rows that somebody agreed to, see `purge_share` of the configuration.
    """
    from bank_node.data_governance.purge import purge_rows, read_accounts
    from features import load_contract

    config = load_config(Path(config_path))
    wipe_keys(config, log=log)
    if since is not None and until is None:
        raise LocalError("a period to purge needs its end")
    return purge_rows(
        config,
        load_contract(config.contract),
        now=dt.datetime.now(dt.UTC),
        accounts=() if accounts is None else read_accounts(accounts),
        periods=[] if until is None else [(since, until)],
        reason=reason,
        dry_run=dry_run,
        confirm=confirm,
        log=log,
    )
