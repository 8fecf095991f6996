"""The rows that were set aside, by source file, column and reason, with their numbers. Shows no value of them.

The store keeps them in folders named by a digest; ``intake/index.tsv`` says which folder is which file's.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from features.contract.mapping import Mapping
from features.contract.row_rules import SHARED_ID
from features.contract.schema import DataContract
from features.ingestion.advice import advice
from features.ingestion.normalise import label_mapping, raw_rows
from features.sources.files import engine, reading
from features.store.label_source import PREFIX, is_label_entry
from features.store.partitions import FeatureStore

__all__ = ["SetAside", "quarantined_rows", "set_aside", "values_set_aside", "write_index"]

_FIRST = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAside:
    """Rows of one source file, or day of a table, with one reason.

    Attributes:
        source: the file's name in its folder, or the table and day; for labels with `label_source.PREFIX` before it.
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

    @property
    def name(self) -> str:
        """The source, for humans."""
        return f"labels: {self.source.removeprefix(PREFIX)}" if is_label_entry(self.source) else self.source


def set_aside(store: FeatureStore, mapping: Mapping | None = None, *, first: int = _FIRST) -> list[SetAside]:
    """Everything in the quarantine, the most rows first within each source.

    Args:
        mapping: the bank's, for advice; None where its columns are the contract's.
        first: how many row numbers to name.
    """
    found: list[SetAside] = []
    others = store.others()
    for source, entry in store.entries().items():
        folder = store.intake(source)
        numbers = {} if not entry["quarantined"] else quarantined_rows(store, source)
        counts = {(column, reason): count for column, reason, count in entry["quarantined"]}
        if source in others:
            group = ("payment_id", SHARED_ID)
            counts[group] = counts.get(group, 0) + others[source][0]
            numbers[group] = sorted([*numbers.get(group, []), *others[source][1]])
        groups = sorted(
            ((*group, count) for group, count in counts.items()), key=lambda each: (-each[2], each[0], each[1])
        )
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
    labels = is_label_entry(source)
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
        others = store.others()
        for source, entry in sorted(store.entries().items()):
            bad = sum(count for *_, count in entry["quarantined"]) + others.get(source, (0, []))[0]
            name = " ".join(source.removeprefix(PREFIX).split()) + " (labels)" * is_label_entry(source)
            yield f"{store.intake(source).name}\t{entry['rows']}\t{bad}\t{name}"

    folder = store.root / "intake"
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / ".index.tsv.draft"
    draft.write_text("\n".join(lines()) + "\n", encoding="utf-8")
    draft.replace(folder / "index.tsv")


def values_set_aside(
    source: Path, group: SetAside, contract: DataContract, mapping: Mapping
) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    """The bank's own values in the rows of a group, read again from its file: personal data among them.

    Args:
        source: the configured file or folder of payments, or of labels for a group of those.

    Returns:
        Names of the bank's columns that the mapping reads for the group's column, and for each of `SetAside.first`
        the number and the values.

    Raises:
        DataError: the file can't be read, or is gone.
    """
    labels = is_label_entry(group.source)
    form = label_mapping(mapping) if labels else mapping
    entry = form.columns.get(group.column.removeprefix("labels."))
    names = [*(entry.columns if entry else ())]
    if group.column == "amount" and form.currency is not None and "currency" in group.reason:
        names = [form.currency.source] if form.currency.source else []
    if not names or not group.first:
        return (), []
    file = source / group.source.removeprefix(PREFIX) if source.is_dir() else source
    with engine() as connection, reading(file):
        table = raw_rows(connection, file, contract, form).table
        chosen = table.filter(table["row_"].isin(list(group.first))).order_by("row_")
        rows = connection.to_pyarrow(chosen.select("row_", *names)).to_pylist()
    return tuple(names), [tuple(row.values()) for row in rows]
