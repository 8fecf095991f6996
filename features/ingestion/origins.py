"""Where a canonical column comes from in the bank's: one column, several, codes, public standards. Judges no row.

Expressions only. Words for no value are null before anything else is read; a code's place is looked for in the trimmed
text; what is in no list is a fault.
"""

from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING

from features.contract.mapping import ColumnMapping
from features.contract.row_rules import UNREADABLE_NUMBER, Fault
from features.contract.standards import CATEGORY_RANGES, COUNTRY_OF
from features.identifiers import KINDS
from features.ingestion.parsing import literal, read_number

if TYPE_CHECKING:
    import ibis.expr.types as ir

__all__ = ["cell", "coded", "cut_ids", "origin", "two_columns"]

SCIENTIFIC = r"^\s*\d([.,]\d+)?[eE]\+\d{1,3}\s*$"
"""As spreadsheets write long numbers: 9.00720E+15."""


def cell(raw: "ir.Table", name: str, nulls: Sequence[str]) -> "ir.Value":
    """A column of the bank's, its words for no value as null."""
    import ibis

    value = raw[name]
    if nulls and value.type().is_string():
        value = value.strip().isin(nulls).ifelse(ibis.null("string"), value)
    return value


def _filled(value: "ir.Value") -> "ir.Value":
    """Null for a text of nothing but space."""
    import ibis

    return (value.strip() == "").ifelse(ibis.null("string"), value) if value.type().is_string() else value


def two_columns(
    raw: "ir.Table", name: str, entry: ColumnMapping, nulls: Sequence[str]
) -> "tuple[ir.Value, list[Fault]]":
    """Amount or direction of two columns, of which the one that is empty or zero doesn't count."""
    read = [read_number(cell(raw, each, nulls), name, entry) for each in entry.columns]
    debit, credit = (number.abs().nullif(0.0) for number, _ in read)
    faults = [
        Fault(name, UNREADABLE_NUMBER, read[0][1] | read[1][1]),
        Fault(name, "both a debit and a credit", debit.notnull() & credit.notnull()),
    ]
    if name == "amount":
        return debit.coalesce(credit), faults
    return debit.notnull().ifelse("out", credit.notnull().ifelse("in", literal(None, "string"))), faults


def origin(raw: "ir.Table", entry: ColumnMapping, nulls: Sequence[str]) -> "ir.Value":
    """What the bank has for it: a column, several joined, or the first of several that has a value."""
    if len(entry.columns) == 1:
        return cell(raw, entry.columns[0], nulls)
    parts = [_filled(cell(raw, each, nulls)) for each in entry.columns]
    if entry.first_of is not None:
        return reduce(lambda left, right: left.coalesce(right), parts)
    texts = [part.cast("string") for part in parts]
    if entry.missing_part is not None:
        texts = [text.fill_null(entry.missing_part) for text in texts]
    return reduce(lambda left, right: left + entry.joiner + right, texts)


def _code_text(value: "ir.Value") -> "ir.Value":
    """A code as text; in a column of floats, as pandas writes whole numbers with gaps, without a decimal point."""
    if value.type().is_floating():
        whole = value.try_cast("int64")
        return (whole.cast("float64") == value).ifelse(whole.cast("string"), value.cast("string"))
    return value.cast("string").strip()


def cut_ids(value: "ir.Value", name: str) -> list[Fault]:
    """Whether identifiers in text lost their digits in a spreadsheet."""
    if name not in KINDS or not value.type().is_string():
        return []
    cut = value.re_search(SCIENTIFIC)
    return [Fault(name, "an id in scientific notation, whose digits are lost: export it as text", cut)]


def coded(value: "ir.Value", name: str, entry: ColumnMapping) -> "tuple[ir.Value, list[Fault]]":
    """The contract's codes for the bank's, by a standard or the mapping's list; then the default for no value."""
    import ibis

    faults = []
    if entry.standard == "iso3166":
        text = _code_text(value).upper()
        found = text.cases(*COUNTRY_OF.items(), else_=ibis.null("string"))
        faults.append(Fault(name, "no country code of ISO 3166", text.notnull() & (text != "") & found.isnull()))
        value = found
    elif entry.standard == "iso18245":
        text = _code_text(value)
        code = text.re_search(r"^\d{3,4}$").ifelse(text, ibis.null("string")).cast("int64")
        faults.append(Fault(name, "no merchant category code", text.notnull() & (text != "") & code.isnull()))
        ranges = [(code.between(low, high), category) for (low, high), category in CATEGORY_RANGES]
        value = code.isnull().ifelse(ibis.null("string"), ibis.cases(*ranges, else_="other"))
    elif entry.codes is not None:
        text = value.cast("string").strip()
        empty = text.isnull() | (text == "")
        if entry.other is None:
            faults.append(Fault(name, "a code that the mapping doesn't know", ~empty & text.notin(list(entry.codes))))
        result = [(code, None if to is None or to == "" else str(to)) for code, to in entry.codes.items()]
        cases = [(code, ibis.null("string") if to is None else ibis.literal(to)) for code, to in result]
        other = ibis.literal(entry.other) if entry.other else ibis.null("string")
        value = empty.ifelse(ibis.null("string"), text.cases(*cases, else_=other))
    if entry.default is not None:
        value = _filled(value.cast("string")).fill_null(entry.default)
    return value, faults
