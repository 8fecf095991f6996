"""Text, numbers and times of a bank's into canonical ones, as expressions, with what may be wrong. Runs nothing.

Nothing is guessed: what can't be read for certain is null, and the fault says so.
"""

import re
from datetime import date
from typing import TYPE_CHECKING, Any

from features.contract.mapping import ColumnMapping
from features.contract.row_rules import UNREADABLE_TIME, Fault
from features.errors import ColumnTypeError

if TYPE_CHECKING:
    import ibis.expr.types as ir

__all__ = ["literal", "read_number", "read_text", "read_time"]

_HOUR = 3_600_000_000
"""Microseconds."""

_LAST_MICROSECOND = 253_402_300_800_000_000
"""The year 10000; times as numbers are below it, and above minus it."""


def read_text(value: "ir.Value", name: str) -> "tuple[ir.Value, list[Fault]]":
    """The value as text without space around it, null for empty."""
    import ibis

    if not (value.type().is_string() or value.type().is_integer()):
        raise ColumnTypeError(f"column {name}: a column of type {value.type()} can't be read as text")
    text = value.cast("string")
    fault = Fault(name, "a control character", text.re_search(r"[\x00-\x08\x0a-\x1f\x7f]"))
    text = text.strip()
    return (text == "").ifelse(ibis.null("string"), text), [fault]


def read_number(value: "ir.Value", name: str, entry: ColumnMapping) -> "tuple[ir.Value, ir.BooleanValue]":
    """The value as float64, and whether it is text that is no number."""
    if not value.type().is_string():
        if not (value.type().is_numeric() or value.type().is_boolean()):
            raise ColumnTypeError(f"column {name}: a column of type {value.type()} can't be read as a number")
        number = value.cast("float64") * entry.scale
        return number, literal(False, "boolean")
    import ibis

    text = value.strip()
    # Groups of three and nothing else: 1.23 where the point groups thousands is a mistake, not 123.
    point, group = re.escape(entry.decimal), re.escape(entry.thousands)
    whole = rf"(\d+|\d{{1,3}}({group}\d{{3}})+)" if entry.thousands else r"\d+"
    digits_of = rf"({whole}({point}\d*)?|{point}\d+)"
    if entry.symbols:
        sign = "|".join(re.escape(symbol) for symbol in entry.symbols)
        text = text.re_replace(rf"^([+(-]?)\s*({sign})\s*|\s*({sign})([)-]?)$", r"\1\4")
    good = text.re_search(rf"^[+-]?{digits_of}([eE][+-]?\d{{1,3}})?$")
    # An accountant's brackets and a minus behind mean below zero. Only texts that are no plain number are looked at.
    behind = text.re_search(rf"^(\({digits_of}\)|{digits_of}-)$")
    digits = text.replace(entry.thousands, "") if entry.thousands else text
    digits = digits.replace(",", ".") if entry.decimal == "," else digits
    turned = literal("-", "string") + digits.re_replace(r"[()-]", "")
    plain = good.ifelse(digits, behind.ifelse(turned, ibis.null("string")))
    number = plain.try_cast("float64") * entry.scale
    return number, text.notnull() & (text != "") & number.isnull()


def read_time(value: "ir.Value", name: str, entry: ColumnMapping) -> "tuple[ir.Value, list[Fault]]":
    """The value as UTC without a zone, and what may be wrong."""
    import ibis

    if entry.unit is not None:
        factor = {"s": 1_000_000, "ms": 1_000, "us": 1, "h": _HOUR, "d": 24 * _HOUR, "excel": 24 * _HOUR}[entry.unit]
        start = date(1899, 12, 30) if entry.unit == "excel" else entry.origin
        begin = 0 if start is None else (start - date(1970, 1, 1)).days * 24 * _HOUR
        plain = value.replace(",", ".") if value.type().is_string() and entry.decimal == "," else value
        number = plain.try_cast("float64") * factor + begin
        number = (number.abs() < _LAST_MICROSECOND).ifelse(number, ibis.null("float64"))
        moment = _make_timestamp(number.round().cast("int64"))
        unread = Fault(name, UNREADABLE_TIME, value.notnull() & (value.cast("string") != "") & moment.isnull())
        if start is None:
            return moment, [unread]
        # A day number has no exact seconds: a millisecond is what it tells.
        moment = _make_timestamp(((number / 1_000).round() * 1_000).round().cast("int64"))
        moment, faults = _zoned(moment, name, entry)
        return moment, [unread, *faults]
    if value.type().is_timestamp() or value.type().is_date():
        zoned = value.type().is_timestamp() and value.type().timezone is not None
        inside = value.year().between(1, 9999)
        value = inside.ifelse(value, ibis.null(value.type()))
        problem = Fault(name, "a time out of range", inside.fill_null(True) == False)  # noqa: E712 an expression
        if zoned:
            return value.cast("timestamp('UTC', 6)").cast("timestamp(6)"), [problem]
        moment, faults = _zoned(value.cast("timestamp(6)"), name, entry)
        return moment, [problem, *faults]
    if not value.type().is_string():
        raise ColumnTypeError(f"column {name}: a column of type {value.type()} can't be read as a time; give its unit")
    text = value.strip()
    present = text.notnull() & (text != "")
    if entry.format is not None:
        local = _try_strptime(text, entry.format)
        moment, faults = _zoned(local, name, entry)
        return moment, [Fault(name, UNREADABLE_TIME, present & local.isnull()), *faults]
    iso = text.re_search(r"^\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d(\.\d+)?)?)?( ?(Z|[+-]\d\d(:?\d\d)?))?$")
    offset = text.re_search(r"\d\d:\d\d.*(Z|[+-]\d\d(:?\d\d)?)$")
    kept = iso.ifelse(text, ibis.null("string"))
    absolute = kept.try_cast("timestamp('UTC', 6)").cast("timestamp(6)")
    local = kept.try_cast("timestamp(6)")
    moment, faults = _zoned(local, name, entry)
    only_local = [Fault(each.column, each.reason, each.broken & ~offset) for each in faults]
    return offset.ifelse(absolute, moment), [
        Fault(name, UNREADABLE_TIME, present & offset.ifelse(absolute, local).isnull()),
        *only_local,
    ]


def _zoned(local: "ir.Value", name: str, entry: ColumnMapping) -> "tuple[ir.Value, list[Fault]]":
    """Local time to UTC; the hour that a clock change skips or repeats is a fault unless the mapping settles it."""
    import ibis

    if entry.zone is None or entry.zone == "UTC":
        return local, []
    zone = ibis.literal(entry.zone)
    moment = _at_zone(zone, local)
    back = _in_zone(zone, moment)
    missing = Fault(name, "a local time that the clock change skips", back != local)
    earlier, later = moment, moment
    for minutes in (30, 60):
        shift = ibis.interval(minutes=minutes)
        before, after = moment - shift, moment + shift
        earlier = (_in_zone(zone, before) == local).ifelse(before, earlier)
        later = (_in_zone(zone, after) == local).ifelse(after, later)
    faults = [missing]
    if entry.ambiguous == "quarantine":
        faults.append(Fault(name, "a local time that the clock change repeats", earlier != later))
    chosen = later if entry.ambiguous == "later" else earlier
    return chosen.cast("timestamp('UTC', 6)").cast("timestamp(6)"), faults


def literal(value: Any, kind: str) -> "ir.Value":
    """A constant of a type."""
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
