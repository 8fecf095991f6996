"""Rows of one file that have a payment's id and are no versions of it: set aside or refused. Merges nothing.

A version of a payment has its account, its time or its amount: a correction changes one or two of them. A row that
differs from the newest one of its id in all three is another payment, and which of the two the id means can't be told.
"""

import uuid
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from features.contract.row_rules import SHARED_ID, other_payment_sql
from features.errors import SourceError
from features.ingestion.normalise import Normalised

if TYPE_CHECKING:
    from ibis.backends.duckdb import Backend

__all__ = ["MAX_SHARED_IDS", "without_shared_ids"]

MAX_SHARED_IDS = 0.01
"""Largest share of a file's rows whose id another payment has: above it the column is no id of payments."""


def without_shared_ids(connection: "Backend", file: Path, made: Normalised) -> Normalised:
    """The same rows, of which those that have another payment's id are in ``bad``.

    Args:
        file: what messages name.

    Raises:
        SourceError: too many rows share an id and differ in account, time and amount; says what to write.
    """
    con, good = connection.con, made.good.get_name()
    # Most files have no id twice: that costs one pass, and nothing is sorted.
    rows, ids = con.execute(f"SELECT count(*), count(DISTINCT hash(payment_id, direction)) FROM {good}").fetchall()[0]
    if rows == ids:
        return made
    others, kept, bad = (f"{name}_{uuid.uuid4().hex}" for name in ("others", "good", "bad"))
    newest = "(PARTITION BY payment_id, direction ORDER BY version_ DESC, row_ DESC)"
    con.execute(
        f"""
        CREATE TEMP TABLE {others} AS SELECT row_ FROM (
            SELECT row_, account_id, event_time, amount,
                   first_value({{'account_id': account_id, 'event_time': event_time, 'amount': amount}})
                       OVER {newest} AS newest
            FROM {good} WHERE hash(payment_id, direction) IN
                (SELECT hash(payment_id, direction) FROM {good} GROUP BY 1 HAVING count(*) > 1))
        WHERE {other_payment_sql("newest")}"""
    )
    (found,) = con.execute(f"SELECT count(*) FROM {others}").fetchall()[0]
    if not found:
        return made
    if found > max(1, MAX_SHARED_IDS * rows):
        raise SourceError(
            f"File {file}: column payment_id: {found} of {rows} rows have the id of another row, and another account, "
            "time and amount: these are no repeats. Map payment_id from a column that differs for each payment, or "
            "from several that do together (from: [a, b]); ids cut short by a spreadsheet must be exported as text."
        )
    con.execute(f"CREATE TEMP TABLE {kept} AS SELECT * FROM {good} ANTI JOIN {others} USING (row_)")
    con.execute(
        f"CREATE TEMP TABLE {bad} AS SELECT * FROM {made.bad.get_name()} UNION ALL "
        f"SELECT row_, 'payment_id', ? FROM {others}",
        [SHARED_ID],
    )
    return replace(made, good=connection.table(kept), bad=connection.table(bad))
