"""Features computed where a bank's payments are: in its PostgreSQL or on its Spark. Only features come back.

For a bank whose table has no place on one machine. The table or view has the contract's columns, names and codes; it is
checked by the same rules as files and by the same feature expressions made into features. A bank that wants mapping,
quarantine and day by day work uses the table as a source of the store instead: see `features.incremental`.
"""

import logging
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING

from features.contract.schema import DataContract
from features.engineering.feature_table import feature_table
from features.engineering.validation import checked_rows
from features.sources.engines import BankTable, open_table

if TYPE_CHECKING:
    import pyarrow

__all__ = ["engine_features"]

logger = logging.getLogger(__name__)

BATCH_ROWS = 100_000
"""Rows of features held here at a time, about 20 MB."""


def engine_features(
    contract: DataContract, source: BankTable, *, since: datetime | None = None, until: datetime | None = None
) -> Iterator["pyarrow.RecordBatch"]:
    """Check a bank's table and make the contract's features in its engine.

    Args:
        since: only rows at or after this time, UTC; earlier rows are still history. None is all.
        until: only rows before this time, UTC. None is all.

    Yields:
        Batches of the rows that `features.extract_features` returns for the same payments, in the same order; floats
        are within 1e-9 of it.

    Raises:
        DataError: the table can't be reached or breaks the contract.
    """
    with open_table(source) as opened:
        events = checked_rows(opened.backend, opened.rows, source.label, contract)
        if until is not None:
            # Rows from then on are no row's history.
            events = events.filter(events["event_time"] < until)
        table = feature_table(events, contract, since=since, until=until, dialect=opened.dialect)
        ordered = table.order_by(["event_time", "row_id"])
        count = 0
        for batch in opened.backend.to_pyarrow_batches(ordered, chunk_size=BATCH_ROWS):
            count += batch.num_rows
            yield batch
    logger.info("%d rows, %d features from %s", count, len(contract.features), source.label)
