"""What every row of a payments table must keep: the contract's rules, each told once, as expressions. Runs no query.

Both doors to a bank's payments check with these: `features.ingestion.normalise` sets a row that breaks one aside,
`features.engineering.validation` refuses the table. The words are the same, and hold no value of the data.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from features.contract.schema import ColumnSpec, DataContract

if TYPE_CHECKING:
    import ibis.expr.types as ir

__all__ = [
    "SHARED_ID",
    "UNREADABLE_NUMBER",
    "UNREADABLE_TIME",
    "Fault",
    "FaultKind",
    "label_rules",
    "other_payment_sql",
    "row_rules",
]

FaultKind = Literal["type", "missing", "code", "range", "label"]
"""What a rule is about: text that can't be read, no value, an unknown code, out of range, a label and its time."""

UNREADABLE_NUMBER = "text that is not a number"
UNREADABLE_TIME = "text that is not a time"
SHARED_ID = "the id of a newer row with another account, time and amount"


def other_payment_sql(newest: str) -> str:
    """SQL that is true of a row that is no version of the payment whose id it has.

    Args:
        newest: a struct of ``account_id``, ``event_time`` and ``amount`` of the newest row of that id. A version of
            a payment has at least one of the three; a row that differs in all is another payment.
    """
    return " AND ".join(f"{name} IS DISTINCT FROM {newest}.{name}" for name in ("account_id", "event_time", "amount"))


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that may be wrong with a row: ``broken`` is true (not null) for the rows in which it is."""

    column: str
    reason: str
    broken: "ir.BooleanValue"
    kind: FaultKind = "type"


def row_rules(
    values: "Mapping[str, ir.Value]",
    contract: DataContract,
    missing: "Mapping[str, ir.BooleanValue] | None" = None,
) -> Iterator[Fault]:
    """The rules about single columns, in the contract's order of them.

    Args:
        values: canonical values by column; a column that is not there is not judged.
        missing: for some columns when a row has no value, where the canonical value can't tell: text that could not
            be read is null too, and has a fault of its own.
    """
    for column in contract.columns:
        if column.name not in values:
            continue
        name, value = column.name, values[column.name]
        there = value.notnull()
        if not column.nullable:
            absent = value.isnull() | (value == "") if column.type == "string" else value.isnull()
            yield Fault(name, "no value", (missing or {}).get(name, absent), "missing")
        if column.vocabulary is not None:
            codes = contract.codes(name)
            yield Fault(name, "a code that the contract doesn't know", there & value.notin(codes), "code")
        if column.type == "number":
            yield Fault(name, f"a number that is not {_range_words(column)}", there & _outside(column, value), "range")
        if column.earliest is not None:
            reason = f"a time before {column.earliest.isoformat(' ')}"
            yield Fault(name, reason, there & (value < column.earliest), "range")
        if column.latest is not None:
            reason = f"a time after {column.latest.isoformat(' ')}"
            yield Fault(name, reason, there & (value > column.latest), "range")


def label_rules(values: "Mapping[str, ir.Value]") -> Iterator[Fault]:
    """What the label of an outgoing payment must be: only these have one."""
    label, known_at, out = values["is_fraud"], values["label_time"], values["direction"] == "out"
    reason = "no label although label_time says when it became known"
    yield Fault("is_fraud", reason, out & known_at.notnull() & label.isnull(), "label")
    reason = "a time before the payment's own"
    yield Fault("label_time", reason, out & known_at.notnull() & (known_at < values["event_time"]), "label")


def _outside(column: ColumnSpec, value: "ir.Value") -> "ir.BooleanValue":
    """True outside the column's range. NaN and infinity are asked for by name: engines order NaN differently."""
    bad = value.isnan() | value.isinf()
    if column.above is not None:
        bad = bad | (value <= column.above)
    if column.at_most is not None:
        bad = bad | (value > column.at_most)
    if column.allowed is not None:
        bad = bad | value.notin(column.allowed)
    return bad


def _range_words(column: ColumnSpec) -> str:
    words = []
    if column.above is not None:
        words.append(f"above {column.above:g}")
    if column.at_most is not None:
        words.append(f"at most {column.at_most:g}")
    if column.allowed is not None:
        words.append(" or ".join(f"{value:g}" for value in column.allowed))
    return " and ".join(words) or "finite"
