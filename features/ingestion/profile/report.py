"""A page about what is in a bank's columns, beside the draft: types, gaps, ranges, common values. It sends nothing.

One HTML file that needs nothing from outside. Of columns that may tell of a person it shows shapes only (`masking`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

import jinja2

from features.contract.schema import DataContract
from features.ingestion.profile.drafting import Draft, SourceProfile
from features.ingestion.profile.facts import ColumnFacts
from features.ingestion.profile.masking import masked, may_show, samples

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ColumnView", "SourceView", "ValueView", "profile_page"]

TOP = 8
"""Common values of a column that are shown."""

_CODES = {"direction", "channel", "category", "is_fraud", "labels.is_fraud", "currency", "counterparty_country"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueView:
    """A common value, or the shape of one: rows that have it, and their share of the rows with a value."""

    text: str
    rows: int
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnView:
    """What the page says of a column; every text in it may be shown."""

    name: str
    kind: str
    used_for: tuple[str, ...]
    confidence: str
    reason: str
    rivals: tuple[str, ...]
    filled: float
    missing: int
    null_words: int
    distinct: int
    unique: bool
    lowest: str
    highest: str
    top: tuple[ValueView, ...]
    samples: tuple[str, ...]
    personal: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceView:
    """What the page says of a source."""

    title: str
    where: str
    rows: int
    more: bool
    files: int
    messages: bool
    unreadable: int
    columns: tuple[ColumnView, ...]


def profile_page(draft: Draft, contract: DataContract) -> str:
    """The page, whole."""
    sources = [_source("Payments", draft.payments)]
    if draft.labels is not None:
        sources.append(_source("Labels", draft.labels))
    questions = [question.partition(": ")[::2] for question in draft.open_questions]
    return _template().render(contract=contract, sources=sources, questions=questions)


@cache
def _template() -> jinja2.Template:
    text = resources.files("features").joinpath("ingestion/profile/report.html").read_text(encoding="utf-8")
    return jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(text)


def _source(title: str, profile: SourceProfile) -> SourceView:
    sample = profile.sample
    return SourceView(
        title=title,
        where=sample.where,
        rows=sample.rows.num_rows,
        more=sample.more,
        files=sample.files,
        messages=sample.messages,
        unreadable=sum(sample.unreadable.values()),
        columns=tuple(_column(facts, profile) for facts in profile.columns),
    )


def _column(facts: ColumnFacts, profile: SourceProfile) -> ColumnView:
    used_for = profile.used.get(facts.name, ())
    guess = next((each for each in profile.guesses.values() if each.column == facts.name), None)
    codes = any(thing in _CODES for thing in used_for) and bool(facts.counts)
    shown = may_show(facts, codes=codes)
    lowest, highest = _range(facts) if shown else ("", "")
    return ColumnView(
        name=facts.name or "(no name)",
        kind=_kind(facts, codes=codes, shown=shown),
        used_for=used_for,
        confidence=guess.confidence if guess else "",
        reason=guess.reason if guess else "",
        rivals=guess.rivals if guess else (),
        filled=facts.present / facts.rows if facts.rows else 0.0,
        missing=facts.missing,
        null_words=sum(facts.null_words.values()),
        distinct=facts.distinct,
        unique=facts.unique,
        lowest=lowest,
        highest=highest,
        top=_top(facts.texts, facts.present, shown=shown),
        samples=tuple(samples(facts, codes=codes)),
        personal=not shown,
    )


def _kind(facts: ColumnFacts, *, codes: bool, shown: bool) -> str:
    """In words a data engineer uses."""
    if not facts.present:
        return "empty"
    if facts.time is not None and facts.time.share >= 0.5:
        return "date" if facts.time.days_only else "time"
    looks = {"iban": "IBAN", "card": "card number", "bic": "BIC", "uuid": "UUID", "clock": "time of day"}
    if (look := next((word for kind, word in looks.items() if facts.looks(kind)), None)) and not facts.looks(
        "currency"
    ):
        return look
    if facts.number is not None and facts.number.share >= 0.5 and not codes:
        return "whole number" if facts.number.whole else "decimal"
    return "code" if facts.counts and shown else "text"


def _range(facts: ColumnFacts) -> tuple[str, str]:
    if facts.time is not None and facts.time.share > 0.9:
        if facts.time.typed or facts.time.format is None:
            return str(facts.texts.min()), str(facts.texts.max())
        import pandas as pd

        times = pd.to_datetime(facts.texts, format=facts.time.format, errors="coerce").dropna()
        length = 10 if facts.time.days_only else 19
        return (str(times.min())[:length], str(times.max())[:length]) if len(times) else ("", "")
    if facts.number is not None and facts.number.share > 0.9:
        return f"{facts.number.lowest:,.10g}", f"{facts.number.highest:,.10g}"
    return "", ""


def _top(texts: "pd.Series", present: int, *, shown: bool) -> tuple[ValueView, ...]:
    """The commonest values, or shapes, where they are more than chance."""
    counted = (texts if shown else texts.map(masked)).value_counts()
    if not len(counted) or counted.iloc[0] < 2 or counted.head(TOP).sum() < 0.05 * present:
        return ()
    found: Sequence[tuple[str, int]] = [(str(text), int(rows)) for text, rows in counted.head(TOP).items()]
    return tuple(ValueView(text=text[:48], rows=rows, share=rows / present) for text, rows in found)
