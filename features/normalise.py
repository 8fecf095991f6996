"""One file of a bank's into canonical rows and a quarantine, inside an embedded DuckDB. Keeps nothing on disk.

Every row of the file ends in exactly one place: among the good rows, or in the quarantine with its row number, its
column and a reason. Nothing is guessed, and neither a reason nor an error holds a value. Lines that are no rows (a
CSV line cut short, bytes of another encoding) are counted with the reason ``unreadable line``.
"""

import csv
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

from features.contract import ColumnSpec, DataContract
from features.errors import DataError, MissingColumnError, SourceError
from features.identifiers import KINDS, SHARED, IdentifierKey, hash_column
from features.mapping import ColumnMapping, Mapping
from features.sources import csv_header, parquet_header, reading

if TYPE_CHECKING:
    import ibis.expr.types as ir
    from ibis.backends.duckdb import Backend

__all__ = ["Normalised", "normalised"]

MAX_LINE_BYTES = 2_000_000
"""A CSV line above this is skipped and counted: a payment has a few hundred bytes."""

TYPES = {"string": "string", "number": "float64", "timestamp": "timestamp(6)"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Normalised:
    """What became of one file. Tables live in the engine until it closes.

    Attributes:
        good: canonical columns in their types, identifiers hashed, ``row_`` (number in the file, from 1) and
            ``version_`` (text, the bank's; empty without one).
        bad: ``row_``, ``column_`` and ``reason_`` of each quarantined row, one reason a row: the first.
        rows: lines of the file that are data, readable or not.
        unreadable: how many of them are no rows; they have no place in ``bad``.
    """

    good: "ir.Table"
    bad: "ir.Table"
    rows: int
    unreadable: int


@dataclass(frozen=True, slots=True)
class _Fault:
    column: str
    reason: str
    broken: "ir.BooleanValue"


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
        raw, rows, unreadable = _raw(connection, file, mapping)
        values, faults = _mapped(connection, raw, contract, mapping)
        faults = [*faults, *_rules(values, contract)]
        reason = reduce(
            lambda rest, each: each[1].broken.fill_null(False).ifelse(each[0], rest),
            reversed(list(enumerate(faults))),
            _literal(-1, "int64"),
        )
        judged = _stored(
            connection, raw.select(row_=raw["row_"], **values, fault_=reason, version_=_version(raw, mapping))
        )
        good = judged.filter(judged["fault_"] == -1).drop("fault_")
        if key is not None:
            shared = {
                other: ibis.null("string")
                if shared_key is None
                else hash_column(connection, shared_key, name, good[name])
                for name, other in SHARED.items()
            }
            own = {name: hash_column(connection, key, name, good[name]) for name in KINDS}
            good = good.mutate(**shared, **own)
        good = _stored(connection, good.order_by(["event_time", "row_"]))
        pairs = list(enumerate(faults))
        bad = judged.filter(judged["fault_"] >= 0)
        bad = bad.select(
            row_=bad["row_"],
            column_=bad["fault_"].cases(*[(number, fault.column) for number, fault in pairs]),
            reason_=bad["fault_"].cases(*[(number, fault.reason) for number, fault in pairs]),
        )
        bad = _stored(connection, bad)
    return Normalised(good=good, bad=bad, rows=rows, unreadable=unreadable)


def _raw(connection: "Backend", file: Path, mapping: Mapping) -> "tuple[ir.Table, int, int]":
    """The columns that the mapping reads, ``row_`` from 1, number of data lines, and of unreadable ones."""
    name = f"raw_{uuid.uuid4().hex}"
    columns = mapping.source_columns
    if file.suffix.lower() == ".parquet":
        header = dict(parquet_header(file))
        _check_columns(file, tuple(header), columns, mapping)
        present = [column for column in columns if column in header]
        chosen = ", ".join(f'"{_quoted(column)}"' for column in present)
        connection.con.execute(
            f"CREATE TEMP TABLE {name} AS SELECT {chosen}, row_number() OVER () AS row_ FROM read_parquet(?)",
            [str(file)],
        )
        unreadable = 0
    else:
        encoding = mapping.csv.encoding
        header = dict(csv_header(file, mapping.csv.delimiter, mapping.csv.quote, encoding))
        _check_columns(file, tuple(header), columns, mapping)
        present = [column for column in columns if column in header]
        unreadable = _load_csv(connection, file, mapping, tuple(header), present, name)
    table = connection.table(name)
    count = int(connection.con.execute(f"SELECT count(*) FROM {name}").fetchone()[0])
    return table, count + unreadable, unreadable


def _load_csv(
    connection: "Backend", file: Path, mapping: Mapping, header: tuple[str, ...], present: list[str], name: str
) -> int:
    chosen = ", ".join(f'"{_quoted(column)}"' for column in present)
    types = ", ".join(f"'{column.replace(chr(39), chr(39) * 2)}': 'VARCHAR'" for column in header)
    rejects = f"rejects_{uuid.uuid4().hex}"
    connection.con.execute(
        f"CREATE TEMP TABLE {name} AS SELECT {chosen}, row_number() OVER () AS row_ FROM read_csv(?, "
        f"auto_detect = false, header = true, columns = {{{types}}}, delim = ?, quote = ?, escape = ?, "
        f"nullstr = '', encoding = ?, max_line_size = {MAX_LINE_BYTES}, strict_mode = true, "
        f"store_rejects = true, rejects_table = '{rejects}', rejects_scan = '{rejects}_scan', rejects_limit = 0)",
        [str(file), mapping.csv.delimiter, mapping.csv.quote, mapping.csv.quote, mapping.csv.encoding],
    )
    lines = connection.con.execute(f"SELECT count(DISTINCT line) FROM {rejects}").fetchone()[0]
    for table in (rejects, f"{rejects}_scan"):
        connection.con.execute(f"DROP TABLE {table}")
    return int(lines)


def _check_columns(file: Path, header: tuple[str, ...], columns: tuple[str, ...], mapping: Mapping) -> None:
    needed = set(columns)
    for name, column in mapping.columns.items():
        if name in _ABSENT_ALLOWED:
            needed -= set(column.columns)
    missing = [column for column in columns if column in needed and column not in header]
    if missing:
        raise MissingColumnError(f"{file} has no column {', '.join(missing)}.", column=missing[0])


_ABSENT_ALLOWED = frozenset({"counterparty_bank"})
"""Canonical columns that may be missing from a file, see the contract's ``required``."""


def _mapped(
    connection: "Backend", raw: "ir.Table", contract: DataContract, mapping: Mapping
) -> "tuple[dict[str, ir.Value], list[_Fault]]":
    """Each canonical column as an expression on the raw table, and what may be wrong in reading it."""
    import ibis

    values: dict[str, ir.Value] = {}
    faults: list[_Fault] = []
    for column in contract.columns:
        entry = mapping.columns.get(column.name)
        if entry is None or any(name not in raw.columns for name in entry.columns):
            values[column.name] = ibis.null(TYPES[column.type])
            continue
        found, problems = _read(raw, column, entry)
        values[column.name] = found
        faults += problems
    if mapping.currency is not None:
        values["amount"], problems = _converted(connection, raw, values, contract, mapping)
        faults += problems
    return values, faults


def _read(raw: "ir.Table", column: ColumnSpec, entry: ColumnMapping) -> "tuple[ir.Value, list[_Fault]]":
    import ibis

    name, target = column.name, TYPES[column.type]
    if entry.constant is not None:
        return ibis.literal(entry.constant).cast(target), []
    if entry.sign_of is not None:
        number, unread = _number(raw[entry.sign_of], entry)
        back = "in" if entry.negative == "out" else "out"
        return (number < 0).ifelse(entry.negative, back), [_Fault(name, "text that is not a number", unread)]
    if len(entry.columns) > 1:
        parts = [raw[each].cast("string") for each in entry.columns]
        value: ir.Value = reduce(lambda left, right: left + entry.joiner + right, parts)
    else:
        value = raw[entry.columns[0]]
    faults = []
    if entry.codes is not None:
        text = value.cast("string").strip()
        known = list(entry.codes)
        if entry.other is None:
            unknown = text.notnull() & text.notin(known)
            faults.append(_Fault(name, "a code that the mapping doesn't know", unknown))
        result = [(code, None if to is None or to == "" else str(to)) for code, to in entry.codes.items()]
        cases = [(code, ibis.null("string") if to is None else ibis.literal(to)) for code, to in result]
        value = text.cases(*cases, else_=ibis.literal(entry.other) if entry.other else ibis.null("string"))
    if column.type == "number":
        value, unread = _number(value, entry)
        faults.append(_Fault(name, "text that is not a number", unread))
        value = {"keep": value, "absolute": value.abs(), "negate": -value}[entry.sign]
        if column.nullable:
            value = value.isnan().ifelse(ibis.null(target), value)
    elif column.type == "timestamp":
        value, problems = _time(value, name, entry)
        faults += problems
    else:
        value = value.cast("string")
        faults.append(_Fault(name, "a control character", value.re_search(r"[\x00-\x08\x0a-\x1f\x7f]")))
        value = value.strip()
        value = (value == "").ifelse(ibis.null("string"), value)
    return value, faults


def _number(value: "ir.Value", entry: ColumnMapping) -> "tuple[ir.Value, ir.BooleanValue]":
    """The value as float64, and whether it is text that is no number."""
    if not value.type().is_string():
        if not (value.type().is_numeric() or value.type().is_boolean()):
            raise DataError(f"A column of type {value.type()} can't be read as a number.")
        number = value.cast("float64") * entry.scale
        return number, _literal(False, "boolean")
    text = value.strip()
    digits = text.replace(entry.thousands, "") if entry.thousands else text
    pattern = r"^[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?$"
    if entry.decimal == ",":
        digits = digits.replace(",", "\x00").replace(".", "\x01").replace("\x00", ".")
    import ibis

    good = digits.re_search(pattern)
    number = good.ifelse(digits, ibis.null("string")).try_cast("float64") * entry.scale
    return number, text.notnull() & (text != "") & number.isnull()


def _time(value: "ir.Value", name: str, entry: ColumnMapping) -> "tuple[ir.Value, list[_Fault]]":
    """The value as UTC without a zone, and what may be wrong."""
    import ibis

    unreadable = "text that is not a time"
    if entry.unit is not None:
        factor = {"s": 1_000_000, "ms": 1_000, "us": 1}[entry.unit]
        number = value.try_cast("float64")
        moment = _make_timestamp((number * factor).round().try_cast("int64"))
        return moment, [_Fault(name, unreadable, value.notnull() & moment.isnull())]
    if value.type().is_timestamp():
        if value.type().timezone is not None:
            return value.cast("timestamp('UTC', 6)").cast("timestamp(6)"), []
        return _zoned(value.cast("timestamp(6)"), name, entry)
    if value.type().is_date():
        return _zoned(value.cast("timestamp(6)"), name, entry)
    if not value.type().is_string():
        raise DataError(f"A column of type {value.type()} can't be read as a time; give its unit.")
    text = value.strip()
    present = text.notnull() & (text != "")
    if entry.format is not None:
        local = _try_strptime(text, entry.format)
        moment, faults = _zoned(local, name, entry)
        return moment, [_Fault(name, unreadable, present & local.isnull()), *faults]
    iso = text.re_search(r"^\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d(\.\d+)?)?)?( ?(Z|[+-]\d\d(:?\d\d)?))?$")
    offset = text.re_search(r"\d\d:\d\d.*(Z|[+-]\d\d(:?\d\d)?)$")
    kept = iso.ifelse(text, ibis.null("string"))
    absolute = kept.try_cast("timestamp('UTC', 6)").cast("timestamp(6)")
    local = kept.try_cast("timestamp(6)")
    moment, faults = _zoned(local, name, entry)
    only_local = [_Fault(each.column, each.reason, each.broken & ~offset) for each in faults]
    return offset.ifelse(absolute, moment), [
        _Fault(name, unreadable, present & offset.ifelse(absolute, local).isnull()),
        *only_local,
    ]


def _zoned(local: "ir.Value", name: str, entry: ColumnMapping) -> "tuple[ir.Value, list[_Fault]]":
    """Local time to UTC; the hour that a clock change skips or repeats is a fault unless the mapping settles it."""
    import ibis

    if entry.zone is None or entry.zone == "UTC":
        return local, []
    zone = ibis.literal(entry.zone)
    moment = _at_zone(zone, local)
    back = _in_zone(zone, moment)
    missing = _Fault(name, "a local time that the clock change skips", back != local)
    earlier, later = moment, moment
    for minutes in (30, 60):
        shift = ibis.interval(minutes=minutes)
        before, after = moment - shift, moment + shift
        earlier = (_in_zone(zone, before) == local).ifelse(before, earlier)
        later = (_in_zone(zone, after) == local).ifelse(after, later)
    faults = [missing]
    if entry.ambiguous == "quarantine":
        faults.append(_Fault(name, "a local time that the clock change repeats", earlier != later))
    chosen = later if entry.ambiguous == "later" else earlier
    return chosen.cast("timestamp('UTC', 6)").cast("timestamp(6)"), faults


def _converted(
    connection: "Backend", raw: "ir.Table", values: "dict[str, ir.Value]", contract: DataContract, mapping: Mapping
) -> "tuple[ir.Value, list[_Fault]]":
    """The amount in the contract's currency, by the day's rate."""
    import ibis

    assert mapping.currency is not None
    code = raw[mapping.currency.source].cast("string").strip().upper()
    rates = _rates(mapping.currency.rates, mapping.currency.stale_days) if mapping.currency.rates else {}
    foreign = sorted({currency for _, currency in rates})
    day = values["event_time"].strftime("%Y-%m-%d")
    name = f"rates_{uuid.uuid4().hex}"
    connection.con.execute(f"CREATE TEMP TABLE {name} (pair VARCHAR PRIMARY KEY, rate DOUBLE)")
    if rates:
        import pyarrow

        pairs = pyarrow.table({"pair": [f"{d} {c}" for d, c in rates], "rate": list(rates.values())})
        connection.con.register(f"{name}_new", pairs)
        connection.con.execute(f"INSERT INTO {name} SELECT pair, rate FROM {name}_new")
        connection.con.unregister(f"{name}_new")
    own = code == contract.currency
    # A map in one value, looked up by key: the raw table keeps its rows and their order.
    table = connection.table(name)
    lookup = table.aggregate(m=ibis.map(table["pair"].collect(), table["rate"].collect())).as_scalar()
    rate = (
        own.ifelse(1.0, lookup.get(day + " " + code, ibis.null("float64")))
        if rates
        else own.ifelse(1.0, ibis.null("float64"))
    )
    return values["amount"] * rate, [
        _Fault("amount", "no currency", code.isnull() | (code == "")),
        _Fault("amount", "a currency without a rate", code.notnull() & code.notin([contract.currency, *foreign])),
        _Fault("amount", "no rate for the day", code.notnull() & values["event_time"].notnull() & rate.isnull()),
    ]


def _rates(path: Path, stale_days: int) -> dict[tuple[str, str], float]:
    """Rates by (day, currency), days without one filled from at most ``stale_days`` before."""
    import datetime
    import math

    found: dict[str, dict[datetime.date, float]] = {}
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            for number, row in enumerate(csv.DictReader(stream), start=1):
                try:
                    day, rate = datetime.date.fromisoformat(row["day"]), float(row["rate"])
                    currency = row["currency"].upper()
                except (KeyError, TypeError, ValueError):
                    raise SourceError(f"Rates {path}: row {number} is not day, currency, rate.") from None
                if not (math.isfinite(rate) and rate > 0) or day in found.setdefault(currency, {}):
                    raise SourceError(f"Rates {path}: row {number} has no positive rate, or its day is there twice.")
                found[currency][day] = rate
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"Rates {path} can't be read.") from error
    filled = {}
    for currency, days in found.items():
        for day in sorted(days):
            for step in range(stale_days + 1):
                later = day + datetime.timedelta(days=step)
                if step and later in days:
                    break
                filled[later.isoformat(), currency] = days[day]
    return filled


def _rules(values: "dict[str, ir.Value]", contract: DataContract) -> Iterator[_Fault]:
    """The contract's rules about single rows, in its order of columns."""
    for column in contract.columns:
        name, value = column.name, values[column.name]
        there = value.notnull()
        if not column.nullable:
            yield _Fault(name, "no value", value.isnull())
        if column.vocabulary is not None:
            yield _Fault(name, "a code that the contract doesn't know", there & value.notin(contract.codes(name)))
        if column.type == "number":
            bad = value.isnan() | value.isinf()
            if column.above is not None:
                bad = bad | (value <= column.above)
            if column.at_most is not None:
                bad = bad | (value > column.at_most)
            if column.allowed is not None:
                bad = bad | value.notin(column.allowed)
            yield _Fault(name, "a number out of range", there & bad)
        if column.earliest is not None:
            yield _Fault(name, "a time too early", there & (value < column.earliest))
        if column.latest is not None:
            yield _Fault(name, "a time too late", there & (value > column.latest))
    label, known_at, out = values["is_fraud"], values["label_time"], values["direction"] == "out"
    yield _Fault("is_fraud", "a label's time without a label", out & known_at.notnull() & label.isnull())
    yield _Fault(
        "label_time", "a label before its payment", out & known_at.notnull() & (known_at < values["event_time"])
    )


def _version(raw: "ir.Table", mapping: Mapping) -> "ir.Value":
    if mapping.version_column is None:
        return _literal("", "string")
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


def _quoted(name: str) -> str:
    return name.replace('"', '""')


def _literal(value: Any, kind: str) -> "ir.Value":
    import ibis

    return ibis.literal(value, kind)


def _builtin(name: str, inputs: tuple[str, ...], output: str, *values: Any) -> "ir.Value":
    """A function of DuckDB's own that Ibis has no word for."""
    import ibis

    names = [f"a{number}" for number in range(len(inputs))]
    scope: dict[str, Any] = {}
    exec(f"def {name}({', '.join(names)}): ...", scope)  # noqa: S102 names from this module only
    return ibis.udf.scalar.builtin(scope[name], signature=(inputs, output))(*values)


def _try_strptime(text: "ir.Value", form: str) -> "ir.Value":
    return _builtin("try_strptime", ("string", "string"), "timestamp(6)", text, form)


def _make_timestamp(microseconds: "ir.Value") -> "ir.Value":
    return _builtin("make_timestamp", ("int64",), "timestamp(6)", microseconds)


def _at_zone(zone: "ir.Value", local: "ir.Value") -> "ir.Value":
    return _builtin("timezone", ("string", "timestamp(6)"), "timestamp('UTC', 6)", zone, local)


def _in_zone(zone: "ir.Value", moment: "ir.Value") -> "ir.Value":
    return _builtin("timezone", ("string", "timestamp('UTC', 6)"), "timestamp(6)", zone, moment)
