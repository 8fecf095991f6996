"""For each reason of the quarantine, what in the mapping would mend it. Reads no data.

A reason says what is wrong with a row, in words that hold no value; the advice names the key of the mapping that reads
such rows, or says that the row itself is to be mended.
"""

import re

from features.contract.mapping import ColumnMapping

__all__ = ["advice"]

_ADVICE: tuple[tuple[str, str], ...] = (
    (
        "no value",
        "the contract allows no gap here: read another column (`from`), or several joined, or leave such rows out",
    ),
    ("text that is not a number", "say how numbers are written: `decimal`, `thousands`"),
    ("text that is not a time", "say how times are written: `format` as strptime has it, or `unit` for numbers"),
    ("a code that the mapping doesn't know", "add the code to `codes`, or say with `other` what all others become"),
    ("a code that the contract doesn't know", "translate with `codes`, from the bank's text to the contract's"),
    ("no country code", "`standard: iso3166` reads codes of countries only: translate names with `codes`"),
    (
        "no merchant category code",
        "`standard: iso18245` reads codes of three or four digits only: translate with `codes`",
    ),
    (
        "the id of a newer row",
        "two payments have one id: read a column that differs for each payment, or several joined; ids that begin anew "
        "each day need the day beside them",
    ),
    ("a control character", "mend the export: an identifier holds a line end or another control character"),
    ("a local time that the clock change skips", "is `zone` right? In that zone there was no such time"),
    ("a local time that the clock change repeats", "say which of the two is meant: `ambiguous: earlier` or `later`"),
    ("a time out of range", "is it a time? Years must be 1 to 9999"),
    ("a time too", "is `format` or `unit` right? The contract's range is in `features contract show`"),
    ("a time before the payment", "are both times in one `zone`? A label can't be known before its payment"),
    ("a time before", "is `format` or `unit` right? The contract's range is in `features contract show`"),
    ("a time after", "is `format` or `unit` right? The contract's range is in `features contract show`"),
    (
        "a number",
        "negative amounts: `sign: absolute`, and `sign_of` for direction; minor units: `scale: 0.01`; zero: leave out",
    ),
    ("no currency", "the column of `currency` is empty in these rows; where it always is, leave `currency` out"),
    (
        "a currency without a rate",
        "give the table of `rates` lines for it: how many of the contract's one of it is worth",
    ),
    ("no rate for the day", "give the table of rates a line for the day, or raise `stale_days`"),
    ("a label's time without a label", "read a label for these rows, or no `label_time`"),
    ("no label although", "read a label for these rows, or no `label_time`"),
    ("a label before its payment", "are both times in one `zone`? A label can't be known before its payment"),
    ("both a debit and a credit", "a row fills both columns: is one of them a balance or a fee?"),
    (
        "an id in scientific notation",
        "a spreadsheet cut its digits off: export the column as text, from the system itself",
    ),
    (
        "an entry that is not booked",
        "nothing: a pending or informational entry of a statement is no payment yet",
    ),
    ("line too long", "a line of more than 2 MB is no payment: mend the export"),
    ("unreadable line", "a line has too few or too many fields, or is in another encoding: see `csv` in the mapping"),
    ("line within a quoted text", "a quotation mark is open, or a text has line ends: see `quote` in `csv`"),
)
"""Beginnings of reasons; the first that fits counts."""


def advice(column: str, reason: str, entry: ColumnMapping | None = None) -> str:
    """What to look at in the mapping.

    Args:
        column: the contract's, ``labels.`` before it for a source of labels, "" for a line.
        entry: what the mapping says of it, if it says anything.
    """
    found = next((words for start, words in _ADVICE if reason.startswith(start)), "")
    if reason.startswith("text that is not a time") and entry is not None and entry.format is not None:
        found = f"`format` reads other times than these: it is {entry.format}"
    if reason == "no value" and entry is not None and len(entry.columns) > 1:
        found = "a join has no value where one of its columns has none: join fewer"
    if reason == "no value" and entry is not None and entry.codes is not None:
        found = "empty here, or `codes` turns the text into none"
    place = re.sub(r"^labels\.?", "", column)
    section = "labels" if column.startswith("labels") else "columns"
    if found and ("currency" in reason or "rate for the day" in reason):
        return f"currency: {found}"
    return f"{section}.{place}: {found}" if place and found else found
