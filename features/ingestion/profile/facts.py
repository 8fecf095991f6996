"""What the values of one column look like: their kind, form, range and number. Decides nothing about their meaning.

Values are looked at here and shown nowhere: what may be shown of them is in `masking`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from features.contract.standards import COUNTRY_OF, MINOR_UNITS, is_iban
from features.ingestion.profile.forms import ISO_TIME, NumberForm, TimeForm, number_form, time_form

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MOST_CODES", "NULL_WORDS", "ColumnFacts", "column_facts"]

MOST_CODES = 60
"""A column with more distinct texts than this is no column of codes, and its texts are not shown."""

LOOKED_AT = 2_000
"""Distinct values whose look is examined."""

NULL_WORDS = ("NULL", "null", "\\N", "N/A", "n/a", "NA", "NaN", "nan", "None", "none", "#N/A", "-", "?")
"""Texts that other systems write for no value."""

_LOOKS = {
    "iban": r"^[A-Z]{2}\d{2}[ ]?([A-Z0-9]{4}[ ]?){2,7}[A-Z0-9]{0,4}$",
    "bic": r"^[A-Z]{4}[A-Z]{2}[A-Z0-9]{2}([A-Z0-9]{3})?$",
    "uuid": r"^[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}$",
    "hash": r"^[0-9a-f]{32,64}$",
    "mail": r"^[^@\s]+@[^@\s]+\.[a-zA-Z]{2,}$",
    "mcc": r"^0?\d{3,4}$",
    "digits": r"^\d+$",
    "clock": r"^\d{1,2}:\d\d(:\d\d(\.\d+)?)?$",
    "scientific": r"^\d(\.|,)\d+[eE]\+?\d+$",
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ColumnFacts:
    """One column of the rows looked at.

    Attributes:
        name: the bank's.
        place: its place among the columns, from 0.
        type: the source's own type; a CSV has text throughout.
        rows: rows looked at.
        missing: how many have no value: null, empty or blank.
        distinct: different values.
        texts: the values that there are, as trimmed text.
        counts: rows by text, the commonest first; empty where there are more than `MOST_CODES`.
        null_words: rows by text that other systems write for no value.
        time, number: how they are written, where they are times or numbers for the most part.
        shares: of the distinct values looked at, by look (`_LOOKS`, currency, country, card).
    """

    name: str
    place: int
    type: Literal["text", "number", "whole", "time", "truth", "other"]
    rows: int
    missing: int
    distinct: int
    texts: "pd.Series[Any]" = field(repr=False)
    counts: Mapping[str, int] = field(repr=False)
    null_words: Mapping[str, int]
    time: TimeForm | None
    number: NumberForm | None
    shares: Mapping[str, float]

    @property
    def present(self) -> int:
        """Rows that have a value."""
        return self.rows - self.missing

    @property
    def unique(self) -> bool:
        """Whether no value is there twice and none is missing."""
        return self.present > 1 and self.distinct == self.rows

    def looks(self, kind: str, share: float = 0.9) -> bool:
        """Whether most values look like this."""
        return self.shares.get(kind, 0.0) >= share


def column_facts(values: "pd.Series[Any]", name: str, place: int) -> ColumnFacts:
    """Look at a column: one pass over its values, and closer at up to `LOOKED_AT` different ones."""
    import pandas as pd

    kind = _type(values)
    words = {"whole": _whole, "truth": _truth}.get(kind, str)
    texts = values.dropna().astype(object).map(words).astype(object).str.strip()
    texts = texts[texts != ""].astype(object)
    by_text = texts.value_counts()
    null_words = {word: int(by_text[word]) for word in NULL_WORDS if word in by_text.index}
    meant = [text for text in by_text.index if text not in null_words] if len(by_text) > len(null_words) else []
    looked_at = pd.Series(meant[:LOOKED_AT], dtype=object)
    time = _typed_time(values) if kind == "time" else time_form(looked_at, whole=kind == "whole")
    number = None if kind in ("time", "truth", "other") else number_form(looked_at)
    if kind in ("number", "whole") and number is None and len(looked_at):
        number = NumberForm(decimal=".", thousands="", share=1.0)
    return ColumnFacts(
        name=name,
        place=place,
        type=kind,
        rows=len(values),
        missing=len(values) - len(texts),
        distinct=len(by_text),
        texts=texts,
        counts={str(text): int(count) for text, count in by_text.items()} if len(by_text) <= MOST_CODES else {},
        null_words=null_words,
        time=time,
        number=number,
        shares=_shares(looked_at),
    )


def _type(values: "pd.Series[Any]") -> Literal["text", "number", "whole", "time", "truth", "other"]:
    import pandas as pd

    kinds = pd.api.types
    there = values.dropna()
    if kinds.is_bool_dtype(values.dtype):
        return "truth"
    if kinds.is_integer_dtype(values.dtype):
        return "whole"
    if kinds.is_float_dtype(values.dtype):
        return "whole" if len(there) and bool((there % 1 == 0).all()) and len(there) < len(values) else "number"
    if kinds.is_datetime64_any_dtype(values.dtype):
        return "time"
    if not len(there) or isinstance(there.iloc[0], str):
        return "text"
    first = there.iloc[0]
    if type(first).__name__ in ("date", "datetime", "Timestamp"):
        return "time"
    if type(first).__name__ == "Decimal":
        return "number"
    return "truth" if isinstance(first, bool) else "other"


def _whole(value: Any) -> str:
    return str(int(value))


def _truth(value: Any) -> str:
    return "true" if value else "false"


def _typed_time(values: "pd.Series[Any]") -> TimeForm:
    first = str(values.dropna().iloc[0]) if values.notna().any() else ""
    offset = re.search(r"\d\d:\d\d.*[+-]\d\d:?\d\d$", first) is not None
    return TimeForm(share=1.0, days_only=re.fullmatch(r"\d{4}-\d\d-\d\d", first) is not None, offset=offset, typed=True)


def _shares(texts: "pd.Series[Any]") -> dict[str, float]:
    if not len(texts):
        return {}
    found = {kind: float(texts.str.match(pattern).mean()) for kind, pattern in _LOOKS.items()}
    upper = texts.str.upper()
    found["currency"] = float(upper.isin(list(MINOR_UNITS)).mean())
    found["country"] = float((upper.isin(list(COUNTRY_OF)) & ~texts.str.fullmatch(r"\d+")).mean())
    found["card"] = float(texts.map(_is_card).mean())
    found["iso_time"] = float(texts.str.match(ISO_TIME).mean())
    if found["iban"]:
        found["iban"] = float(texts.map(is_iban).mean())
    return {kind: share for kind, share in found.items() if share > 0}


def _is_card(text: str) -> bool:
    """A card's number: 13 to 19 digits whose last is the check digit (ISO/IEC 7812)."""
    digits = text.replace(" ", "").replace("-", "")
    if not re.fullmatch(r"[3-6]\d{12,18}", digits):
        return False
    doubled = [int(each) for each in digits[::-1]]
    total = sum(value if not place % 2 else (2 * value - 9 * (value > 4)) for place, value in enumerate(doubled))
    return total % 10 == 0
