"""One file of a bank's into canonical rows and a quarantine, inside an embedded DuckDB. Keeps nothing on disk.

Every row of the file ends in exactly one place: among the good rows, or in the quarantine with its row number, its
column and a reason. Nothing is guessed, and neither a reason nor an error holds a value. Lines that are no rows (a
CSV line cut short, bytes of another encoding) are counted with the reason ``unreadable line``.
"""

import uuid
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING

from features.contract.mapping import ColumnMapping, LabelMapping, Mapping
from features.contract.row_rules import UNREADABLE_NUMBER, Fault, label_rules, row_rules
from features.contract.schema import ColumnSpec, DataContract
from features.errors import ColumnTypeError, MissingColumnError
from features.identifiers import KINDS, SHARED, IdentifierKey, hash_column
from features.ingestion.origins import cell, coded, cut_ids, origin, two_columns
from features.ingestion.parsing import literal, read_number, read_text, read_time
from features.ingestion.rates import converted
from features.sources.files import csv_header, kind_of, parquet_header, reading
from features.sources.other_tables import jsonl_rows, xlsx_rows
from features.sources.plain_csv import plain_csv
from features.sources.readers import RawTable, message_columns, read_csv, read_messages, read_parquet, read_text_rows

if TYPE_CHECKING:
    import ibis.expr.types as ir
    from ibis.backends.duckdb import Backend

__all__ = ["Normalised", "label_mapping", "normalised", "normalised_labels", "raw_rows"]

TYPES = {"string": "string", "number": "float64", "timestamp": "timestamp(6)"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Normalised:
    """What became of one file. Tables live in the engine until it closes.

    Attributes:
        good: canonical columns in their types, identifiers hashed, ``row_`` (number in the file, from 1) and
            ``version_`` (text, the bank's; empty without one).
        bad: ``row_``, ``column_`` and ``reason_`` of each quarantined row, one reason a row: the first.
        rows: lines of the file that are data, readable or not.
        unreadable: how many of them could not be told into columns, by reason; they have no place in ``bad``.
    """

    good: "ir.Table"
    bad: "ir.Table"
    rows: int
    unreadable: dict[str, int]


def normalised(
    connection: "Backend",
    file: Path,
    contract: DataContract,
    mapping: Mapping,
    key: IdentifierKey | None,
    shared_key: IdentifierKey | None = None,
) -> Normalised:
    """Read one Parquet or CSV file.

    Args:
        key: for the identifiers; None leaves them as they are (for a look at one's own data, never for a store).
        shared_key: for the second hashes, see `features.identifiers.SHARED`.

    Raises:
        DataError: the file as a whole is unusable: damaged, without a column that the mapping names, or without a
            header. The message names it.
    """
    import ibis

    with reading(file):
        judged, faults, found = _judged(connection, file, contract, mapping, label_rules)
        good = judged.filter(judged["fault_"] == -1).drop("fault_")
        if key is not None:
            shared = {
                other: ibis.null("string")
                if shared_key is None
                else hash_column(connection, shared_key, name, good[name])
                for name, other in SHARED.items()
                if name in good.columns
            }
            own = {name: hash_column(connection, key, name, good[name]) for name in KINDS if name in good.columns}
            good = good.mutate(**shared, **own)
        good = _stored(connection, good.order_by(["event_time", "row_"]))
        bad = _stored(connection, _told(judged, faults))
    return Normalised(good=good, bad=bad, rows=found.rows, unreadable=found.unreadable)


def normalised_labels(
    connection: "Backend", file: Path, contract: DataContract, mapping: Mapping, key: IdentifierKey
) -> Normalised:
    """The same for a file of labels: ``payment_id`` (hashed), ``is_fraud``, ``label_time``, ``row_``, ``version_``.

    Raises:
        DataError: as `normalised`.
    """
    columns = (
        contract.column("payment_id"),
        # A row that says nothing about its payment is no label.
        contract.column("is_fraud").model_copy(update={"nullable": False}),
        contract.column("label_time"),
    )
    only = contract.model_copy(update={"columns": columns})
    with reading(file):
        judged, faults, found = _judged(connection, file, only, label_mapping(mapping), lambda values: ())
        good = judged.filter(judged["fault_"] == -1).drop("fault_")
        good = good.mutate(payment_id=hash_column(connection, key, "payment_id", good["payment_id"]))
        good = _stored(connection, good.order_by("row_"))
        bad = _stored(connection, _told(judged, faults))
    return Normalised(good=good, bad=bad, rows=found.rows, unreadable=found.unreadable)


def label_mapping(mapping: Mapping) -> Mapping:
    """The section on labels as a mapping of its own."""
    labels = mapping.labels
    own = {name: getattr(labels, name) for name in LabelMapping.model_fields}
    return Mapping(contract=mapping.contract, nulls=mapping.nulls, **own)


def _judged(
    connection: "Backend",
    file: Path,
    contract: DataContract,
    mapping: Mapping,
    more_rules: Callable[[dict[str, "ir.Value"]], Iterable[Fault]],
) -> tuple["ir.Table", list[Fault], RawTable]:
    """The file's rows as canonical values, each with the number of its first fault in ``fault_``, or -1."""
    found = raw_rows(connection, file, contract, mapping)
    raw = found.table
    try:
        values, faults = _mapped(connection, raw, contract, mapping)
    except ColumnTypeError as error:
        raise ColumnTypeError(f"{file}: {error}.", column=error.column) from error
    faults = [*faults, *row_rules(values, contract), *more_rules(values)]
    reason = reduce(
        lambda rest, each: each[1].broken.fill_null(False).ifelse(each[0], rest),
        reversed(list(enumerate(faults))),
        literal(-1, "int64"),
    )
    judged = _stored(connection, raw.select(row_=raw["row_"], **values, fault_=reason, version_=_version(raw, mapping)))
    return judged, faults, found


def _told(judged: "ir.Table", faults: Sequence[Fault]) -> "ir.Table":
    """The bad rows: number, column and reason."""
    pairs = list(enumerate(faults))
    bad = judged.filter(judged["fault_"] >= 0)
    return bad.select(
        row_=bad["row_"],
        column_=bad["fault_"].cases(*[(number, fault.column) for number, fault in pairs]),
        reason_=bad["fault_"].cases(*[(number, fault.reason) for number, fault in pairs]),
    )


def raw_rows(connection: "Backend", file: Path, contract: DataContract, mapping: Mapping) -> RawTable:
    """The columns that the mapping reads."""
    columns = mapping.source_columns
    needed = _needed(contract, mapping)
    kind = kind_of(file)
    if kind == "parquet":
        _check_columns(file, [name for name, _ in parquet_header(file)], needed)
        return read_parquet(connection, file, columns)
    if (known := message_columns(file)) is not None:
        _check_columns(file, known, needed)
        return read_messages(connection, file, columns, mapping.own_agents)
    if kind in ("jsonl", "xlsx"):
        rows = jsonl_rows(file, columns) if kind == "jsonl" else xlsx_rows(file, columns, mapping.csv.skip)
        if rows.good:
            _check_columns(file, rows.names, needed)
        return read_text_rows(connection, rows)
    form = mapping.csv
    if ".tsv" in file.suffixes and form.delimiter == ",":
        form = form.model_copy(update={"delimiter": "\t"})
    with plain_csv(file, form, needed) as (plain, form, _):
        header = [name for name, _ in csv_header(plain, form.delimiter, form.quote, form.encoding, file)]
        _check_columns(file, header, needed)
        return read_csv(connection, plain, columns, form, file)


def _needed(contract: DataContract, mapping: Mapping) -> set[str]:
    """The bank's columns that a file must have."""
    optional = {column.name for column in contract.columns if not column.required}
    may_miss = {each for name in optional & mapping.columns.keys() for each in mapping.columns[name].columns}
    return set(mapping.source_columns) - may_miss


def _check_columns(file: Path, header: Iterable[str], needed: Collection[str]) -> None:
    names = list(header)
    missing = sorted(set(needed) - set(names))
    if not missing:
        return
    hints = []
    for name in missing:
        several = [each for each in names if each.partition("#")[0] == name]
        near = [each for each in names if each.casefold().strip() == name.casefold().strip()]
        if several:
            hints.append(f"{' and '.join(several)} have that name: write which")
        elif near:
            hints.append(f"did you mean {near[0]}?")
    if len(names) == 1 and not hints:
        parted = [mark for mark in (";", "\t", "|", ",") if mark in names[0]]
        if parted:
            shown = "tab" if parted[0] == "\t" else parted[0]
            hints.append(f"its header is one text with {shown} in it: write csv: {{delimiter: '{shown}'}}")
    told = f" ({'; '.join(hints)})" if hints else ""
    raise MissingColumnError(f"{file} has no column {', '.join(missing)}{told}.", column=missing[0])


def _mapped(
    connection: "Backend", raw: "ir.Table", contract: DataContract, mapping: Mapping
) -> "tuple[dict[str, ir.Value], list[Fault]]":
    """Each canonical column as an expression on the raw table, and what may be wrong in reading it."""
    import ibis

    values: dict[str, ir.Value] = {}
    faults: list[Fault] = []
    for column in contract.columns:
        entry = mapping.columns.get(column.name)
        if entry is None or entry.absent or any(name not in raw.columns for name in entry.columns):
            values[column.name] = ibis.null(TYPES[column.type])
            continue
        found, problems = _read(raw, column, entry, (*mapping.nulls, *entry.nulls))
        values[column.name] = found
        faults += problems
    if mapping.currency is not None:
        values["amount"], problems = converted(connection, raw, values, contract, mapping.currency)
        faults += problems
    return values, faults


def _read(
    raw: "ir.Table", column: ColumnSpec, entry: ColumnMapping, nulls: Sequence[str] = ()
) -> "tuple[ir.Value, list[Fault]]":
    import ibis

    name, target = column.name, TYPES[column.type]
    if entry.constant is not None:
        return ibis.literal(entry.constant).cast(target), []
    if entry.debit is not None:
        return two_columns(raw, name, entry, nulls)
    if entry.sign_of is not None:
        number, unread = read_number(cell(raw, entry.sign_of, nulls), name, entry)
        back = "in" if entry.negative == "out" else "out"
        return (number < 0).ifelse(entry.negative, back), [Fault(name, UNREADABLE_NUMBER, unread)]
    value = origin(raw, entry, nulls)
    faults = cut_ids(value, name)
    value, problems = coded(value, name, entry)
    faults += problems
    if column.type == "number":
        value, unread = read_number(value, name, entry)
        faults.append(Fault(name, UNREADABLE_NUMBER, unread))
        value = {"keep": value, "absolute": value.abs(), "negate": -value}[entry.sign]
        if column.nullable:
            value = value.isnan().ifelse(ibis.null(target), value)
    elif column.type == "timestamp":
        value, problems = read_time(value, name, entry)
        faults += problems
    else:
        value, problems = read_text(value, name)
        faults += problems
    return value, faults


def _version(raw: "ir.Table", mapping: Mapping) -> "ir.Value":
    if mapping.version_column is None:
        return literal("", "string")
    value = raw[mapping.version_column]
    if value.type().is_numeric():
        # Text of numbers in the order of the numbers: the width is fixed.
        return value.cast("int64").cast("string").lpad(20, "0")
    return value.cast("string").fill_null("")


def _stored(connection: "Backend", table: "ir.Table") -> "ir.Table":
    import ibis

    name = f"judged_{uuid.uuid4().hex}"
    connection.raw_sql(f"CREATE TEMP TABLE {name} AS {ibis.to_sql(table, dialect='duckdb')}")
    return connection.table(name)
