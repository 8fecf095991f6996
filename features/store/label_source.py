"""A source of labels beside the payments: what came of cases, merged to one verdict a payment. Reads no payment's file.

A case-management export tells, days or weeks after a payment, whether it was fraud. Its rows are taken in like files of
payments: mapped, judged, quarantined, identifiers hashed. The newest verdict on a payment counts, and it counts before
the label in the payments' own files. A verdict on a payment that is not in the store waits until that comes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from features.store.partitions import FeatureStore

if TYPE_CHECKING:
    import pyarrow
    from ibis.backends.duckdb import Backend

__all__ = ["LABEL_FILE", "PREFIX", "LabelCounts", "Verdicts", "is_label_entry", "load_verdicts", "of_known_payments"]

PREFIX = "//labels/"
"""Begins the names of label sources in the store; no file below a folder has such a name."""

LABEL_FILE = "labels.parquet"

_Entries = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelCounts:
    """What the label source holds now; every row is in one of ``quarantined``, ``repeated``, ``applied``, ``waiting``.

    Attributes:
        rows: rows of all its files.
        quarantined: rows set aside, by column and reason.
        repeated: verdicts that a newer one on the same payment replaced.
        applied: payments that have their label from here.
        waiting: verdicts on payments that are not in the store.
    """

    rows: int = 0
    quarantined: dict[tuple[str, str], int] = field(default_factory=dict)
    repeated: int = 0
    applied: int = 0
    waiting: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdicts:
    """What the table ``verdicts`` of an engine has: the newest of each payment.

    Attributes:
        payments: how many payments they are about.
        applied: how many of these are in the intake.
        digests: for each day with such a payment, what differs when a verdict on one of its payments does.
    """

    payments: int
    applied: int
    digests: Mapping[str, str]


def is_label_entry(name: str) -> bool:
    """Whether an entry of the store's intake is of labels."""
    return name.startswith(PREFIX)


def load_verdicts(connection: "Backend", store: FeatureStore, entries: _Entries) -> Verdicts:
    """Make the table ``verdicts (payment_id, verdict, verdict_time)`` in the engine, empty without a label source."""
    con = connection.con
    con.execute("CREATE OR REPLACE TEMP TABLE verdicts (payment_id VARCHAR, verdict DOUBLE, verdict_time TIMESTAMP)")
    names = sorted(name for name in entries if is_label_entry(name))
    if not names:
        return Verdicts(payments=0, applied=0, digests={})
    for place, name in enumerate(names):
        query = (
            f"SELECT payment_id, is_fraud, label_time, version_, {place}::BIGINT AS place_, row_ FROM read_parquet(?)"
        )
        start = "CREATE OR REPLACE TEMP TABLE told AS" if place == 0 else "INSERT INTO told"
        con.execute(f"{start} {query}", [str(store.intake(name) / LABEL_FILE)])
    con.execute(
        "INSERT INTO verdicts SELECT payment_id, is_fraud, label_time FROM told QUALIFY row_number() OVER "
        "(PARTITION BY payment_id ORDER BY version_ DESC, place_ DESC, row_ DESC) = 1"
    )
    con.execute("DROP TABLE told")
    con.execute("CREATE OR REPLACE TEMP TABLE found (payment_id VARCHAR)")
    digests = {}
    for day, files in _files_by_day(store, entries).items():
        con.execute(
            "CREATE OR REPLACE TEMP TABLE met AS SELECT * FROM verdicts SEMI JOIN "
            "(SELECT payment_id FROM read_parquet(?) WHERE direction = 'out') USING (payment_id)",
            [files],
        )
        # A sum of hashes: the rows have no order, and a day may have millions.
        count, total = con.execute(
            "SELECT count(*), sum(hash(payment_id, verdict, verdict_time)::HUGEINT)::VARCHAR FROM met"
        ).fetchall()[0]
        if count:
            digests[day] = f"{count} {total}"
            con.execute("INSERT INTO found SELECT payment_id FROM met")
    payments = con.execute("SELECT count(*) FROM verdicts").fetchall()[0][0]
    applied = con.execute("SELECT count(DISTINCT payment_id) FROM found").fetchall()[0][0]
    con.execute("DROP TABLE found")
    return Verdicts(payments=int(payments), applied=int(applied), digests=digests)


def of_known_payments(
    connection: "Backend", store: FeatureStore, entries: _Entries, rows: "pyarrow.Table"
) -> "pyarrow.Table":
    """Those labels whose payment is in the intake: where customers were purged, no other may be kept."""
    con = connection.con
    con.register("given_labels", rows)
    con.execute("CREATE OR REPLACE TEMP TABLE kept_labels AS SELECT * FROM given_labels LIMIT 0")
    for files in _files_by_day(store, entries).values():
        con.execute(
            "INSERT INTO kept_labels SELECT * FROM given_labels SEMI JOIN "
            "(SELECT payment_id FROM read_parquet(?)) USING (payment_id)",
            [files],
        )
    # A payment may have rows in several days.
    kept = con.sql("SELECT DISTINCT * FROM kept_labels ORDER BY row_").to_arrow_table()
    con.unregister("given_labels")
    con.execute("DROP TABLE kept_labels")
    return kept.cast(rows.schema)


def _files_by_day(store: FeatureStore, entries: _Entries) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, entry in sorted(entries.items()):
        folder = store.intake(name)
        days: Sequence[str] = () if is_label_entry(name) else list(entry["days"])
        for day in days:
            found.setdefault(day, []).append(str(folder / f"{day}.parquet"))
    return found
