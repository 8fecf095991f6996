"""Day partitions of features from the events, made anew only where something before them changed. Merges nothing.

Days are worked on in blocks of bounded size: a block reads itself, the 30 days before it, and one summary per account
and pair of all that lies earlier. What a partition was made from is a digest in its own metadata: a chain over all
events up to its day, and over the frauds that became known in the 30 days before its end. Of earlier payments' labels
only those days are read that have such a fraud.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from features.contract.schema import DataContract
from features.engineering.feature_table import feature_table, needs_of, timed
from features.engineering.windows import LONGEST_SPAN_US, Earlier, summarised
from features.errors import DataError
from features.sources.files import engine, reading
from features.store.partitions import FeatureStore, Step, digest_of

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pyarrow
    from ibis.backends.duckdb import Backend

__all__ = ["BLOCK_ROWS", "build_days"]

BLOCK_ROWS = 2_000_000
"""Most rows that a block of days has in memory, its 30 days of history included; a single day may have more."""

_FORMAT = 1
"""Grows when the same events would become other features than before."""

_HISTORY = timedelta(microseconds=LONGEST_SPAN_US)


def build_days(
    contract: DataContract, store: FeatureStore, threads: int | None, block_rows: int, before_step: Step
) -> tuple[list[date], list[date]]:
    """Bring ``features`` up to date with the events; returns the days made and those whose labels alone were renewed.

    Args:
        block_rows: see `BLOCK_ROWS`; changes nothing in what is made.
    """
    days = store.days("events")
    facts = {day: store.facts(store.partition("events", day)) for day in days}
    chains = _chains(contract, days, facts)
    stale, relabel = [], []
    for day in days:
        found = store.facts(store.partition("features", day))
        if found.get("chain") != chains[day]:
            stale.append(day)
        elif found.get("labels") != facts[day]["labels"]:
            relabel.append(day)
    for day in set(store.days("features")) - set(days):
        store.partition("features", day).unlink(missing_ok=True)

    def known(day: date, table: "pyarrow.Table") -> dict[str, Any]:
        return {
            "contract": contract.fingerprint,
            "chain": chains[day],
            "labels": facts[day]["labels"],
            "rows": len(table),
            "frauds": int((table["is_fraud"].to_numpy() == 1).sum()),
        }

    for block in _blocks(stale, {day: facts[day]["rows"] for day in days}, block_rows):
        for day, table in _features_of(contract, store, facts, block, threads):
            before_step(f"build {day}")
            store.write(store.partition("features", day), table, known(day, table))
    for day in relabel:
        before_step(f"relabel {day}")
        table = _relabelled(contract, store, day, threads)
        store.write(store.partition("features", day), table, known(day, table))
    return stale, relabel


def _chains(contract: DataContract, days: Sequence[date], facts: Mapping[date, Mapping[str, Any]]) -> dict[date, str]:
    """For each day a digest of all that its features may depend on."""
    known: dict[str, list[list[str]]] = {}
    if any(need.of_labels for need in needs_of(contract)):
        for day in days:
            for when, digest in facts[day]["frauds"].items():
                known.setdefault(when, []).append([day.isoformat(), digest])
    content, chains = digest_of(_FORMAT, contract.fingerprint), {}
    for day in days:
        content = digest_of(content, day.isoformat(), facts[day]["content"])
        first, last = (day - _HISTORY).isoformat(), day.isoformat()
        # Windows of labels reach no further back: a label that became known earlier changes nothing here.
        seen = [[when, known[when]] for when in sorted(known) if first <= when <= last]
        chains[day] = digest_of(content, seen)
    return chains


def _blocks(stale: Sequence[date], rows: Mapping[date, int], most: int) -> Iterator[list[date]]:
    """Stale days in runs, cut where a run with its history would hold too many rows. At least one day each."""
    block: list[date] = []
    for day in stale:
        if block:
            start = block[0] - _HISTORY
            if sum(count for each, count in rows.items() if start <= each <= day) > most:
                yield block
                block = []
        block.append(day)
    if block:
        yield block


def _features_of(
    contract: DataContract,
    store: FeatureStore,
    facts: Mapping[date, Mapping[str, Any]],
    block: Sequence[date],
    threads: int | None,
) -> Iterator[tuple[date, "pyarrow.Table"]]:
    since, until = block[0], block[-1] + timedelta(days=1)
    start = since - _HISTORY
    before = [store.partition("events", day) for day in facts if day < start]
    # A fraud counts from the day on which it became known, and each day's facts tell these: most have none in reach.
    late = [
        store.partition("events", day)
        for day, fact in facts.items()
        if day < start and any(start.isoformat() <= when < until.isoformat() for when in fact["frauds"])
    ]
    inside = [store.partition("events", day) for day in facts if start <= day < until]
    with engine(threads) as connection, reading(store.root):
        events = _loaded(connection, "events", inside)
        table = feature_table(
            events,
            contract,
            since=datetime.combine(since, time.min),
            until=datetime.combine(until, time.min),
            earlier=_earlier(connection, contract, before, late) if before else None,
        )
        _kept(connection, "made", table.order_by(["event_time", "row_id"]))
        for day in block:
            rows = connection.con.sql(
                "SELECT * FROM made WHERE event_time >= $day AND event_time < $day + INTERVAL 1 DAY "
                "ORDER BY event_time, row_id",
                params={"day": day},
            )
            yield day, rows.to_arrow_table()


def _earlier(connection: "Backend", contract: DataContract, files: Sequence[Path], late: Sequence[Path]) -> Earlier:
    """One row for each account and pair that the block has payments of; a scan of a few columns of all days before.

    Args:
        late: those of the files with a fraud that became known in the block or its history.
    """
    needs = [need for need in needs_of(contract) if not need.of_labels]
    frauds_of = _parquet(late) if late else "events LIMIT 0"
    columns = "payment_id, direction, event_time, account_id, counterparty_id, amount, is_fraud, label_time"
    connection.con.execute(
        f"CREATE TEMP VIEW before AS SELECT {columns} FROM {_parquet(files)} "
        "WHERE account_id IN (SELECT account_id FROM events)"
    )
    connection.con.execute(
        f"CREATE TEMP VIEW before_frauds AS SELECT * FROM (SELECT {columns} FROM {frauds_of}) "
        "WHERE is_fraud = 1 AND direction = 'out'"
    )
    history = timed(connection.table("before"), contract)
    summaries = {}
    for number, keys in enumerate(sorted({need.keys for need in needs if need.span == "ever"})):
        if "account_id" not in keys:
            raise DataError("Only windows over an account may be without a bound.")
        summaries[keys] = _kept(connection, f"summary_{number}", summarised(history, keys, needs))
    frauds = timed(connection.table("before_frauds"), contract)
    kept = _kept(connection, "frauds", frauds.select("account_id", "counterparty_id", "known_us"))
    return Earlier(summaries=summaries, frauds=kept)


def _relabelled(contract: DataContract, store: FeatureStore, day: date, threads: int | None) -> "pyarrow.Table":
    with engine(threads) as connection, reading(store.root):
        events = timed(_loaded(connection, "events", [store.partition("events", day)]), contract)
        features = _loaded(connection, "features", [store.partition("features", day)])
        labels = events.filter(events["is_out"]).select(
            row_id=events["payment_id"], is_fraud=events["is_fraud"], label_time=events["settled_time"]
        )
        joined = features.drop("is_fraud", "label_time").join(labels, "row_id").select(*features.columns)
        return connection.to_pyarrow(joined.order_by(["event_time", "row_id"]))


def _parquet(files: Sequence[Path]) -> str:
    listed = ", ".join("'" + str(path).replace("'", "''") + "'" for path in files)
    return f"read_parquet([{listed}])"


def _loaded(connection: "Backend", name: str, files: Sequence[Path]) -> "ir.Table":
    connection.con.execute(
        f"CREATE TEMP TABLE {name} AS SELECT * FROM read_parquet(?)", [[str(file) for file in files]]
    )
    return connection.table(name)


def _kept(connection: "Backend", name: str, table: "ir.Table") -> "ir.Table":
    import ibis

    connection.raw_sql(f"CREATE TEMP TABLE {name} AS {ibis.to_sql(table, dialect='duckdb')}")
    return connection.table(name)
