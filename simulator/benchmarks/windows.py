"""The benchmark of the data steps: windows and bins, against pandas and Polars on the same rows. Trains nothing.

Windows: count, sum and largest amount over 1 hour, 1, 7 and 30 days, of the account's and of the counterparty's earlier
payments. Each way starts from a table in its own memory, and ends with 24 more columns there. The pandas and the Polars
version are what one would write without Crossbank; the values are compared.

Bins: common quantile bins of the features and each row's bin numbers, what a bank does besides the secure sum.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from features.engineering.windows import Aggregate, Measure, with_aggregates
from simulator.harness.measuring import provenance

__all__ = ["bench_features", "make_payments"]

_SPANS = {"1h": "1h", "1d": "1d", "7d": "7d", "30d": "30d"}
_OWNERS = {"account_out": "account_id", "counterparty_out": "counterparty_id"}
_MEASURES: tuple[Measure, ...] = ("count", "sum", "max")
WINDOWS = frozenset(Aggregate(owner, measure, span) for owner in _OWNERS for measure in _MEASURES for span in _SPANS)
"""The 24 windows."""


def make_payments(rows: int, seed: int = 7) -> pd.DataFrame:
    """Half a year of payments: 50 an account; merchants by Zipf's law, the largest with a ninth of all rows."""
    rng = np.random.default_rng(seed)
    merchants = max(10, rows // 333)
    weight = 1 / np.arange(1, merchants + 1)
    # Distinct times: pandas' windows let a row see others of its own time.
    moments = np.sort(rng.choice(180 * 86_400 * 1_000, rows, replace=False)) * 1_000
    return pd.DataFrame(
        {
            "payment_id": [f"p{number:08d}" for number in range(rows)],
            "direction": "out",
            "account_id": [f"a{number:07d}" for number in rng.integers(0, max(10, rows // 50), rows)],
            "counterparty_id": [f"m{number:06d}" for number in rng.choice(merchants, rows, p=weight / weight.sum())],
            "event_us": moments,
            "amount_minor": rng.integers(1, 1_000_000, rows),
            "is_out": True,
        }
    )


def bench_features(
    rows: int = 1_000_000, *, repeats: int = 3, features: int = 24, out: Path | None = None
) -> dict[str, Any]:
    """Measure, print, and return both comparisons; with ``out``, also write them to ``bench_data.json`` there.

    Returns:
        ``run``, ``rows``, and for ``windows`` and ``bins`` each way's ``seconds`` (median; the slow pandas windows run
        once) and the ``ratio`` of ours to each other way's.
    """
    threads = os.cpu_count() or 1
    screen = Console()
    payments = make_payments(rows)
    windows = {
        "Crossbank (Ibis on DuckDB)": _ours(payments, threads),
        "Polars": _polars(payments),
        "pandas": _pandas(payments),
    }
    columns = _columns(rows, features)
    bins = {"Crossbank": _our_bins(columns), "Polars": _polars_bins(columns), "pandas": _pandas_bins(columns)}
    report: dict[str, Any] = {"run": provenance(), "rows": rows, "threads": threads}
    found: dict[str, Any] = {}
    for name, ways in (("windows", windows), ("bins", bins)):
        times: dict[str, list[float]] = {way: [] for way in ways}
        for turn in range(repeats):
            for way, run in ways.items():
                if turn and way == "pandas" and name == "windows":
                    continue
                started = perf_counter()
                result = run()
                times[way].append(perf_counter() - started)
                found[f"{name} {way}"] = result
        seconds = {way: median(each) for way, each in times.items()}
        first = next(iter(ways))
        report[name] = {"seconds": seconds, "ratio": {way: seconds[first] / seconds[way] for way in list(ways)[1:]}}
        what = f"24 windows, {rows:,} rows" if name == "windows" else f"bins of {features} features, {rows:,} rows"
        shown = Table(f"{what}, {threads} cores", "seconds (median)", "Crossbank's time over it")
        for way in ways:
            shown.add_row(way, f"{seconds[way]:.2f}", f"{seconds[first] / seconds[way]:.3f}")
        screen.print(shown)
    _compare(found, "windows Crossbank (Ibis on DuckDB)", ["windows Polars", "windows pandas"])
    _compare(found, "bins Crossbank", ["bins Polars", "bins pandas"])
    screen.print("values compared: equal")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "bench_data.json").write_text(json.dumps(report, indent=2) + "\n")
    return report


def _compare(found: dict[str, Any], ours: str, others: list[str]) -> None:
    for other in others:
        if not np.array_equal(found[ours](), found[other](), equal_nan=True):
            raise AssertionError(f"{ours} and {other} gave other values")


Way = Callable[[], Callable[[], np.ndarray]]
"""Runs once; what it returns gives the values, in one order, outside the time measured."""


def _order() -> list[str]:
    return [each.column for each in sorted(WINDOWS)]


def _ours(payments: pd.DataFrame, threads: int) -> Way:
    import ibis

    connection = ibis.duckdb.connect(threads=threads)
    connection.con.register("frame", payments)
    connection.raw_sql("CREATE TABLE events AS SELECT * FROM frame")
    connection.con.unregister("frame")

    def run() -> Callable[[], np.ndarray]:
        query = ibis.to_sql(with_aggregates(connection.table("events"), WINDOWS), dialect="duckdb")
        connection.raw_sql(f"CREATE OR REPLACE TEMP TABLE made AS {query}")
        names = ", ".join(f"{name}::DOUBLE AS {name}" for name in _order())
        return lambda: connection.con.sql(f"SELECT {names} FROM made ORDER BY payment_id").df().to_numpy()

    return run


def _polars(payments: pd.DataFrame) -> Way:
    import polars as pl

    table = pl.from_pandas(payments).with_columns(time=pl.from_epoch("event_us", time_unit="us"))

    def run() -> Callable[[], np.ndarray]:
        made = table.sort("time").with_columns(one=pl.lit(1, pl.Int64))
        values = {
            "count": lambda span: pl.col("one").rolling_sum_by("time", span, closed="left"),
            "sum": lambda span: pl.col("amount_minor").rolling_sum_by("time", span, closed="left"),
            "max": lambda span: pl.col("amount_minor").rolling_max_by("time", span, closed="left"),
        }
        made = made.with_columns(
            values[each.measure](_SPANS[each.span]).over(_OWNERS[each.scope]).alias(each.column) for each in WINDOWS
        )

        def result() -> np.ndarray:
            ordered = made.sort("payment_id").select(_order())
            numbers = [
                pl.col(name).fill_null(0) if "__max__" not in name else pl.col(name).cast(pl.Float64)
                for name in _order()
            ]
            return np.asarray(ordered.select(numbers).cast(pl.Float64).to_pandas())

        return result

    return run


def _pandas(payments: pd.DataFrame) -> Way:
    table = payments.assign(time=pd.to_datetime(payments["event_us"], unit="us"))

    def run() -> Callable[[], np.ndarray]:
        made = table.copy()
        for scope, key in _OWNERS.items():
            ordered = made.sort_values([key, "time"])
            for span in _SPANS:
                rolling = ordered.groupby(key).rolling(_SPANS[span], on="time", closed="left")["amount_minor"]
                for measure in _MEASURES:
                    values = getattr(rolling, measure)().to_numpy()
                    made[f"{scope}__{measure}__{span}"] = pd.Series(values, index=ordered.index)

        def result() -> np.ndarray:
            plain = made.sort_values("payment_id")
            return np.column_stack(
                [
                    plain[name].to_numpy(float) if "max" in name else plain[name].fillna(0).to_numpy()
                    for name in _order()
                ]
            )

        return result

    return run


BINS = 64


def _columns(rows: int, features: int) -> np.ndarray:
    rng = np.random.default_rng(11)
    return rng.lognormal(3, 1.5, (rows, features)).astype(np.float32)


def _grid() -> np.ndarray:
    return np.geomspace(0.01, 1e6, 1000)


def _our_bins(columns: np.ndarray) -> Way:
    from bank_node.boosting import bin_rows, global_bins

    labels = np.zeros(len(columns), np.uint8)
    grids = [_grid()] * columns.shape[1]

    def run() -> Callable[[], np.ndarray]:
        cuts = global_bins(columns, labels, grids, BINS, lambda step, vector: vector)
        bins = bin_rows(columns, cuts).bins
        _CUTS[:] = cuts.values
        return lambda: bins

    run()  # loads the kernels
    return run


_CUTS: list[np.ndarray] = []
"""The cuts of our run: the others bin by the same, since quantiles between grid points differ a little by method."""


def _polars_bins(columns: np.ndarray) -> Way:
    import polars as pl

    table = pl.from_numpy(columns, schema=[f"f{number}" for number in range(columns.shape[1])])

    def run() -> Callable[[], np.ndarray]:
        shares = np.arange(1, BINS) / BINS
        table.select(
            [pl.col(name).quantile(share).alias(f"{name} {share}") for name in table.columns for share in shares]
        )
        bins = table.select(
            pl.col(name).cut(list(map(float, cuts)), left_closed=True).to_physical().cast(pl.UInt8)
            for name, cuts in zip(table.columns, _CUTS, strict=True)
        )
        return lambda: bins.to_numpy()

    return run


def _pandas_bins(columns: np.ndarray) -> Way:
    table = pd.DataFrame(columns)

    def run() -> Callable[[], np.ndarray]:
        table.quantile(np.arange(1, BINS) / BINS)
        bins = pd.DataFrame(
            {
                name: pd.cut(table[name], [-np.inf, *cuts, np.inf], right=False, labels=False)
                for name, cuts in zip(table.columns, _CUTS, strict=True)
            }
        )
        return lambda: bins.to_numpy(np.uint8)

    return run
