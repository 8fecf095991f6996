"""The rows of one day from all source files into that day's events: each payment once, in its newest version.

Of rows with the same payment and direction the newest counts: by the bank's version column, else by file name, else
by row. A correction may move a payment to another day. The newest label counts on its own: a row that brings no label
doesn't take one away, since labels come late, often in a file that corrects nothing else; where the correction made
the payment later than its label, the label is known from the payment's time on. A row of the same id whose account,
time and amount all are others is no version: it is counted as set aside, and its label doesn't count. Where the bank
has a source of labels beside the payments, its verdict counts before theirs (`features.store.label_source`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from features.contract.label_time import NEVER_EARLIER_SQL, known_at
from features.contract.row_rules import other_payment_sql
from features.identifiers import SHARED
from features.sources.files import engine
from features.store.label_source import Verdicts, load_verdicts
from features.store.partitions import FeatureStore, Step, content_digest, digest_of

if TYPE_CHECKING:
    import pyarrow
    from ibis.backends.duckdb import Backend

__all__ = ["merge_days"]

_FORMAT = 2
"""Grows when the same rows would become other events than before."""

PART_ROWS = 4_000_000
"""Rows whose ids are in memory at a time, when payments with rows in several days are looked for: more are looked
through in parts, by hash."""

_LABELS = ("is_fraud", "label_time")
_NEWEST = "version_ DESC, place_ DESC, row_ DESC"

_OWN = f"(PARTITION BY payment_id, direction ORDER BY {_NEWEST})"
_NEWEST_ROW = f"first_value({{'account_id': account_id, 'event_time': event_time, 'amount': amount}}) OVER {_OWN}"
_FIRST_ROWS = 50
"""Row numbers of other payments' ids that are kept for each file and day."""

_Entries = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class _Moved:
    """A payment that has rows in several days.

    Attributes:
        kept: the day of the newest row.
        is_fraud, label_time: the newest label of all versions.
        account_id, event_time, amount: of the newest row.
    """

    payment: str
    direction: str
    days: tuple[str, ...]
    kept: str
    is_fraud: float | None
    label_time: datetime | None
    account_id: str
    event_time: datetime
    amount: float

    def digest_at(self, day: str) -> list[Any]:
        """What matters of it to one of its days."""
        newest = [self.account_id, self.event_time, self.amount]
        return [self.payment, self.direction, day == self.kept, self.is_fraud, self.label_time, newest]


def merge_days(
    store: FeatureStore, delay_days: int, threads: int | None, before_step: Step
) -> tuple[list[date], Verdicts]:
    """Bring ``events`` up to date with the intake; returns the days that were written, and the label source's part."""
    entries = store.entries()
    by_day: dict[str, list[str]] = {}
    for name, entry in sorted(entries.items()):
        for day in entry["days"]:
            by_day.setdefault(day, []).append(name)
    for gone in store.days("events"):
        if gone.isoformat() not in by_day:
            before_step(f"drop {gone}")
            store.partition("features", gone).unlink(missing_ok=True)
            store.partition("events", gone).unlink()
    merged: list[date] = []
    with engine(threads) as connection:
        verdicts = load_verdicts(connection, store, entries)
        moved: dict[str, list[_Moved]] = {}
        for each in _moved(connection, store, entries):
            for day in each.days:
                moved.setdefault(day, []).append(each)
        for text, names in sorted(by_day.items()):
            movers = moved.get(text, [])
            inputs = digest_of(
                _FORMAT,
                delay_days,
                [[name, entries[name]["days"][text][0]] for name in names],
                [each.digest_at(text) for each in movers],
                *([verdicts.digests[text]] if text in verdicts.digests else []),
            )
            path = store.partition("events", date.fromisoformat(text))
            if store.facts(path).get("inputs") == inputs:
                continue
            before_step(f"merge {text}")
            judged = _judged(connection, [store.intake(name) / f"{text}.parquet" for name in names], text, movers)
            rows = _newest(connection, judged)
            given = sum(entries[name]["days"][text][1] for name in names)
            others = _others(connection, judged, names) if given > len(rows) else {}
            repeated = given - len(rows) - sum(count for count, _ in others.values())
            store.write(path, rows, _facts(rows, inputs, delay_days) | {"repeated": repeated, "others": others})
            merged.append(date.fromisoformat(text))
    return merged, verdicts


def _facts(rows: "pyarrow.Table", inputs: str, delay_days: int) -> dict[str, Any]:
    """What later steps ask about a day without reading it.

    ``frauds`` has, by the day on which it became known, a digest of the frauds of this day: a late label changes the
    features of rows from that day on, not from the payment's.
    """
    import pyarrow.compute as pc

    # Features don't read the hashes that all banks make alike: a new link key makes no feature anew.
    plain = [name for name in rows.column_names if name not in (*_LABELS, *SHARED.values())]
    known: dict[str, list[tuple[str, str, str]]] = {}
    frauds = rows.filter(pc.and_(pc.equal(rows["is_fraud"], 1), pc.equal(rows["direction"], "out")))
    for row in frauds.select(["account_id", "counterparty_id", "event_time", "label_time"]).to_pylist():
        moment = known_at(row["event_time"], row["label_time"], delay_days)
        line = (row["account_id"], row["counterparty_id"], moment.isoformat())
        known.setdefault(moment.date().isoformat(), []).append(line)
    return {
        "inputs": inputs,
        "rows": len(rows),
        "content": content_digest(rows.select(plain)),
        "labels": content_digest(rows.select(["payment_id", "direction", *_LABELS])),
        "frauds": {day: digest_of(sorted(lines)) for day, lines in sorted(known.items())},
    }


def _moved(connection: "Backend", store: FeatureStore, entries: _Entries) -> list[_Moved]:
    """Payments that have rows in more than one day, over all files."""
    files = [
        (str(store.intake(name) / f"{day}.parquet"), place, day)
        for place, (name, entry) in enumerate(sorted(entries.items()))
        for day in entry["days"]
    ]
    if len({place for _, place, _ in files}) < 2 and len({day for *_, day in files}) < 2:
        return []
    scan = _scan(connection, files)
    rows = sum(count for entry in entries.values() for _, count in entry["days"].values())
    parts = max(1, -(-rows // PART_ROWS))
    found = []
    for part in range(parts):
        own = f"hash(payment_id, direction) % {parts} = {part}"
        # A first pass on 64-bit hashes: most payments have one row, and these never leave it.
        twice = f"SELECT hash(payment_id, direction) FROM {scan} WHERE {own} GROUP BY 1 HAVING min(day_) <> max(day_)"
        again = f"SELECT * FROM {scan} WHERE {own} AND hash(payment_id, direction) IN ({twice})"
        found += connection.con.execute(
            f"""
            SELECT payment_id, direction, list(DISTINCT day_ ORDER BY day_), first(day_ ORDER BY {_NEWEST}),
                   first(is_fraud ORDER BY {_NEWEST}) FILTER (is_fraud IS NOT NULL AND NOT other_),
                   first(label_time ORDER BY {_NEWEST}) FILTER (is_fraud IS NOT NULL AND NOT other_),
                   any_value(newest_.account_id), any_value(newest_.event_time), any_value(newest_.amount)
            FROM (SELECT *, {other_payment_sql("newest_")} AS other_
                  FROM (SELECT *, {_NEWEST_ROW} AS newest_ FROM ({again})))
            GROUP BY 1, 2 HAVING count(DISTINCT day_) > 1"""
        ).fetchall()
    return [_Moved(row[0], row[1], tuple(row[2]), *row[3:]) for row in sorted(found, key=lambda row: row[:2])]


def _scan(connection: "Backend", files: Sequence[tuple[str, int, str]]) -> str:
    """A subquery over Parquet files (path, place, day) that knows each row's place and day."""
    con = connection.con
    con.execute("CREATE OR REPLACE TEMP TABLE places (filename VARCHAR, place_ BIGINT, day_ VARCHAR)")
    con.executemany("INSERT INTO places VALUES (?, ?, ?)", [list(row) for row in files])
    listed = ", ".join("'" + path.replace("'", "''") + "'" for path, *_ in files)
    return f"(SELECT * FROM read_parquet([{listed}], filename = true) JOIN places USING (filename))"


def _judged(connection: "Backend", files: Sequence[Path], day: str, movers: Sequence[_Moved]) -> str:
    """A subquery over the day's rows that knows of each whether it is another payment than its id's (``other_``)."""
    con = connection.con
    scan = _scan(connection, [(str(path), place, day) for place, path in enumerate(files)])
    con.execute(
        "CREATE OR REPLACE TEMP TABLE moved "
        "(payment_id VARCHAR, direction VARCHAR, stays BOOLEAN, moved_fraud DOUBLE, moved_time TIMESTAMP, "
        "moved_newest STRUCT(account_id VARCHAR, event_time TIMESTAMP, amount DOUBLE))"
    )
    if movers:
        con.executemany(
            "INSERT INTO moved VALUES (?, ?, ?, ?, ?, {'account_id': ?, 'event_time': ?, 'amount': ?})",
            [
                [each.payment, each.direction, each.kept == day, each.is_fraud, each.label_time,
                 each.account_id, each.event_time, each.amount]
                for each in movers
            ],
        )  # fmt: skip
    return f"""(
        SELECT *, {other_payment_sql("newest_")} AS other_
        FROM (SELECT * EXCLUDE (moved_newest), coalesce(moved_newest, {_NEWEST_ROW}) AS newest_
              FROM {scan} LEFT JOIN moved USING (payment_id, direction)))"""


def _others(connection: "Backend", judged: str, names: Sequence[str]) -> dict[str, tuple[int, list[int]]]:
    """Rows that are other payments than their id's, by source: how many, and their first numbers."""
    found = connection.con.execute(
        f"SELECT place_, count(*), list_sort(list(row_))[:{_FIRST_ROWS}] FROM {judged} WHERE other_ GROUP BY 1"
    ).fetchall()
    return {names[place]: (count, first) for place, count, first in sorted(found)}


def _newest(connection: "Backend", judged: str) -> "pyarrow.Table":
    """The day's rows, the newest of each payment, in order of time and hash."""
    label = (
        "first_value({'fraud': is_fraud, 'time': label_time}) OVER (PARTITION BY payment_id, direction "
        f"ORDER BY other_, is_fraud IS NULL, {_NEWEST})"
    )
    known = NEVER_EARLIER_SQL.format(label="fraud_", time="time_", payment="event_time")
    query = f"""
        SELECT * EXCLUDE (fraud_, time_), fraud_ AS is_fraud,
               {known} AS label_time
        FROM (
            SELECT * EXCLUDE (filename, place_, day_, version_, row_, label_, is_fraud, label_time, stays,
                              moved_fraud, moved_time, newest_, other_, verdict, verdict_time),
                   CASE WHEN direction = 'out' AND verdict IS NOT NULL THEN verdict
                        WHEN stays IS NULL THEN label_.fraud ELSE moved_fraud END AS fraud_,
                   CASE WHEN direction = 'out' AND verdict IS NOT NULL THEN verdict_time
                        WHEN stays IS NULL THEN label_.time ELSE moved_time END AS time_
            FROM (SELECT *, {label} AS label_ FROM {judged} QUALIFY row_number() OVER {_OWN} = 1)
            LEFT JOIN verdicts USING (payment_id)
            WHERE coalesce(stays, true)
        ) ORDER BY event_time, payment_id, direction"""
    return connection.con.sql(query).to_arrow_table()
