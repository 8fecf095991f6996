"""A bank's table or view in PostgreSQL or Spark as a source of the store: one item a day. Maps and keeps nothing.

A day's stamp is asked of the engine: how many rows it has, and the sum of a 64-bit hash of each. So only days in which
anything changed are fetched, whatever the bank corrects, adds or deletes in them, and the table needs no column that
says when a row was changed. A fetched day lies in a temporary folder that only this user can read, as long as it is
taken in: identifiers are still plain there.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

from features.contract.mapping import ColumnMapping, Mapping
from features.contract.schema import DataContract
from features.errors import ColumnTypeError, EmptyTableError, MissingColumnError
from features.sources.engines import BankTable, OpenTable, open_table

if TYPE_CHECKING:
    import ibis.expr.types as ir

__all__ = ["SourceItem", "table_days"]

BATCH_ROWS = 50_000
"""Rows of a day held in memory at a time."""

_BETWEEN, _NULL = "\x1e", "\x1f"
"""Stand between and for values in the text that is hashed; no field of a payment has them."""


@dataclass(frozen=True, slots=True)
class SourceItem:
    """A part of a source that is taken in as a whole: a file, or a day of a table.

    Attributes:
        state: what differs when the item's rows may differ.
        opened: the item as a file, while the block lasts.
    """

    name: str
    state: tuple[Any, ...]
    opened: Callable[[], AbstractContextManager[Path]]


@contextmanager
def table_days(
    source: BankTable, mapping: Mapping, contract: DataContract, *, labels: bool = False
) -> Iterator[list[SourceItem]]:
    """The days of a table, by the date of the column that the mapping reads the payment's time from.

    Args:
        labels: it is a table of labels: by the date of the decision, and it may be empty.

    Raises:
        SourceError: the table can't be reached or a query fails.
        MissingColumnError: it has no such column as the mapping names.
        ColumnTypeError: the time's column is no timestamp or date, so that the engine can't tell days.
        EmptyTableError: it has no row.
    """
    with open_table(source) as opened, tempfile.TemporaryDirectory(prefix="crossbank-") as folder:
        rows, moment = _rows(opened, mapping, contract, labels)
        day = rows[moment].date()
        text = reduce(
            lambda left, right: left + _BETWEEN + right,
            [rows[name].cast("string").fill_null(_NULL) for name in rows.columns],
        )
        stamped = rows.mutate(day_=day, hash_=opened.dialect.text_hash(text).cast("decimal(38, 0)"))
        stamps = stamped.group_by("day_").aggregate(rows_=stamped.count(), sum_=stamped["hash_"].sum())
        found = {
            each["day_"]: (each["rows_"], str(each["sum_"])) for each in opened.backend.to_pyarrow(stamps).to_pylist()
        }
        timeless = found.pop(None, ())
        if not found and not timeless and labels:
            yield []
            return
        if not found:
            raise EmptyTableError(f"{source} has no row with a time.")
        first = min(found)

        def item(date: Any, stamp: tuple[Any, ...]) -> SourceItem:
            name = date.isoformat()
            # Rows without a time go with the first day, to be counted and set aside.
            chosen = rows.filter((day == date) | day.isnull() if date == first else day == date)
            state = (*stamp, *timeless) if date == first else stamp
            file = Path(folder) / f"{source.table} {name}.parquet"

            @contextmanager
            def fetched() -> Iterator[Path]:
                try:
                    _fetch(opened, chosen.order_by(list(rows.columns)), file)
                    yield file
                finally:
                    file.unlink(missing_ok=True)

            return SourceItem(f"{source}/{name}", state, fetched)

        yield [item(date, stamp) for date, stamp in sorted(found.items())]


def _rows(opened: OpenTable, mapping: Mapping, contract: DataContract, labels: bool) -> "tuple[ir.Table, str]":
    """The columns that the mapping reads, and which of them has the time."""
    table = opened.rows
    if labels:
        names = [each for entry in mapping.labels.columns.values() for each in entry.columns]
        names = list(dict.fromkeys([*names, *filter(None, [mapping.labels.version_column])]))
        return _checked(opened, names, "label_time", mapping.labels.columns.get("label_time"))
    optional = {column.name for column in contract.columns if not column.required}
    may_miss = {each for name in optional & mapping.columns.keys() for each in mapping.columns[name].columns}
    names = [name for name in mapping.source_columns if name in table.columns or name not in may_miss]
    return _checked(opened, names, "event_time", mapping.columns["event_time"])


def _checked(opened: OpenTable, names: list[str], what: str, time: ColumnMapping | None) -> "tuple[ir.Table, str]":
    table, source = opened.rows, opened.source
    missing = [name for name in names if name not in table.columns]
    if missing:
        raise MissingColumnError(f"{source} has no column {', '.join(missing)}.", column=missing[0])
    times = () if time is None else time.columns
    kind = table[times[0]].type() if len(times) == 1 else None
    if kind is None or not (kind.is_timestamp() or kind.is_date()):
        told = times[0] if times else what
        raise ColumnTypeError(f"{source}: column {told} must be a timestamp or date, to tell days apart.", column=told)
    return table.select(*names), times[0]


def _fetch(opened: OpenTable, rows: "ir.Table", file: Path) -> None:
    import pyarrow.parquet

    schema = rows.schema().to_pyarrow()
    with pyarrow.parquet.ParquetWriter(file, schema) as writer:
        for batch in opened.backend.to_pyarrow_batches(rows, chunk_size=BATCH_ROWS):
            writer.write_batch(batch.cast(schema))
