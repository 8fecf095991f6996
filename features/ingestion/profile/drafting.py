"""A draft of a bank's mapping for a human to confirm, from the first rows of its own payments. Decides nothing.

The draft names columns, forms of times and numbers, and the codes of columns that have few; above each stands why, and
how sure that is. What could be two things, or what only the bank knows, is asked in a CHECK. The extraction refuses a
draft until someone has read it and set ``confirmed: true``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from features.contract.mapping import UNDECIDED, CsvFormat
from features.contract.schema import DataContract
from features.ingestion.profile.currencies import currency_setting
from features.ingestion.profile.entries import Notes, entry_of
from features.ingestion.profile.facts import ColumnFacts, column_facts
from features.ingestion.profile.fallbacks import (
    counted_from_a_start,
    day_and_clock,
    two_amounts,
    without_a_column,
)
from features.ingestion.profile.guessing import Guess, guessed
from features.ingestion.profile.messages import known_columns, told_by_messages
from features.ingestion.profile.sample import Sample, first_rows
from features.ingestion.profile.writing import draft_text
from features.sources.engines import BankTable

__all__ = ["Draft", "SourceProfile", "draft_mapping"]

_LABELS = ("payment_id", "is_fraud", "label_time")


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceProfile:
    """What was seen of one source.

    Attributes:
        columns: facts of each of its columns.
        used: the bank's columns that the draft reads, each with what it is taken for.
        guesses: by what each is for.
    """

    sample: Sample
    columns: tuple[ColumnFacts, ...]
    used: Mapping[str, tuple[str, ...]]
    guesses: Mapping[str, Guess]


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """The draft: its YAML text, and what the human has to look at.

    Attributes:
        payments, labels: what it was made from; labels is None where they come with the payments.
    """

    text: str
    open_questions: tuple[str, ...]
    payments: SourceProfile
    labels: SourceProfile | None = None


def draft_mapping(
    source: Path | str | BankTable, contract: DataContract, labels: Path | str | BankTable | None = None
) -> Draft:
    """Look at the first rows of the payments, and of the labels that come beside them, and draft a mapping.

    Raises:
        SourceError: there is no file or table, or it can't be read.
    """
    sample = first_rows(source)
    notes = Notes()
    if sample.messages:
        payments, settings, entries = _messages(sample, contract, notes)
    else:
        payments, settings, entries = _payments(sample, contract, notes, labels_beside=labels is not None)
    beside, section = None, None
    if labels is not None:
        beside, section = _labels(first_rows(labels), contract, notes)
        for name in ("is_fraud", "label_time"):
            if "absent" in entries[name]:
                notes.told[name] = "from the source of labels, see below"
                notes.asked.pop(name, None)
    unread = [(profile.sample.where, [f for f in profile.columns if f.name not in profile.used])
              for profile in (payments, beside) if profile is not None]  # fmt: skip
    text = draft_text(contract, sample, entries, settings, section, notes, unread)
    order = [*settings, "currency", *entries, *(f"labels.{name}" for name in ("version_column", *_LABELS))]
    asked = {name: notes.asked[name] for name in dict.fromkeys(order) if name in notes.asked} | notes.asked
    questions = tuple(f"{name}: {question}" for name, every in asked.items() for question in every)
    return Draft(text=text, open_questions=questions, payments=payments, labels=beside)


def _payments(
    sample: Sample, contract: DataContract, notes: Notes, *, labels_beside: bool
) -> tuple[SourceProfile, dict[str, Any], dict[str, Any]]:
    columns = _facts(sample)
    by_name = {facts.name: facts for facts in columns}
    wanted = [column.name for column in contract.columns]
    guesses = dict(guessed(columns, [*wanted, "currency", "version"]))
    entries: dict[str, Any] = {}
    for name in wanted:
        guess = guesses.get(name)
        if guess is not None:
            _told(notes, name, guess)
            entries[name] = entry_of(name, by_name[guess.column], contract, notes)
    day_and_clock(entries, guesses, columns, notes)
    counted_from_a_start(entries, by_name, notes)
    two_amounts(entries, guesses, columns, notes)
    without_a_column(entries, guesses, columns, contract, notes, labels_beside=labels_beside)
    settings = _settings(sample.form, guesses, entries["amount"], by_name, contract, notes)
    _label_questions(entries, guesses, by_name, contract, notes)
    used = _used(entries, settings)
    profile = SourceProfile(sample=sample, columns=columns, used=used, guesses=guesses)
    return profile, settings, {name: entries[name] for name in wanted}


def _messages(
    sample: Sample, contract: DataContract, notes: Notes
) -> tuple[SourceProfile, dict[str, Any], dict[str, Any]]:
    """The same for messages and statements, whose columns are known."""
    columns = _facts(sample)
    by_name = {facts.name: facts for facts in columns}
    guesses = {
        name: Guess(column=source, score=1.0, reason="the format says so")
        for name, source in known_columns(contract).items()
    }
    entries: dict[str, Any] = {}
    for name, guess in guesses.items():
        notes.told[name] = guess.reason
        entries[name] = entry_of(name, by_name[guess.column], contract, notes)
    settings: dict[str, Any] = {}
    told_by_messages(entries, settings, by_name, contract, notes)
    currency = Guess(column="currency", score=1.0, reason="the format says so")
    settings["currency"] = currency_setting(currency, by_name["amount"], by_name, contract, notes)
    profile = SourceProfile(sample=sample, columns=columns, used=_used(entries, settings), guesses=guesses)
    return profile, settings, {column.name: entries[column.name] for column in contract.columns}


def _used(entries: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """The bank's columns that a draft reads, and as what."""
    used: dict[str, tuple[str, ...]] = {}
    for name, entry in [*entries.items(), ("currency", settings.get("currency", {}))]:
        for column in _columns_of(entry):
            used[column] = (*used.get(column, ()), name)
    if "version_column" in settings:
        used[settings["version_column"]] = ("version_column",)
    return used


def _facts(sample: Sample) -> tuple[ColumnFacts, ...]:
    return tuple(column_facts(sample.column(name), name, place) for place, name in enumerate(sample.rows.column_names))


def _columns_of(entry: Mapping[str, Any]) -> Sequence[str]:
    if "debit" in entry:
        return (entry["debit"], entry["credit"])
    found = entry.get("from", entry.get("sign_of", entry.get("first_of", ())))
    return () if found == UNDECIDED else (found,) if isinstance(found, str) else tuple(found)


def _told(notes: Notes, name: str, guess: Guess) -> None:
    notes.told[name] = f"{guess.confidence}: {guess.reason}"
    if guess.rivals:
        notes.ask(name, f"{_listed(guess.rivals)} could be meant too")
    elif guess.confidence == "a guess":
        notes.ask(name, "a guess: is it this column?")


def _listed(names: Sequence[str]) -> str:
    shown = [f'"{name}"' for name in names[:4]] + ["others"] * (len(names) > 4)
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} or {shown[-1]}"


def _settings(
    form: CsvFormat | None,
    guesses: dict[str, Guess],
    amounts: Mapping[str, Any],
    by_name: Mapping[str, ColumnFacts],
    contract: DataContract,
    notes: Notes,
) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    if form is not None and form != CsvFormat():
        settings["csv"] = form.model_dump(exclude_defaults=True)
    if (currency := guesses.get("currency")) is not None:
        _told(notes, "currency", currency)
    amount = next((by_name[name] for name in _columns_of(amounts) if name in by_name), None)
    settings["currency"] = currency_setting(currency, amount, by_name, contract, notes)
    if (version := guesses.get("version")) is not None:
        settings["version_column"] = version.column
        notes.told["version_column"] = f"{version.confidence}: {version.reason}"
        notes.ask("version_column", "of two rows of a payment the larger wins; take it out if it is not that")
    return settings


def _label_questions(
    entries: Mapping[str, Any],
    guesses: Mapping[str, Guess],
    by_name: Mapping[str, ColumnFacts],
    contract: DataContract,
    notes: Notes,
) -> None:
    """A label is asked about unless it has the contract's own name and codes, and no other column could be one."""
    guess = guesses.get("is_fraud")
    if guess is None:
        return
    facts, codes = by_name[guess.column], entries["is_fraud"].get("codes", {})
    ones = {text for text, code in codes.items() if code == 1} or {"1", "1.0", "True", "true"}
    share = sum(count for text, count in facts.counts.items() if text in ones) / max(facts.present, 1)
    shown = f"{', '.join(sorted(ones & facts.counts.keys())) or 'no value'} means fraud: {share:.2%} of labelled rows"
    if share > contract.quality.label_rate_high:
        notes.ask("is_fraud", f"{shown}. That is more than fraud is; is it turned round, or another column?")
    elif guess.column != contract.label.column or codes:
        notes.ask("is_fraud", f"{shown}. Is it the bank's verdict on each payment?")


def _labels(sample: Sample, contract: DataContract, notes: Notes) -> tuple[SourceProfile, dict[str, Any]]:
    """The section for a source of labels."""
    columns = _facts(sample)
    by_name = {facts.name: facts for facts in columns}
    guesses = dict(guessed(columns, [*_LABELS, "version"]))
    own = Notes()
    entries: dict[str, Any] = {}
    for name in _LABELS:
        guess = guesses.get(name)
        if guess is not None:
            _told(own, name, guess)
            entries[name] = entry_of(name, by_name[guess.column], contract, own)
        elif name == "label_time":
            own.told["is_fraud"] = own.told.get("is_fraud", "")
        else:
            entries[name] = {"from": UNDECIDED}
            own.ask(name, "no column looks like it: name one in `from`")
    _label_questions(entries, guesses, by_name, contract, own)
    section: dict[str, Any] = {}
    if sample.form is not None and sample.form != CsvFormat():
        section["csv"] = sample.form.model_dump(exclude_defaults=True)
    if (version := guesses.get("version")) is not None:
        section["version_column"] = version.column
        own.ask("version_column", "of two decisions on a payment the larger wins; take it out if it is not that")
    section["columns"] = entries
    for part, asked in own.asked.items():
        notes.asked[f"labels.{part}"] = asked
    for part, told in own.told.items():
        notes.told[f"labels.{part}"] = told
    used = {column: (f"labels.{name}",) for name, entry in entries.items() for column in _columns_of(entry)}
    if "version_column" in section:
        used[section["version_column"]] = ("labels.version_column",)
    return SourceProfile(sample=sample, columns=columns, used=used, guesses=guesses), section
