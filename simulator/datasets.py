"""Turns the outside data sets into each bank's own table. Copies no name, address, document or card number."""

import hashlib
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from protocol.errors import ConfigError
from simulator.generator import GeneratedConsortium

__all__ = ["contract_for", "load_dataset", "thins_out", "unlike_life"]

_CARD_BANKS = {"north_bank": 40, "harbour_bank": 25, "city_bank": 15, "union_bank": 12, "valley_bank": 8}
_LABEL_DELAY = pd.Timedelta(days=14)
_UNLIKE_LIFE: dict[str, tuple[dict[str, float], str]] = {
    "transfers.parquet": (
        {"volume_low": 0.0},
        "its last weeks thin out: the quality gate has no least volume of a day here",
    ),
    "transactions.parquet": (
        {"drift_stop": 100.0},
        "its last four weeks are nearly all of two categories: the quality gate only warns of drift here",
    ),
}
"""By a data set's file: limits of the gate that it can't keep, and why."""
_FIRST_DAY = pd.Timestamp("2026-01-05")


def load_dataset(
    path: Path, out_dir: Path, *, banks: Sequence[str] | None = None, limit: int | None = None
) -> GeneratedConsortium:
    """Read a data set's folder and write ``out_dir/<bank>/events.parquet`` for every bank.

    Labels are known 14 days after the payment: the data sets don't tell when. Amounts below 0.01 become 0.01.

    Args:
        path: a folder that holds ``transactions.parquet`` (card payments) or ``transfers.parquet`` (transfers).
        out_dir: where the banks' tables go.
        banks: write only these banks' tables, each as it is among all; None is all.
        limit: use only the first so many rows of the file; for tests.

    Raises:
        ConfigError: the folder is missing or holds neither, or has no such bank.
    """
    if not path.is_dir():
        raise ConfigError(f"data set {path} is not a folder")
    readers: dict[str, Callable[[pd.DataFrame], dict[str, pd.DataFrame]]] = {
        "transactions.parquet": _card_payments,
        "transfers.parquet": _account_transfers,
    }
    for name, reader in readers.items():
        if (path / name).exists():
            table = pd.read_parquet(path / name)
            tables = reader(table if limit is None else table.head(limit))
            break
    else:
        raise ConfigError(f"data set {path} holds neither {' nor '.join(readers)}")
    unknown = sorted(set(banks or ()) - set(tables))
    if unknown:
        raise ConfigError(f"data set {path} has no bank {', '.join(unknown)}; it has {', '.join(sorted(tables))}")
    events = {}
    for bank, table in sorted(tables.items()):
        if banks is not None and bank not in banks:
            continue
        events[bank] = out_dir / bank / "events.parquet"
        events[bank].parent.mkdir(parents=True, exist_ok=True)
        table.sort_values(["event_time", "payment_id"], kind="stable").to_parquet(events[bank], index=False)
    return GeneratedConsortium(events=events)


def contract_for(path: Path, out: Path) -> Path | None:
    """The contract that a data set's banks can keep, written to `out`; None where the packaged one will do.

    The transfers come from a simulation that runs out: in its last three weeks a day's payments fall to a twentieth.
    The card payments change all at once: in their last four weeks nearly all are of two categories out of fourteen.
    A quality gate takes either for a broken feed, as it should, so for these sets it has no such bound.
    """
    found = next((limits for name, (limits, _) in _UNLIKE_LIFE.items() if (path / name).exists()), None)
    if found is None:
        return None
    contract = yaml.safe_load(resources.files("features").joinpath("contract/packaged/payments_v1.yaml").read_bytes())
    contract["quality"].update(found)
    out.write_text(yaml.safe_dump(contract, sort_keys=False))
    return out


def unlike_life(path: Path) -> str:
    """What a data set's quality gate is loosened for, in words; empty where it is not."""
    return next((words for name, (_, words) in _UNLIKE_LIFE.items() if (path / name).exists()), "")


def thins_out(path: Path) -> bool:
    """Whether the days of a data set have ever fewer payments towards its end."""
    return (path / "transfers.parquet").exists()


def _pseudonym(values: pd.Series) -> pd.Series:
    """A short stand-in for an account number. Keyed hashes at extraction come with the data-management work."""
    codes = {v: hashlib.sha256(f"crossbank:{v}".encode()).hexdigest()[:16] for v in values.astype(str).unique()}
    return values.astype(str).map(codes)


def _card_payments(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Banks by SHA-256 of the account number, weights 40/25/15/12/8."""
    accounts = table["acct_num"].astype(str)
    edges = np.cumsum(list(_CARD_BANKS.values()))
    place = {
        a: int(np.searchsorted(edges, int(hashlib.sha256(a.encode()).hexdigest(), 16) % 100, side="right"))
        for a in accounts.unique()
    }
    time = pd.to_datetime(table["unix_time"], unit="s").astype("datetime64[us]")
    events = pd.DataFrame(
        {
            "payment_id": [f"c{i:08d}" for i in range(len(table))],
            "event_time": time,
            "account_id": _pseudonym(accounts),
            "counterparty_id": table["merchant"].astype(str),
            "counterparty_bank": pd.array([None] * len(table), dtype="string"),
            "direction": "out",
            "channel": "card",
            "amount": np.maximum(table["amt"].astype(np.float64), 0.01),
            "category": table["category"].astype(str),
            "is_fraud": table["is_fraud"].astype(np.int64),
            "label_time": time + _LABEL_DELAY,
        }
    )
    bank = accounts.map(place).to_numpy()
    return {name: events[bank == i] for i, name in enumerate(_CARD_BANKS) if (bank == i).any()}


def _account_transfers(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The sender's bank has an out row, the receiver's an in row; neither has the other side's columns.

    The data has days only. The time of day is drawn at random (seeded), since the order of rows in the file would tell
    a model what life does not: within a day the file lists laundering apart from the rest.
    """
    table = table.sort_values("step", kind="stable").reset_index(drop=True)
    second = pd.Series(np.random.default_rng(0).integers(0, 86_400, len(table)))
    time = (_FIRST_DAY + pd.to_timedelta(table["step"] * 86_400 + second, unit="s")).astype("datetime64[us]")
    sender, receiver = _pseudonym(table["nameOrig"]), _pseudonym(table["nameDest"])
    common = {
        "payment_id": [f"t{i:08d}" for i in range(len(table))],
        "event_time": time,
        "channel": "transfer",
        "amount": np.maximum(table["amount"].astype(np.float64), 0.01),
        "category": "transfer",
        "label_time": time + _LABEL_DELAY,
    }
    out = pd.DataFrame(
        common
        | {
            "account_id": sender,
            "counterparty_id": receiver,
            "counterparty_bank": table["bankDest"].astype("string"),
            "direction": "out",
            "is_fraud": table["isSAR"].astype("Int64"),
        }
    )
    incoming = pd.DataFrame(
        common
        | {
            "account_id": receiver,
            "counterparty_id": sender,
            "counterparty_bank": table["bankOrig"].astype("string"),
            "direction": "in",
            # The label is of the sender's bank; the receiver's never learns it.
            "is_fraud": pd.array([pd.NA] * len(table), dtype="Int64"),
            "label_time": pd.Series(pd.NaT, index=table.index, dtype="datetime64[us]"),
        }
    )
    names = sorted(set(table["bankOrig"].astype(str)) | set(table["bankDest"].astype(str)))
    return {
        name: pd.concat(
            [
                out[(table["bankOrig"] == name).to_numpy()],
                incoming[(table["bankDest"] == name).to_numpy()],
            ]
        )
        for name in names
    }
