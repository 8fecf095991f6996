"""The shared-risk step against a straightforward pandas version, in one run on one machine. Encrypts nothing.

Both make, from all banks' payments, each row's payments and frauds of its counterparty over 1, 7 and 30 days: ours by
daily tables of a sketch and its windows, pandas by daily counts per counterparty and rolling sums, exact. They differ
by the sketch's error, which is told.
"""

from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd

from features.shared_risk import SPANS, EntityKind, Facts, day_tables, tokens_of, windows

__all__ = ["bench_risk"]

_FIRST, _DAYS = 20_000, 120
_KEY = b"a key for measuring only, no one"


def bench_risk(rows: int = 1_000_000, entities: int = 20_000, repeats: int = 3) -> dict[str, Any]:
    """Seconds of both, their ratio (median of pairs), and how far the sketch is off.

    Args:
        rows: payments; 1 in 200 is a fraud, known up to ten days later.
        entities: counterparties, Zipf.
        repeats: pairs of measurements.
    """
    rng = np.random.default_rng(3)
    weights = 1 / np.arange(1, entities + 1) ** 0.8
    entity = rng.choice(entities, rows, p=weights / weights.sum())
    day = _FIRST + rng.integers(0, _DAYS, rows)
    fraud = rng.random(rows) < 0.005
    known = day + rng.integers(0, 10, rows)
    kind = EntityKind(name="merchant", channels=("card",), width=16_376, depth=2)
    tokens = tokens_of(_KEY, kind.name, [f"m{number}" for number in range(entities)])
    facts = Facts(
        tokens=tokens,
        paid_entity=entity,
        paid_day=day,
        told_entity=entity[fraud],
        told_day=known[fraud],
        told_customer=np.arange(int(fraud.sum())),
    )

    def ours() -> dict[str, np.ndarray]:
        tables = np.concatenate(
            [day_tables(facts, kind, start, 10) for start in range(_FIRST, _FIRST + _DAYS + 10, 10)]
        )

        def read(kind: EntityKind, start: int, days: int) -> np.ndarray:
            wanted = np.zeros((days, *tables.shape[1:]), dtype=np.int64)
            low, high = max(start, _FIRST), min(start + days, _FIRST + len(tables))
            wanted[low - start : high - start] = tables[low - _FIRST : high - _FIRST]
            return wanted

        return windows(read, (_FIRST, _FIRST + len(tables) - 1), kind, tokens, entity, day)

    def plain() -> dict[str, np.ndarray]:
        every = pd.MultiIndex.from_product(
            [range(entities), range(_FIRST, _FIRST + _DAYS + 10)], names=["entity", "day"]
        )
        frame = pd.DataFrame({"entity": entity, "day": day})
        paid = frame.groupby(["entity", "day"]).size().reindex(every, fill_value=0)
        told = frame[fraud].assign(day=known[fraud]).groupby(["entity", "day"]).size().reindex(every, fill_value=0)
        found = {}
        for what, counts in (("payments", paid), ("frauds", told)):
            for span, days in SPANS.items():
                rolled = counts.groupby(level="entity").rolling(days, min_periods=1).sum().droplevel(0)
                before = rolled.groupby(level="entity").shift(1, fill_value=0).rename("value").reset_index()
                found[f"{what}_{span}"] = frame.merge(before, on=["entity", "day"], how="left")["value"].to_numpy()
        return found

    times: list[tuple[float, float]] = []
    for _ in range(repeats):
        started = perf_counter()
        sketched = ours()
        middle = perf_counter()
        exact = plain()
        times.append((middle - started, perf_counter() - middle))
    off = {name: float((sketched[name] != exact[name]).mean()) for name in exact}
    return {
        "rows": rows,
        "entities": entities,
        "seconds": median(a for a, _ in times),
        "pandas_seconds": median(b for _, b in times),
        "ratio": median(a / b for a, b in times),
        "below_truth": int(sum((sketched[name] < exact[name]).sum() for name in exact)),
        "share_off": off,
    }
