"""How a column that was chosen is read: its entry in the mapping, and what a human has to check. Chooses none."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from features.contract.mapping import UNDECIDED
from features.contract.schema import DataContract
from features.contract.standards import COUNTRY_OF
from features.ingestion.profile.codes import DIRECTIONS, VERDICTS, channel_of, pair_of
from features.ingestion.profile.facts import MOST_CODES, ColumnFacts
from features.ingestion.profile.forms import NumberForm
from features.ingestion.profile.words import folded

__all__ = ["Notes", "entry_of", "meant_codes", "written_numbers"]

Entry = Iterator[tuple[str, Any]]

_YES = {"1", "y", "yes", "tru", "fraud", "betrug", "fraude", "frode", "ja", "oui", "si"}
_NO = {"0", "n", "no", "false", "genuine", "legit", "ok", "nein", "non", "normal"}


@dataclass(slots=True)
class Notes:
    """What is asked, and what is told, of each part of the draft while it is made."""

    asked: dict[str, list[str]] = field(default_factory=dict)
    told: dict[str, str] = field(default_factory=dict)

    def ask(self, part: str, question: str) -> None:
        """A question for the human: a CHECK."""
        self.asked.setdefault(part, []).append(question)


def entry_of(
    thing: str, facts: ColumnFacts, contract: DataContract, notes: Notes, *, name: str | None = None
) -> dict[str, Any]:
    """The entry that reads a column of the bank's as a column of the contract.

    Args:
        name: under which name to ask, where it is another than the contract's.
    """
    entry: dict[str, Any] = {"from": facts.name}
    if facts.null_words and thing not in ("direction", "counterparty_country"):
        entry["nulls"] = sorted(facts.null_words)
        if not contract.column(thing).nullable and thing != "category":
            gaps = _share(sum(facts.null_words.values()), facts.rows)
            notes.ask(name or thing, f"{gaps} of the rows have a word for no value and would be quarantined")
    if facts.present:
        entry |= dict(_READERS[thing](facts, name or thing, contract, notes))
    elif not contract.column(thing).nullable:
        notes.ask(name or thing, "no row looked at has a value: every row would be quarantined")
    return entry


def meant_codes(facts: ColumnFacts) -> list[str]:
    """The column's codes in order, without words that stand for no value."""
    return sorted(text for text in facts.counts if text not in facts.null_words)


def _share(count: float, rows: int) -> str:
    share = count / rows
    return f"{share:.1%}" if share >= 0.001 else f"{int(count)}"


def _missing(facts: ColumnFacts, name: str, thing: str, contract: DataContract, notes: Notes) -> None:
    if facts.missing and not contract.column(thing).nullable:
        notes.ask(name, f"{_share(facts.missing, facts.rows)} of the rows have no value and would be quarantined")


def _identifier(thing: str) -> Callable[..., Entry]:
    def read(facts: ColumnFacts, name: str, contract: DataContract, notes: Notes) -> Entry:
        _missing(facts, name, thing, contract, notes)
        if facts.looks("scientific", 0.01):
            notes.ask(
                name, "numbers as 9.0E+15, as spreadsheets write them: digits are lost; export the column as text"
            )
        if thing == "payment_id" and facts.distinct < facts.present:
            again = facts.present - facts.distinct
            notes.ask(
                name,
                f"some ids are there twice ({again} rows): of such rows the last counts if the direction is the same; "
                "if they are different payments, join columns that tell them apart: from: [one, another]",
            )
        yield from ()

    return read


def _time(thing: str) -> Callable[..., Entry]:
    def read(facts: ColumnFacts, name: str, contract: DataContract, notes: Notes) -> Entry:
        _missing(facts, name, thing, contract, notes)
        form = facts.time
        if form is None or form.share < 0.5:
            notes.ask(name, "no known form of times: set `format`, as strptime has it, or `unit` for numbers")
            return
        if form.unit is not None:
            yield "unit", form.unit
            return
        if form.format is not None:
            yield "format", form.format
        if form.share < 1:
            notes.ask(
                name, f"{1 - form.share:.1%} of its different values are written otherwise and would be quarantined"
            )
        if form.either:
            notes.ask(
                name, f"day and month can't be told apart in the rows looked at: taken as {_day_first(form.format)}"
            )
        if form.days_only and thing == "event_time":
            notes.ask(name, "days without a time of day: features of hours and of the last 24 hours lose their meaning")
        if not form.offset:
            notes.ask(name, "no offset: taken as UTC; set `zone`, such as Europe/Zurich, if it is local time")

    return read


def _day_first(form: str | None) -> str:
    return "day first" if (form or "").startswith("%d") else "month first"


def written_numbers(form: NumberForm) -> dict[str, Any]:
    """The keys that say how numbers are written, where they are not written as usual."""
    keys: dict[str, Any] = {}
    if form.decimal != ".":
        keys["decimal"] = form.decimal
    if form.thousands:
        keys["thousands"] = form.thousands
    if form.signs:
        keys["symbols"] = list(form.signs)
    return keys


def _amount(facts: ColumnFacts, name: str, contract: DataContract, notes: Notes) -> Entry:
    _missing(facts, name, "amount", contract, notes)
    form = facts.number
    if form is None:
        notes.ask(name, "its values are no numbers")
        return
    yield from written_numbers(form).items()
    if form.share < 1:
        notes.ask(
            name, f"{1 - form.share:.1%} of its different values are no numbers so written and would be quarantined"
        )
    if form.thirds:
        notes.ask(name, f'three digits behind each "{form.decimal}": does it group thousands? then set `thousands`')
    if form.whole and form.highest >= 1000 and contract.minor_unit_digits:
        notes.ask(name, f"whole numbers: if they are minor units, set `scale: {10.0**-contract.minor_unit_digits:g}`")
    if form.negative:
        yield "sign", "absolute"
        if form.negative < 1:
            notes.ask(name, f"{form.negative:.1%} of the different amounts are negative: what does the sign mean?")


def _codes(
    thing: str, meanings: Callable[[list[str], DataContract, Notes, str], Mapping[str, str | int | None]]
) -> Callable[..., Entry]:
    def read(facts: ColumnFacts, name: str, contract: DataContract, notes: Notes) -> Entry:
        if not facts.counts:
            notes.ask(
                name,
                f"{facts.distinct} different texts: too many for codes (at most {MOST_CODES}), is it another column?",
            )
            return
        if facts.type == "truth" and thing == "is_fraud":
            return
        found = meant_codes(facts)
        if thing not in ("category", "is_fraud"):
            _missing(facts, name, thing, contract, notes)
        allowed = [str(code) for code in contract.codes(thing)] or ["0", "1"]
        if set(found) <= {*allowed, *(("0.0", "1.0") if thing == "is_fraud" else ())}:
            if thing == "category":
                yield from _category_gap(facts, name, contract, notes)
            return
        if thing == "category" and facts.looks("mcc"):
            yield "standard", "iso18245"
            yield from _category_gap(facts, name, contract, notes)
            return
        if thing == "category":
            yield from _category_gap(facts, name, contract, notes)
        codes = meanings(found, contract, notes, name)
        yield "codes", {text: UNDECIDED if code is None else code for text, code in codes.items()}
        if None in codes.values():
            notes.ask(name, f"put one of {', '.join(allowed)} for each ?")

    return read


def _category_gap(facts: ColumnFacts, name: str, contract: DataContract, notes: Notes) -> Entry:
    """Transfers have no merchant: what has no category is one, or falls under other."""
    gaps = facts.missing + sum(facts.null_words.values())
    allowed = contract.codes("category")
    default = next((code for code in ("transfer", "other") if code in allowed), None)
    if gaps and default is not None:
        yield "default", default
        notes.ask(name, f"{_share(gaps, facts.rows)} of the rows have none: taken as {default}")
    elif gaps:
        _missing(facts, name, "category", contract, notes)


def _directions(found: list[str], contract: DataContract, notes: Notes, name: str) -> dict[str, str | int | None]:
    return {text: (pair_of(found, DIRECTIONS) or pair_of([text], DIRECTIONS) or {}).get(text) for text in found}


def _labels(found: list[str], contract: DataContract, notes: Notes, name: str) -> dict[str, str | int | None]:
    pair: dict[str, str | int] = pair_of(found, VERDICTS) or {}
    if not pair:
        words = {text: " ".join(folded(text)) for text in found}
        pair = dict.fromkeys((text for text in found if words[text] in _YES), 1)
        pair |= dict.fromkeys((text for text in found if words[text] in _NO), 0)
    return {text: pair.get(text) for text in found}


def _channels(found: list[str], contract: DataContract, notes: Notes, name: str) -> dict[str, str | int | None]:
    allowed = contract.codes("channel")
    codes: dict[str, str | int | None] = {text: _same_word(text, allowed) or channel_of(text) for text in found}
    codes = {text: code if code in allowed else None for text, code in codes.items()}
    unknown = [text for text, code in codes.items() if code is None]
    if unknown and len(unknown) < len(found) and "transfer" in allowed:
        notes.ask(name, f"taken as transfer since nothing in their names says card: {', '.join(unknown)}")
        codes |= dict.fromkeys(unknown, "transfer")
    return codes


def _categories(found: list[str], contract: DataContract, notes: Notes, name: str) -> dict[str, str | int | None]:
    return {text: _same_word(text, contract.codes("category")) for text in found}


def _same_word(text: str, allowed: tuple[str, ...]) -> str | None:
    plain = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")
    return next((code for code in allowed if code == plain), None)


def _country(facts: ColumnFacts, name: str, contract: DataContract, notes: Notes) -> Entry:
    yield "standard", "iso3166"
    if not set(facts.texts.str.upper()) <= COUNTRY_OF.keys():
        notes.ask(name, "some texts are no country codes of ISO 3166 and would be quarantined")


_READERS: Mapping[str, Callable[..., Entry]] = {
    **{
        name: _identifier(name)
        for name in ("payment_id", "account_id", "counterparty_id", "counterparty_bank", "device_id")
    },
    "counterparty_country": _country,
    **{name: _time(name) for name in ("event_time", "label_time")},
    "amount": _amount,
    "direction": _codes("direction", _directions),
    "channel": _codes("channel", _channels),
    "category": _codes("category", _categories),
    "is_fraud": _codes("is_fraud", _labels),
}
