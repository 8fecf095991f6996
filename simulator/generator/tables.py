"""From payments to each bank's own table, with labels as the bank learns them. Decides nothing about who pays whom."""

from pathlib import Path

import numpy as np
import pandas as pd

from simulator.generator.payments import FRAUD_TYPES, NOBODY, SECONDS_PER_DAY, Ints, Payments
from simulator.generator.population import CATEGORIES, FIRST_DAY, World
from simulator.generator.settings import GeneratedConsortium, bank_names

__all__ = ["write_tables"]

_COLUMNS = [
    "payment_id", "event_time", "account_id", "counterparty_id", "counterparty_bank", "direction", "channel", "amount",
    "category", "is_fraud", "label_time",
]  # fmt: skip


def write_tables(world: World, rng: np.random.Generator, everything: Payments, out_dir: Path) -> GeneratedConsortium:
    """Write every bank's ``events.parquet`` and the ``truth.parquet`` that no bank has.

    Texts are made for one bank at a time: all banks' payments are in memory as numbers only.
    """
    rows = everything.take((everything.second >= 0) & (everything.second < world.end))
    rows = rows.take(np.lexsort((rows.payer, rows.payee, rows.second)))
    fraud, label_time = _labels(world, rng, rows)
    names = np.array(bank_names(world.settings.banks), dtype=object)
    # The last place is for parties outside the consortium, who have no bank here.
    bank_of = np.array([*names, None], dtype=object)
    payer_bank = np.where(rows.payer == NOBODY, -1, world.bank[rows.payer])
    payee_bank = np.where(rows.payee == NOBODY, -1, world.bank[rows.payee])
    events: dict[str, Path] = {}
    for number, name in enumerate(names):
        paid, received = np.flatnonzero(payer_bank == number), np.flatnonzero(payee_bank == number)
        mine = rows.take(paid)
        receivers = np.where(mine.payee != NOBODY, _ids("a", mine.payee), _ids("x", mine.outside))
        outgoing = _both_sides(world, mine, paid).assign(
            account_id=_ids("a", mine.payer),
            counterparty_id=np.where(mine.merchant != NOBODY, _ids("m", mine.merchant), receivers),
            counterparty_bank=bank_of[payee_bank[paid]],
            direction="out",
            is_fraud=fraud.iloc[paid].array,
            label_time=label_time.iloc[paid].array,
        )
        theirs = rows.take(received)
        # The receiver's bank never learns what became of the payment at the sender's: no label.
        incoming = _both_sides(world, theirs, received).assign(
            account_id=_ids("a", theirs.payee),
            counterparty_id=np.where(theirs.payer != NOBODY, _ids("a", theirs.payer), _ids("x", theirs.outside)),
            counterparty_bank=bank_of[payer_bank[received]],
            direction="in",
            is_fraud=pd.array([pd.NA] * len(received), dtype="Int64"),
            label_time=pd.NaT,
        )
        both = pd.concat([outgoing, incoming], ignore_index=True)
        both = both.sort_values(["event_time", "payment_id", "direction"], kind="stable")
        events[str(name)] = _write(both, out_dir / str(name) / "events.parquet")
    truth_path = out_dir / "truth.parquet"
    bad = np.flatnonzero(rows.fraud > 0)
    truth = pd.DataFrame(
        {
            "payment_id": _payment_ids(bad),
            "bank": bank_of[payer_bank[bad]],
            "fraud_type": np.array(FRAUD_TYPES, dtype=object)[rows.fraud[bad] - 1],
        },
        index=bad,
    )
    truth.to_parquet(truth_path, index=False)
    return GeneratedConsortium(events=events, truth=truth_path)


def _both_sides(world: World, rows: Payments, numbers: Ints) -> pd.DataFrame:
    """What both banks of some payments, of these numbers, know."""
    card = rows.merchant != NOBODY
    category = np.array(list(CATEGORIES), dtype=object)[world.category[np.maximum(rows.merchant, 0)]]
    return pd.DataFrame(
        {
            "payment_id": _payment_ids(numbers),
            "event_time": _times(rows),
            "channel": np.where(card, "card", "transfer"),
            "amount": np.maximum(np.round(rows.amount, 2), 0.01),
            "category": np.where(card, category, "transfer"),
        }
    )


def _payment_ids(numbers: Ints) -> list[str]:
    return [f"p{number:08d}" for number in numbers.tolist()]


def _times(rows: Payments) -> "pd.DatetimeIndex":
    return (FIRST_DAY + pd.to_timedelta(rows.second, unit="s")).astype("datetime64[us]")


def _labels(world: World, rng: np.random.Generator, rows: Payments) -> tuple[pd.Series, pd.Series]:
    """What the payer's bank believes, and since when: with unreported frauds, false claims and delay."""
    settings, count = world.settings, len(rows)
    bad = rows.fraud > 0
    reported = bad & (rng.random(count) >= settings.never_reported)
    reported |= ~bad & (rng.random(count) < settings.false_claims)
    settled = settings.label_delay_days
    # Days to a report: median 2.5. One that comes after the label was settled is taken in at that moment.
    days = np.where(reported, np.minimum(rng.lognormal(0.9, 0.8, count), settled), settled)
    time = pd.Series(_times(rows)) + pd.to_timedelta(np.round(days * SECONDS_PER_DAY), unit="s")
    label = pd.Series(reported.astype(np.int64)).astype("Int64")
    if settings.labels_as_of is not None:
        moment = pd.Timestamp(settings.labels_as_of)
        moment = moment.tz_convert("UTC").tz_localize(None) if moment.tzinfo is not None else moment
        label, time = label.mask(time > moment), time.mask(time > moment)
    return label, time.astype("datetime64[us]")


def _ids(letter: str, numbers: Ints) -> "np.ndarray":
    """Ids such as a000123; each distinct one is made once."""
    distinct, place = np.unique(numbers, return_inverse=True)
    return np.array([f"{letter}{number:06d}" for number in distinct.tolist()], dtype=object)[place]


def _write(table: pd.DataFrame, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = table.astype({"label_time": "datetime64[us]", "counterparty_bank": "string"})[_COLUMNS]
    table.to_parquet(path, index=False)
    return path
