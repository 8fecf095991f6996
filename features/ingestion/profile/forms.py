"""How a column's texts write times and numbers, told from most of them. Reads no value into anything.

The rest, which is written otherwise, is counted by its share: a few bad cells hide no form.
"""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ISO_TIME", "NumberForm", "TimeForm", "number_form", "time_form"]

ISO_TIME = r"^\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d(\.\d+)?)?)?( ?(Z|[+-]\d\d(:?\d\d)?))?$"

_DAYS = {
    "%d.%m.%Y": r"\d\d\.\d\d\.\d{4}",
    "%d.%m.%y": r"\d\d\.\d\d\.\d\d",
    "%d/%m/%Y": r"\d{1,2}/\d{1,2}/\d{4}",
    "%d/%m/%y": r"\d{1,2}/\d{1,2}/\d\d",
    "%d-%m-%Y": r"\d{1,2}-\d{1,2}-\d{4}",
    "%Y/%m/%d": r"\d{4}/\d{1,2}/\d{1,2}",
    "%Y.%m.%d": r"\d{4}\.\d\d\.\d\d",
    "%Y%m%d": r"(?:19|20)\d{6}",
    "%d %b %Y": r"\d{1,2} [A-Z][a-z]{2} \d{4}",
    "%d-%b-%Y": r"\d{1,2}-[A-Z][a-z]{2}-\d{4}",
    "%d-%b-%y": r"\d{1,2}-[A-Z][a-z]{2}-\d\d",
    "%b %d, %Y": r"[A-Z][a-z]{2} \d{1,2}, \d{4}",
}
_CLOCKS = {
    "": "",
    " %H:%M:%S": r" \d{1,2}:\d\d:\d\d",
    " %H:%M": r" \d{1,2}:\d\d",
    " %H:%M:%S.%f": r" \d{1,2}:\d\d:\d\d\.\d{1,6}",
    " %I:%M:%S %p": r" \d{1,2}:\d\d:\d\d [AaPp][Mm]",
    " %I:%M %p": r" \d{1,2}:\d\d [AaPp][Mm]",
    "T%H:%M:%S": r"T\d\d:\d\d:\d\d",
    " %H.%M.%S": r" \d\d\.\d\d\.\d\d",
    "%H%M%S": r"\d{6}",
}
_NUMBERS = (
    (".", ""),
    (",", ""),
    (".", ","),
    (",", "."),
    (",", " "),
    (".", "'"),
    (".", " "),
)
_SIGNS = r"[€$£¥₹]|[A-Z]{3}|kr\.?|zł|Fr\.?|R\$"


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeForm:
    """How times are written.

    Attributes:
        share: of the distinct values that are written so.
        format: as strptime has it; None for ISO 8601, numbers and typed columns.
        unit: of numbers: s, ms, us since 1970, or excel: days since the end of 1899.
        days_only: no time of day.
        offset: a difference to UTC is written.
        either: day and month can't be told apart.
        typed: the source's own type is a time.
    """

    share: float
    format: str | None = None
    unit: str | None = None
    days_only: bool = False
    offset: bool = False
    either: bool = False
    typed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberForm:
    """How numbers are written.

    Attributes:
        share: of the distinct values that are written so.
        whole: no decimals anywhere.
        thirds: each decimal part has three digits, so that the mark may group thousands.
        signs: currency signs beside the numbers.
        bracketed: some are in parentheses. trailing: some have a minus behind them.
        negative: share of numbers below zero.
        lowest, highest: of the numbers read so.
        mostly_cents: most have exactly two decimals.
    """

    decimal: str
    thousands: str
    share: float
    whole: bool = False
    thirds: bool = False
    signs: tuple[str, ...] = ()
    bracketed: bool = False
    trailing: bool = False
    negative: float = 0.0
    lowest: float = 0.0
    highest: float = 0.0
    mostly_cents: bool = False


def time_form(texts: "pd.Series[Any]", *, whole: bool = False) -> TimeForm | None:
    """The form of at least half of the texts, or None.

    Args:
        whole: the column's own type is whole numbers: then only counts since 1970 and days as digits are looked for.
    """
    if not len(texts):
        return None
    share = float(texts.str.match(ISO_TIME).mean())
    if share >= 0.5:
        good = texts[texts.str.match(ISO_TIME)]
        offset = bool(good.str.contains(r"\d\d:\d\d.*(?:Z|[+-]\d\d(?::?\d\d)?)$").any())
        return TimeForm(share=share, days_only=bool((good.str.len() == 10).all()), offset=offset)
    if (found := _digits_form(texts)) is not None or whole:
        return found
    best = max(
        (TimeForm(share=_matching(texts, day, clock), format=day_form + form, days_only=not form)
         for day_form, day in _DAYS.items() for form, clock in _CLOCKS.items()
         if (form != "%H%M%S" or day_form == "%Y%m%d")),
        key=lambda each: each.share,
    )  # fmt: skip
    return _day_or_month(texts, best) if best.share >= 0.5 else None


def _matching(texts: "pd.Series[Any]", day: str, clock: str) -> float:
    return float(texts.str.fullmatch(day + clock).mean())


def _digits_form(texts: "pd.Series[Any]") -> TimeForm | None:
    """Times as digits alone: days and seconds written together, or a count since 1970."""
    for format_, pattern, days_only in (
        ("%Y%m%d%H%M%S", r"(19|20)\d\d(0[1-9]|1[0-2])([0-2]\d|3[01])([01]\d|2[0-3])[0-5]\d[0-5]\d", False),
        ("%Y%m%d", r"(19|20)\d\d(0[1-9]|1[0-2])([0-2]\d|3[01])", True),
    ):
        share = float(texts.str.fullmatch(pattern).mean())
        if share >= 0.9:
            return TimeForm(share=share, format=format_, days_only=days_only)
    digits = texts[texts.str.fullmatch(r"\d{9,16}(\.\d+)?")]
    if len(digits) < 0.9 * len(texts):
        return None
    numbers = digits.astype(float)
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        # Between 1990 and 2100.
        inside = numbers.between(6.3e8 * factor, 4.1e9 * factor).mean()
        if inside >= 0.9:
            return TimeForm(share=float(inside * len(digits) / len(texts)), unit=unit)
    return None


def _day_or_month(texts: "pd.Series[Any]", form: TimeForm) -> TimeForm:
    """Of dates with two numbers in front: which of them is the day."""
    written = form.format or ""
    if not written.startswith(("%d/%m", "%d-%m", "%d.%m")):
        return form
    mark = written[2]
    parts = texts.str.extract(rf"^(\d{{1,2}}){re.escape(mark)}(\d{{1,2}}){re.escape(mark)}").dropna().astype(int)
    # By how many, not by the largest: one date that is none turns nothing round.
    first, second = int((parts[0] > 12).sum()), int((parts[1] > 12).sum())
    turned = second > first
    return TimeForm(
        share=form.share,
        format=written.replace(f"%d{mark}%m", f"%m{mark}%d") if turned else written,
        days_only=form.days_only,
        either=mark != "." and first == second,
    )


def number_form(texts: "pd.Series[Any]") -> NumberForm | None:
    """The form of at least half of the texts, or None; marks around a number are taken off first."""
    if not len(texts):
        return None
    plain = texts.str.replace("\u00a0", " ").str.replace("\u202f", " ").str.replace("−", "-")
    signs = plain.str.extract(rf"^\(?[+-]?\s*({_SIGNS})\s*[+-]?\s*[\d(]")[0].fillna(
        plain.str.extract(rf"\d\s*({_SIGNS})\)?-?$")[0]
    )
    bare = plain.str.replace(rf"^(\(?[+-]?)\s*(?:{_SIGNS})\s*", r"\1", regex=True)
    bare = bare.str.replace(rf"\s*(?:{_SIGNS})(\)?-?)$", r"\1", regex=True)
    bracketed = bare.str.fullmatch(r"\(.*\)")
    trailing = bare.str.fullmatch(r".*\d-")
    minus = bracketed | trailing | bare.str.startswith("-")
    digits = bare.str.strip("()+- ")
    shares = {
        (decimal, thousands): digits.str.fullmatch(_pattern(decimal, thousands)) for decimal, thousands in _NUMBERS
    }
    decimal, thousands = max(shares, key=lambda each: float(shares[each].mean()))
    good = shares[decimal, thousands]
    share = float(good.mean())
    if share < 0.5:
        return None
    kept = digits[good]
    tails = kept.str.extract(rf"{re.escape(decimal)}(\d+)$")[0]
    numbers = kept.str.replace(thousands, "", regex=False) if thousands else kept
    values = numbers.str.replace(",", ".", regex=False).astype(float)
    values = values.where(~minus[good], -values)
    return NumberForm(
        decimal=decimal,
        thousands=thousands,
        share=share,
        whole=bool(tails.isna().all()),
        thirds=bool(not thousands and tails.notna().any() and (tails.dropna().str.len() == 3).all()),
        signs=tuple(sorted(set(signs.dropna()))),
        bracketed=bool(bracketed[good].any()),
        trailing=bool(trailing[good].any()),
        negative=float((values < 0).mean()),
        lowest=float(values.min()),
        highest=float(values.max()),
        mostly_cents=bool((tails.str.len() == 2).mean() > 0.5),
    )


def _pattern(decimal: str, thousands: str) -> str:
    point, group = re.escape(decimal), re.escape(thousands)
    whole = rf"(?:\d+|\d{{1,3}}(?:{group}\d{{3}})+)" if thousands else r"\d+"
    return rf"{whole}(?:{point}\d*)?(?:[eE][+-]?\d{{1,3}})?|{point}\d+"
