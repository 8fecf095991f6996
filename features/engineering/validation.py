"""Whether a bank's payments keep the contract, and whether the features made from them do. Mends nothing.

What goes in is checked in two steps. Pandera checks the shape: that each column is there and of its type. Then the
rules about rows are counted in one Ibis query per part of the source; Pandera on Ibis would take a scan for each rule
and carry bad values in its errors. Only when a rule is broken are files read again one by one, to name the first bad
row. What comes out is checked by Pandera on the pandas frame.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from features.contract.row_rules import (
    UNREADABLE_NUMBER,
    UNREADABLE_TIME,
    Fault,
    FaultKind,
    label_rules,
    row_rules,
)
from features.contract.schema import ColumnSpec, DataContract
from features.errors import (
    ColumnTypeError,
    DuplicateRowError,
    EmptyTableError,
    FeatureTableError,
    LabelError,
    MissingColumnError,
    MissingValueError,
    RangeError,
    SchemaError,
    UnknownCodeError,
)
from features.sources.files import Part, Source, discard

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pandas as pd
    from ibis.backends.duckdb import Backend

__all__ = ["check_features", "checked_events", "checked_rows"]

_Key = tuple[str, str, type[SchemaError]]

_ENGINE_TYPES = {"string": "string", "number": "float64", "timestamp": "timestamp(6)"}


_ERRORS: dict[FaultKind, type[SchemaError]] = {
    "type": ColumnTypeError,
    "missing": MissingValueError,
    "code": UnknownCodeError,
    "range": RangeError,
    "label": LabelError,
}


def _key(rule: Fault) -> "_Key":
    """The same for the same rule on another part."""
    return rule.column, rule.reason, _ERRORS[rule.kind]


def checked_events(connection: "Backend", source: Source, contract: DataContract) -> "ir.Table":
    """The payments of a source, checked, as a table in the engine: the contract's columns in their types.

    Strings, float64 numbers (null for a missing label) and UTC timestamps in microseconds. Columns that the contract
    doesn't name are never read, columns that it lets be absent are null.

    Raises:
        SchemaError: the subclass says what is wrong; the message names the file, the column, how many rows are bad
            and the first bad row's number. Mend the table.
    """
    for part in source.parts:
        _check_shape(connection, source, part, contract)
    names = [column.name for column in contract.columns]
    loaded = [(part, source.load(connection, part, names)) for part in source.parts]
    broken = _broken(connection, source, contract, loaded)
    if broken:
        raise _located(connection, source, contract, broken)
    tables = [_typed(raw, source, part, contract) for part, raw in loaded]
    events = tables[0] if len(tables) == 1 else tables[0].union(*tables[1:], distinct=False)
    events = connection.create_table("events", events, temp=True)
    for _, raw in loaded:
        discard(connection, raw)
    _check_counts(connection, source, events)
    _check_duplicates(connection, source, events)
    return events


def checked_rows(connection: Any, rows: "ir.Table", label: str, contract: DataContract) -> "ir.Table":
    """The same for a table that stays in an engine of its own: asked for counts, never copied.

    Args:
        connection: the Ibis backend that ``rows`` are in.
        label: what messages call the table.

    Raises:
        SchemaError: as `checked_events`, without row numbers: rows of a table have none.
    """
    part = Part((Path(label),), tuple(rows.columns))
    source = Source(Path(label), "parquet", (part,))
    _check_columns(rows, source, part, contract)
    broken = _broken(connection, source, contract, [(part, rows)])
    if broken:
        key, count = next(iter(broken.items()))
        column, problem, error = key
        sentence = f"{label}: column {column} has {_rows(count)} with {problem}."
        raise error(sentence + _others(broken, key), column=column, bad_rows=count)
    events = _typed(rows, source, part, contract)
    _check_counts(connection, source, events)
    extra = _repeats(connection, events)
    if extra:
        problem = "an id that another row with the same direction has already"
        sentence = f"{label}: column payment_id has {_rows(extra)} with {problem}."
        raise DuplicateRowError(sentence, column="payment_id", bad_rows=extra)
    return events


def check_features(frame: "pd.DataFrame", contract: DataContract) -> "pd.DataFrame":
    """The feature table itself, once Pandera has found its columns, types and values as they must be.

    Raises:
        FeatureTableError: they are not. The bank can't mend that: report it.
    """
    import numpy as np
    import pandera.errors
    import pandera.pandas as pa

    finite = pa.Check(lambda values: not bool(np.isinf(values.to_numpy()).any()), name="finite")
    columns = {
        "row_id": pa.Column("str", unique=True),
        "event_time": pa.Column("datetime64[us]", pa.Check(lambda times: times.is_monotonic_increasing)),
        "is_fraud": pa.Column("float64", pa.Check.isin([0.0, 1.0]), nullable=True),
        "label_time": pa.Column("datetime64[us]", nullable=True),
    }
    columns |= {name: pa.Column("float32", finite, nullable=True) for name in contract.local_names}
    try:
        return pa.DataFrameSchema(columns, strict=True, ordered=True).validate(frame, lazy=True)
    except pandera.errors.SchemaErrors as errors:
        faults = sorted({f"{getattr(fault.schema, 'name', None)} ({fault.check})" for fault in errors.schema_errors})
        raise FeatureTableError(f"The feature table breaks its schema in: {', '.join(faults)}.") from None


def _check_shape(connection: "Backend", source: Source, part: Part, contract: DataContract) -> None:
    """Columns and types of one part: no row is read."""
    _check_columns(source.read(connection, part), source, part, contract)


def _check_columns(raw: "ir.Table", source: Source, part: Part, contract: DataContract) -> None:
    """Columns and types by Pandera, on an empty slice."""
    import ibis.expr.datatypes as dt
    import pandera.errors
    import pandera.ibis as pa

    file = part.files[0]
    missing = [column.name for column in contract.columns if column.required and column.name not in raw.columns]
    if missing:
        twice = [name for name in missing if f"{name}#1" in raw.columns]
        more = f": it has two columns of the same name {', '.join(twice)}; keep one" if twice else ""
        raise MissingColumnError(f"{file} has no column {', '.join(missing)}{more}.", column=missing[0])
    types = {"string": dt.string, "number": dt.float64, "timestamp": dt.Timestamp(scale=6)}
    schema = pa.DataFrameSchema(
        {
            column.name: pa.Column(types[column.type], nullable=True, required=column.required)
            for column in contract.columns
        }
    )
    try:
        schema.validate(_typed(raw, source, part, contract, fill=False).limit(0), lazy=True)
    except pandera.errors.SchemaErrors as errors:
        wrong = [fault.schema.name for fault in errors.schema_errors]
        sentences = [
            f"{file}: column {name} must be of type {contract.column(name).type}, and is {raw[name].type()}."
            for name in wrong
        ]
        raise ColumnTypeError(" ".join(sentences), column=wrong[0]) from None


def _typed(raw: "ir.Table", source: Source, part: Part, contract: DataContract, *, fill: bool = True) -> "ir.Table":
    """The contract's columns in their types; a column of another kind of type stays as it is, for the shape check."""
    import ibis

    columns: dict[str, ir.Value] = {}
    for column in contract.columns:
        if column.name in raw.columns:
            columns[column.name] = _cast(raw, source, part, column)
        elif fill and not column.required:
            columns[column.name] = ibis.null(_ENGINE_TYPES[column.type])
    return raw.select(**columns)


def _cast(raw: "ir.Table", source: Source, part: Part, column: ColumnSpec) -> "ir.Value":
    import ibis

    value = raw[column.name]
    target = _ENGINE_TYPES[column.type]
    if column.name in part.null_columns:
        # Nothing but nulls, which the engine reads as some type of its own: by way of text they are any type.
        value = value.cast("string").try_cast(target)
    elif source.kind == "csv" and column.type == "number":
        value = value.try_cast(target)
    elif source.kind == "csv" and column.type == "timestamp":
        # By way of a zoned type, so that an offset in the text counts and a time without one is UTC.
        value = value.try_cast("timestamp('UTC', 6)").cast(target)
    elif _same_family(value.type(), column.type):
        value = value.cast(target)
    if column.type == "number" and column.nullable and value.type().is_floating():
        value = value.isnan().ifelse(ibis.null(target), value)
    return value


def _same_family(found: Any, wanted: str) -> bool:
    if wanted == "number":
        return bool(found.is_numeric() or found.is_boolean())
    if wanted == "timestamp":
        return bool(found.is_timestamp())
    return bool(found.is_string())


def _rules(raw: "ir.Table", source: Source, part: Part, contract: DataContract) -> Iterator[Fault]:
    """The rules about single rows, as expressions on the raw table: what could not be read, then the contract's."""
    values = {
        column.name: _cast(raw, source, part, column) for column in contract.columns if column.name in raw.columns
    }
    missing = {}
    for column in contract.columns if source.kind == "csv" else ():
        name = column.name
        if name not in values or column.type == "string":
            continue
        missing[name] = raw[name].isnull()
        # NaN is a float that a nullable column turns into null: it was read, so it is not unreadable.
        number = column.type == "number"
        unread = raw[name].try_cast(_ENGINE_TYPES["number"]).isnull() if number else values[name].isnull()
        yield Fault(name, UNREADABLE_NUMBER if number else UNREADABLE_TIME, raw[name].notnull() & unread)
    yield from row_rules(values, contract, missing)
    yield from label_rules(values)


def _broken(
    connection: "Backend", source: Source, contract: DataContract, loaded: list[tuple[Part, "ir.Table"]]
) -> dict[_Key, int]:
    """How many rows break each rule, over all parts; rules that no row breaks are left out."""
    counts: dict[_Key, int] = {}
    for part, raw in loaded:
        rules = list(_rules(raw, source, part, contract))
        sums = raw.aggregate([rule.broken.sum().coalesce(0).name(f"r{i}") for i, rule in enumerate(rules)])
        row = connection.to_pyarrow(sums).to_pylist()[0]
        for i, rule in enumerate(rules):
            counts[_key(rule)] = counts.get(_key(rule), 0) + int(row[f"r{i}"])
    return {key: count for key, count in counts.items() if count}


def _located(connection: "Backend", source: Source, contract: DataContract, broken: dict[_Key, int]) -> SchemaError:
    """The error of the first broken rule, with its first bad row; the other broken rules are told by their counts."""
    key, count = next(iter(broken.items()))
    column, problem, error = key
    for file in source.files:
        part = source.only(file)
        raw = source.load(connection, part, [column.name for column in contract.columns])
        for rule in _rules(raw, source, part, contract):
            if _key(rule) != key:
                continue
            found = raw.filter(rule.broken).aggregate(first=lambda bad: bad["row_number_"].min())
            first = connection.to_pyarrow(found).to_pylist()[0]["first"]
            if first is not None:
                return error(
                    _sentence(source, column, count, problem, file, int(first) + 1) + _others(broken, key),
                    column=column,
                    bad_rows=count,
                    first_bad_row=int(first) + 1,
                )
        discard(connection, raw)
    return error(f"{source.path}: column {column} has {_rows(count)} with {problem}.", column=column, bad_rows=count)


def _sentence(source: Source, column: str, count: int, problem: str, file: Path, row: int) -> str:
    place = "the first is" if count > 1 else "it is"
    where = f"row {row}" if file == source.path else f"row {row} of {file.relative_to(source.path)}"
    return f"{source.path}: column {column} has {_rows(count)} with {problem}; {place} {where}."


def _others(broken: dict[_Key, int], told: _Key) -> str:
    sentences = [
        f" Column {column} has {_rows(count)} with {problem}."
        for (column, problem, error), count in broken.items()
        if (column, problem, error) != told
    ]
    return "".join(sentences[:10])


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"


def _check_counts(connection: "Backend", source: Source, events: "ir.Table") -> None:
    row = connection.to_pyarrow(
        events.aggregate(rows=events.count(), out=(events["direction"] == "out").sum().coalesce(0))
    ).to_pylist()[0]
    if row["rows"] == 0:
        raise EmptyTableError(f"{source.path} has no row.")
    if row["out"] == 0:
        raise EmptyTableError(
            f"{source.path}: column direction has no out row, so there is no payment to make features of.",
            column="direction",
        )


_UNIQUE = ("payment_id", "direction")


def _repeats(connection: Any, events: "ir.Table") -> int:
    """How many rows have the payment and direction of another."""
    counted = events.group_by(_UNIQUE).aggregate(times=events.count())
    total = counted.aggregate(extra=(counted["times"] - 1).sum())
    return int(connection.to_pyarrow(total).to_pylist()[0]["extra"])


def _check_duplicates(connection: "Backend", source: Source, events: "ir.Table") -> None:
    import ibis

    keys = list(_UNIQUE)
    extra = _repeats(connection, events)
    if not extra:
        return
    # Files by name, rows by place: the first of equal payments is the good one, and each later one is bad.
    numbered = []
    for place, file in enumerate(source.files):
        raw = source.load(connection, source.only(file), keys)
        numbered.append(raw.select(*keys, place=ibis.literal(place), row=raw["row_number_"]))
    table = numbered[0] if len(numbered) == 1 else numbered[0].union(*numbered[1:], distinct=False)
    order = ibis.window(group_by=keys, order_by=["place", "row"])
    again = table.mutate(nth=ibis.row_number().over(order))
    first = again.filter(again["nth"] > 0).order_by(["place", "row"]).limit(1)
    row = connection.to_pyarrow(first).to_pylist()[0]
    problem = "an id that another row with the same direction has already"
    file, number = source.files[row["place"]], int(row["row"]) + 1
    raise DuplicateRowError(
        _sentence(source, "payment_id", extra, problem, file, number),
        column="payment_id",
        bad_rows=extra,
        first_bad_row=number,
    )
