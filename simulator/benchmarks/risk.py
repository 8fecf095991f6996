"""The shared-risk step against straightforward pandas and Polars versions, in one run on one machine. Encrypts nothing.

All make, from all banks' payments, each row's payments and frauds of its counterparty over 1, 7 and 30 days: ours by
daily tables of a sketch and its windows, the others by daily counts per counterparty and rolling sums, exact. Ours
differs by the sketch's error, which is told.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd

from features.contract.sections import SPANS, EntityKind
from features.shared_risk import Facts, day_tables, tokens_of, windows
from simulator.harness.measuring import provenance

__all__ = ["bench_risk"]

_FIRST, _DAYS = 20_000, 120
_KEY = b"a key for measuring only, no one"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Payments:
    """Made-up payments: to whom, on which day, which are frauds, and since when that is known."""

    entities: int
    entity: np.ndarray
    day: np.ndarray
    fraud: np.ndarray
    known: np.ndarray


def _by_sketch(given: _Payments, facts: Facts, kind: EntityKind) -> dict[str, np.ndarray]:
    """Ours: daily tables of the sketch, read in windows."""
    tables = np.concatenate([day_tables(facts, kind, start, 10) for start in range(_FIRST, _FIRST + _DAYS + 10, 10)])

    def read(kind: EntityKind, start: int, days: int) -> np.ndarray:
        wanted = np.zeros((days, *tables.shape[1:]), dtype=np.int64)
        low, high = max(start, _FIRST), min(start + days, _FIRST + len(tables))
        wanted[low - start : high - start] = tables[low - _FIRST : high - _FIRST]
        return wanted

    return windows(read, (_FIRST, _FIRST + len(tables) - 1), kind, facts.tokens, given.entity, given.day)


def _by_pandas(given: _Payments) -> dict[str, np.ndarray]:
    """Exact counts by rolling windows over all days of all counterparties."""
    every = pd.MultiIndex.from_product(
        [range(given.entities), range(_FIRST, _FIRST + _DAYS + 10)], names=["entity", "day"]
    )
    frame = pd.DataFrame({"entity": given.entity, "day": given.day})
    paid = frame.groupby(["entity", "day"]).size().reindex(every, fill_value=0)
    known = frame[given.fraud].assign(day=given.known[given.fraud])
    told = known.groupby(["entity", "day"]).size().reindex(every, fill_value=0)
    found: dict[str, np.ndarray] = {}
    for what, counts in (("payments", paid), ("frauds", told)):
        for span, days in SPANS.items():
            rolled = counts.groupby(level="entity").rolling(days, min_periods=1).sum().droplevel(0)
            before = rolled.groupby(level="entity").shift(1, fill_value=0).rename("value").reset_index()
            found[f"{what}_{span}"] = frame.merge(before, on=["entity", "day"], how="left")["value"].to_numpy()
    return found


def _by_polars(given: _Payments) -> dict[str, np.ndarray]:
    """As `_by_pandas`."""
    import polars as pl

    frame = pl.DataFrame({"entity": given.entity, "day": given.day})
    every = pl.DataFrame({"entity": np.arange(given.entities)}).join(
        pl.DataFrame({"day": np.arange(_FIRST, _FIRST + _DAYS + 10)}), how="cross"
    )
    told = pl.DataFrame({"entity": given.entity[given.fraud], "day": given.known[given.fraud]})
    found: dict[str, np.ndarray] = {}
    for what, counted in (("payments", frame), ("frauds", told)):
        daily = (
            every.join(counted.group_by("entity", "day").len("n"), on=["entity", "day"], how="left")
            .with_columns(pl.col("n").fill_null(0).cast(pl.Int64))
            .sort("entity", "day")
            .with_columns(
                pl.col("n").rolling_sum(days, min_samples=1).shift(1, fill_value=0).over("entity").alias(span)
                for span, days in SPANS.items()
            )
        )
        joined = frame.join(daily, on=["entity", "day"], how="left", maintain_order="left")
        found |= {f"{what}_{span}": joined[span].to_numpy() for span in SPANS}
    return found


def bench_risk(
    rows: int = 1_000_000, entities: int = 20_000, repeats: int = 3, *, out: Path | None = None
) -> dict[str, Any]:
    """Seconds of each, ours over the others' (medians over the repeats), and how far the sketch is off.

    Args:
        rows: payments; 1 in 200 is a fraud, known up to ten days later.
        entities: counterparties, Zipf.
        repeats: measurements of each.
        out: folder for ``bench_risk.json``; None writes none.
    """
    rng = np.random.default_rng(3)
    weights = 1 / np.arange(1, entities + 1) ** 0.8
    entity = rng.choice(entities, rows, p=weights / weights.sum())
    day = _FIRST + rng.integers(0, _DAYS, rows)
    fraud = rng.random(rows) < 0.005
    given = _Payments(entities=entities, entity=entity, day=day, fraud=fraud, known=day + rng.integers(0, 10, rows))
    kind = EntityKind(name="merchant", channels=("card",), width=16_376, depth=2)
    tokens = tokens_of(_KEY, kind.name, [f"m{number}" for number in range(entities)])
    facts = Facts(
        tokens=tokens,
        paid_entity=entity,
        paid_day=day,
        told_entity=entity[fraud],
        told_day=given.known[fraud],
        told_customer=np.arange(int(fraud.sum())),
    )

    times: list[tuple[float, float, float]] = []
    for _ in range(repeats):
        started = perf_counter()
        sketched = _by_sketch(given, facts, kind)
        first = perf_counter()
        exact = _by_pandas(given)
        second = perf_counter()
        also_exact = _by_polars(given)
        times.append((first - started, second - first, perf_counter() - second))
    if any((also_exact[name] != exact[name]).any() for name in exact):
        raise AssertionError("pandas and Polars computed different counts")
    off = {name: float((sketched[name] != exact[name]).mean()) for name in exact}
    report = {
        "run": provenance(),
        "rows": rows,
        "entities": entities,
        "seconds": median(a for a, _, _ in times),
        "pandas_seconds": median(b for _, b, _ in times),
        "polars_seconds": median(c for _, _, c in times),
        "ratio": median(a / b for a, b, _ in times),
        "ratio_to_polars": median(a / c for a, _, c in times),
        "below_truth": int(sum((sketched[name] < exact[name]).sum() for name in exact)),
        "share_off": off,
    }
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "bench_risk.json").write_text(json.dumps(report, indent=2) + "\n")
    return report
