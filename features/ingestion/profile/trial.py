"""A trial of a mapping on the first rows: what extraction would keep, repeat and set aside. Keeps nothing.

The rows go through the same code as in an extraction, but for the hashing of identifiers.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from features.contract.mapping import Mapping
from features.contract.schema import DataContract
from features.errors import DataError, SourceError
from features.ingestion.normalise import Normalised, normalised
from features.ingestion.profile.sample import Sample, first_rows
from features.ingestion.shared_ids import without_shared_ids
from features.sources.engines import BankTable
from features.sources.files import engine

__all__ = ["Trial", "TrialFault", "tried"]

SHOWN_ROWS = 5
"""Row numbers that are named for each reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialFault:
    """One reason for which rows would be set aside: how many, and the first numbers of them (in the file, from 1)."""

    column: str
    reason: str
    rows: int
    first: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What would become of the rows tried: rows = kept + repeated + quarantined, lines that are no rows among the last.

    Attributes:
        outgoing: kept rows that would have features. frauds: of them, known to be fraud. first, last: their times, UTC.
    """

    where: str
    rows: int
    more: bool
    kept: int
    repeated: int
    faults: tuple[TrialFault, ...]
    outgoing: int
    frauds: int
    first: str
    last: str

    @property
    def quarantined(self) -> int:
        """Rows that would be set aside, lines that are no rows among them."""
        return sum(fault.rows for fault in self.faults)

    @property
    def share(self) -> float:
        """How many of all rows that is."""
        return self.quarantined / self.rows if self.rows else 0.0


def tried(source: Path | str | BankTable, contract: DataContract, mapping: Mapping) -> Trial:
    """Map the first rows.

    Raises:
        DataError: the mapping names a column that the source has not, or reads one as what it can't be.
    """
    sample = first_rows(source, form=mapping.csv)
    with tempfile.TemporaryDirectory(prefix="crossbank-") as folder, engine() as connection:
        file = sample.file if sample.messages and sample.file is not None else _rows_file(sample, folder)
        try:
            made = without_shared_ids(connection, file, normalised(connection, file, contract, mapping, None))
        except DataError as error:
            # The text names the temporary file; the bank knows its own.
            raise SourceError(str(error).replace(str(file), sample.where)) from error
        return _told(connection.con, made, sample)


def _rows_file(sample: Sample, folder: str) -> Path:
    import pyarrow.parquet

    file = Path(folder) / "rows.parquet"
    pyarrow.parquet.write_table(sample.rows, file)
    return file


def _told(con: "object", made: Normalised, sample: Sample) -> Trial:
    good, bad = made.good.get_name(), made.bad.get_name()
    execute = con.execute  # type: ignore[attr-defined]
    out = "count(DISTINCT payment_id) FILTER (direction = 'out'"
    counts = execute(
        f"SELECT count(*), count(DISTINCT (payment_id, direction)), {out}), {out} AND is_fraud = 1), "
        f"min(event_time), max(event_time) FROM {good}"
    ).fetchall()[0]
    found = execute(
        f"SELECT column_, reason_, count(*) AS rows_, list_sort(list(row_))[:{SHOWN_ROWS}] FROM {bad} "
        "GROUP BY ALL ORDER BY rows_ DESC, column_, reason_"
    ).fetchall()
    # A file of messages was read itself, not its sample.
    before = {} if sample.messages else sample.unreadable
    unreadable = {**before, **made.unreadable}
    faults = [
        *(
            TrialFault(column=column, reason=reason, rows=rows, first=tuple(first))
            for column, reason, rows, first in found
        ),
        *(TrialFault(column="", reason=reason, rows=rows) for reason, rows in unreadable.items()),
    ]
    rows, different, outgoing, frauds, first, last = counts
    return Trial(
        where=sample.where,
        rows=made.rows + sum(before.values()),
        more=sample.more and not sample.messages,
        kept=different,
        repeated=rows - different,
        faults=tuple(faults),
        outgoing=outgoing,
        frauds=frauds,
        first="" if first is None else str(first),
        last="" if last is None else str(last),
    )
