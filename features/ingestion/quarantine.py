"""The rows that were set aside, by source file, column and reason, with their numbers. Shows no value of them.

The store keeps them in folders named by a digest; ``intake/index.tsv`` says which folder is which file's.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from features.contract.mapping import Mapping
from features.ingestion.advice import advice
from features.store.partitions import FeatureStore

__all__ = ["SetAside", "quarantined_rows", "set_aside", "write_index"]

_FIRST = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAside:
    """Rows of one source file, or day of a table, with one reason.

    Attributes:
        source: the file's name in its folder, or the table and day; with ``labels/`` before it for labels.
        folder: the folder in ``store/intake`` that has the row numbers (``quarantine.parquet``).
        column: the contract's; "" for lines that could not be told into columns.
        rows: how many.
        of: rows that the source has.
        first: their first numbers, among the rows that can be read, from 1; none for lines.
        mend: what in the mapping to look at.
    """

    source: str
    folder: str
    column: str
    reason: str
    rows: int
    of: int
    first: tuple[int, ...]
    mend: str


def set_aside(store: FeatureStore, mapping: Mapping | None = None, *, first: int = _FIRST) -> list[SetAside]:
    """Everything in the quarantine, the most rows first within each source.

    Args:
        mapping: the bank's, for advice; None where its columns are the contract's.
        first: how many row numbers to name.
    """
    found: list[SetAside] = []
    for source, entry in store.entries().items():
        folder = store.intake(source)
        numbers = {} if not entry["quarantined"] else quarantined_rows(store, source)
        groups = sorted(entry["quarantined"], key=lambda each: (-each[2], each[0], each[1]))
        for column, reason, rows in groups:
            found.append(
                SetAside(
                    source=source,
                    folder=folder.name,
                    column=column,
                    reason=reason,
                    rows=int(rows),
                    of=int(entry["rows"]),
                    first=tuple(numbers.get((column, reason), ())[:first]),
                    mend=advice(column, reason, _entry(mapping, column)),
                )
            )
    return found


def quarantined_rows(store: FeatureStore, source: str) -> dict[tuple[str, str], list[int]]:
    """Row numbers of one source by column and reason, in order.

    Raises:
        SourceError: the quarantine is damaged; delete its folder and extract again.
    """
    table = store.read(store.intake(source) / "quarantine.parquet")
    labels = "labels" in store.entries().get(source, {})
    found: dict[tuple[str, str], list[int]] = {}
    for row in table.select(["row_", "column_", "reason_"]).to_pylist():
        column = f"labels.{row['column_']}" if labels else row["column_"]
        found.setdefault((column, row["reason_"]), []).append(int(row["row_"]))
    return {group: sorted(rows) for group, rows in found.items()}


def _entry(mapping: Mapping | None, column: str) -> Any:
    if mapping is None:
        return None
    if column.startswith("labels."):
        return mapping.labels.columns.get(column.removeprefix("labels."))
    return mapping.columns.get(column)


def write_index(store: FeatureStore) -> None:
    """Write ``intake/index.tsv``: folder, rows, quarantined rows and source of each folder, for humans to read."""

    def lines() -> Iterator[str]:
        yield "folder\trows\tquarantined\tsource"
        for source, entry in sorted(store.entries().items()):
            bad = sum(count for *_, count in entry["quarantined"])
            yield f"{store.intake(source).name}\t{entry['rows']}\t{bad}\t{' '.join(source.split())}"

    folder = store.root / "intake"
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / ".index.tsv.draft"
    draft.write_text("\n".join(lines()) + "\n", encoding="utf-8")
    draft.replace(folder / "index.tsv")
