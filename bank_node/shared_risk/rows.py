"""Shared counterparty risk on the bank's own store: facts for the exchange, features for its rows. Exchanges nothing.

The store keeps, beside its own hashes of identifiers, hashes under the consortium's link key, made at extraction. A
bank that gets the key in a run extracts once more with it; no feature of its own is made anew by that.
"""

import datetime as dt
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from bank_node.config import BankConfig
from bank_node.consortium import Consortium, Log
from bank_node.files import write_atomic
from bank_node.shared_risk.exchange import Exchanged, Period, exchange, key_id
from bank_node.shared_risk.store import SharedStore
from features import DataContract
from features.contract.label_time import known_series
from features.contract.sections import SharedRiskSpec
from features.identifiers import SHARED, IdentifierKey, load_key
from features.shared_risk import Facts, Tokens, facts_of, shared_features, tokens_of
from features.store.partitions import FeatureStore
from protocol.errors import LocalError

__all__ = ["link_key", "link_noted", "shared_store", "share_risk", "with_shared"]

_EPOCH = dt.date(1970, 1, 1).toordinal()


def shared_store(config: BankConfig) -> SharedStore:
    """Where the bank keeps link key and tables."""
    return SharedStore(config.work_dir / "shared_risk")


def link_key(config: BankConfig) -> IdentifierKey | None:
    """The consortium's key of identifiers: the configured one, else what the banks agreed on; None before that."""
    if config.shared_key is not None:
        return load_key(config.shared_key)
    key = shared_store(config).key()
    return None if key is None else IdentifierKey(key)


def link_noted(config: BankConfig, key: IdentifierKey | None) -> None:
    """Note that the store's hashes were made with this key."""
    if key is not None:
        write_atomic(shared_store(config).folder / "linked", key_id(key.secret).encode())


def share_risk(
    config: BankConfig, contract: DataContract, consortium: Consortium, run_id: str, extract: Any, log: Log
) -> Exchanged | None:
    """Exchange the days that the bank's tables lack; None if the contract shares nothing.

    Args:
        extract: brings the store up to date; called if its hashes are not the link key's.
    """
    spec = contract.shared_risk
    if spec is None:
        return None
    store = shared_store(config)
    configured = None if config.shared_key is None else load_key(config.shared_key).secret
    if configured is not None and store.key() is None:
        store.set_key(configured)

    def facts_for(key: bytes) -> Mapping[str, Facts]:
        if configured not in (None, key):
            raise LocalError(f"bank {config.bank_id}: shared_key is not the consortium's link key; remove the setting")
        linked = store.folder / "linked"
        if not linked.exists() or linked.read_text() != key_id(key):
            log("linking identifiers by the consortium's key: extracting once more")
            extract()
        return _facts(config, contract, spec, key)

    return exchange(
        spec, store, _period(config), facts_for, consortium, config.run_dir(run_id), secrets.token_bytes, log
    )


def _period(config: BankConfig) -> Period | None:
    """From the first day with payments to the one before the newest, which may not be over."""
    days = FeatureStore(config.store_dir).days("events")
    if len(days) < 2:
        return None
    return Period(first=days[0].toordinal() - _EPOCH, last=days[-1].toordinal() - _EPOCH - 1)


def _payments(
    config: BankConfig, columns: Sequence[str], since: dt.date | None = None, until: dt.date | None = None
) -> pd.DataFrame:
    """The events' columns of days, both ends in; accounts, counterparties and devices are the link key's hashes."""
    import pyarrow

    store = FeatureStore(config.store_dir)
    renamed = {shared: name for name, shared in SHARED.items()}
    days = [day for day in store.days("events") if (since is None or day >= since) and (until is None or day <= until)]
    parts = [store.read(store.partition("events", day)) for day in days]
    # A contract without devices has no column of them.
    parts = [part.select([*columns, *(name for name in renamed if name in part.column_names)]) for part in parts]
    if not parts:
        raise LocalError(f"bank {config.bank_id} has no payments yet; run `bank-node extract` first")
    frame: pd.DataFrame = pyarrow.concat_tables(parts).to_pandas()
    return frame.rename(columns=renamed)


def _tokens(spec: SharedRiskSpec, key: bytes, frame: pd.DataFrame) -> dict[str, tuple[Sequence[str], Tokens]]:
    found: dict[str, tuple[Sequence[str], Tokens]] = {}
    for kind in spec.kinds:
        theirs = frame[kind.column][frame["channel"].isin(kind.channels).to_numpy()].unique()
        ids = pd.unique(pd.Series(theirs))
        if kind.name == spec.account_kind:
            ids = pd.unique(pd.concat([pd.Series(ids), frame["account_id"]]))
        names = [str(each) for each in ids if not pd.isna(each)]
        found[kind.name] = (names, tokens_of(key, kind.name, names))
    return found


def _facts(config: BankConfig, contract: DataContract, spec: SharedRiskSpec, key: bytes) -> Mapping[str, Facts]:
    frame = _payments(config, ["direction", "channel", "event_time", "is_fraud", "label_time"])
    frame["settled_time"] = known_series(frame, contract.label.delay_days)
    return facts_of(frame, spec, _tokens(spec, key, frame))


def with_shared(config: BankConfig, contract: DataContract, table: pd.DataFrame) -> pd.DataFrame:
    """A feature table with the contract's shared features added, NaN while the bank has no tables."""
    spec, names = contract.shared_risk, contract.shared_names
    if spec is None or not names:
        return table
    store = shared_store(config)
    key = store.key()
    days = [] if key is None else store.days(key_id(key), spec.sketch_digest)
    if key is None or not days or table.empty:
        return table.assign(**{name: np.float32(np.nan) for name in names})
    since, until = table["event_time"].min().date(), table["event_time"].max().date()
    events = _payments(config, ["payment_id", "direction", "channel", "event_time"], since, until)
    out = events[events["direction"] == "out"].set_index("payment_id")
    rows = out.loc[table["row_id"]].reset_index()
    columns = shared_features(
        rows,
        spec,
        names,
        lambda kind, first, count: store.read(spec, key_id(key), kind, first, count),
        (days[0], days[-1]),
        _tokens(spec, key, rows),
    )
    return pd.concat([table.reset_index(drop=True), pd.DataFrame(columns)], axis=1)
