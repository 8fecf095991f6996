"""What a draft says where no single column of the bank's is a column of the contract. Looks at no file.

A day and a clock in two columns, hours counted from a start, an id that only several columns together make, a direction
that a sign or the kind of payment tells: each is drafted, and asked about.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from features.contract.mapping import UNDECIDED
from features.contract.schema import DataContract
from features.ingestion.profile.codes import is_incoming
from features.ingestion.profile.entries import Notes, meant_codes, written_numbers
from features.ingestion.profile.facts import ColumnFacts
from features.ingestion.profile.guessing import Guess, guessed, is_day_number

__all__ = ["counted_from_a_start", "day_and_clock", "tell_absent", "two_amounts", "without_a_column"]


def day_and_clock(
    entries: dict[str, Any], guesses: Mapping[str, Guess], columns: Sequence[ColumnFacts], notes: Notes
) -> None:
    """A day in one column and the time of day in another are joined."""
    guess = guesses.get("event_time")
    by_name = {facts.name: facts for facts in columns}
    if guess is None or (day := by_name[guess.column]).time is None or not day.time.days_only or day.type == "time":
        return
    used = {other.column for other in guesses.values()}
    clock = guessed([facts for facts in columns if facts.name not in used], ["clock"]).get("clock")
    if clock is None:
        return
    texts = by_name[clock.column].texts
    form = "%H:%M:%S" if texts.str.count(":").max() == 2 else "%H:%M"
    entry: dict[str, Any] = {"from": [day.name, clock.column], "joiner": " "}
    entries["event_time"] = entry | {"format": f"{day.time.format or '%Y-%m-%d'} {form}"}
    notes.told["event_time"] = (
        f"{guess.confidence}: the day is in one column, {guess.reason}, the time of day in another"
    )
    asked = [question for question in notes.asked.get("event_time", []) if "without a time of day" not in question]
    notes.asked["event_time"] = asked or ["is the time of day that of the payment?"]


def counted_from_a_start(entries: dict[str, Any], by_name: Mapping[str, ColumnFacts], notes: Notes) -> None:
    """Hours or days as small numbers: only the bank knows when they begin."""
    entry = entries.get("event_time", {})
    facts = by_name.get(entry.get("from")) if isinstance(entry.get("from"), str) else None
    if facts is None or facts.time is not None or facts.number is None:
        return
    if is_day_number(facts):
        entries["event_time"] = {"from": facts.name, "unit": "excel"}
        notes.asked["event_time"] = [
            "day numbers of a spreadsheet: taken as UTC; set `zone`, such as Europe/Zurich, if it is local time"
        ]
        return
    unit = "d" if "day" in facts.name.lower() else "h"
    entries["event_time"] = {"from": facts.name, "unit": unit, "origin": UNDECIDED}
    notes.asked["event_time"] = [
        f"counted from a start, {facts.number.lowest:g} to {facts.number.highest:g}: put the first day for the ?, such "
        f"as 2024-01-01; taken as {'days, `unit: h` if they are hours' if unit == 'd' else 'hours, `unit: d` if days'}"
    ]


def two_amounts(
    entries: dict[str, Any], guesses: Mapping[str, Guess], columns: Sequence[ColumnFacts], notes: Notes
) -> None:
    """Debit and credit in two columns, of which each row fills one."""
    if "amount" in entries:
        return
    used = {guess.column for guess in guesses.values()}
    halves = guessed([facts for facts in columns if facts.name not in used], ["debit", "credit"])
    if len(halves) < 2:
        return
    by_name = {facts.name: facts for facts in columns}
    debit, credit = halves["debit"].column, halves["credit"].column
    both = {"debit": debit, "credit": credit}
    form = by_name[debit].number or by_name[credit].number
    signs = {sign for name in both.values() if (number := by_name[name].number) for sign in number.signs}
    keys = (written_numbers(form) if form else {}) | ({"symbols": sorted(signs)} if signs else {})
    entries["amount"] = both | keys
    notes.told["amount"] = f"{halves['debit'].confidence}: of each row one of two columns is filled"
    if "direction" not in entries:
        entries["direction"] = both | keys
        notes.told["direction"] = f"{halves['debit'].confidence}: {debit} goes out, {credit} comes in"
        notes.ask("direction", f"is {debit} what the customer pays?")


def without_a_column(
    entries: dict[str, Any],
    guesses: Mapping[str, Guess],
    columns: Sequence[ColumnFacts],
    contract: DataContract,
    notes: Notes,
    *,
    labels_beside: bool,
) -> None:
    """An entry for each of the contract's columns that has none yet."""
    by_name = {facts.name: facts for facts in columns}
    for column in contract.columns:
        name = column.name
        if name in entries:
            continue
        if column.nullable:
            entries[name] = {"absent": True}
            tell_absent(name, contract, notes, labels_beside=labels_beside)
        elif name == "payment_id":
            entries[name] = _id_of_several(entries, columns, notes)
        elif name == "direction":
            entries[name] = _direction(guesses, by_name, notes)
        elif name == "channel":
            entries[name] = _channel(guesses, by_name, contract, notes)
        elif name == "category":
            entries[name] = _category(entries, contract, notes)
        else:
            notes.ask(name, "no column looks like it: name one in `from`, or a `constant`")
            entries[name] = {"from": UNDECIDED}


def tell_absent(name: str, contract: DataContract, notes: Notes, *, labels_beside: bool) -> None:
    """Say, or ask, what it means that there is no column."""
    if name == "is_fraud" and not labels_beside:
        notes.ask(name, "no column: without labels the bank has nothing to train on; a source of them may be named by "
                        "`labels` of its configuration")  # fmt: skip
    elif name == "label_time":
        notes.told[name] = f"no column: a label counts as known {contract.label.delay_days} days after its payment"
    else:
        notes.told[name] = "no column looks like it"


def _id_of_several(entries: Mapping[str, Any], columns: Sequence[ColumnFacts], notes: Notes) -> dict[str, Any]:
    """The fewest columns, of those that say what a payment is, which together are there once."""
    import pandas as pd

    by_name = {facts.name: facts for facts in columns}
    order = ["event_time", "account_id", "counterparty_id", "amount", "direction", "channel"]
    names = [each for thing in order for each in _from(entries.get(thing, {})) if each in by_name]
    # Last, columns that tell nothing of what a payment is.
    names = list(
        dict.fromkeys(
            [*names, *(facts.name for facts in columns if facts.present and not _is_label(entries, facts.name))]
        )
    )
    chosen: list[str] = []
    rows = max((facts.rows for facts in columns), default=0)
    alike = rows
    for name in names:
        texts = by_name[name].texts.reindex(range(rows)).fillna("")
        joined = pd.DataFrame(
            {**{each: by_name[each].texts.reindex(range(rows)).fillna("") for each in chosen}, name: texts}
        )
        left = int(joined.duplicated().sum())
        if left < alike or len(chosen) < 4:
            chosen.append(name)
            alike = left
        if not alike and len(chosen) >= min(4, len(names)):
            break
    if not chosen:
        notes.ask("payment_id", "no column looks like it: name one in `from`")
        return {"from": UNDECIDED}
    told = (
        "no two rows looked at are alike in them"
        if not alike
        else f"{alike} rows are alike in all and count as repeated"
    )
    notes.ask("payment_id", f"no column is an id: these together stand for one; {told}")
    return {"from": chosen}


def _is_label(entries: Mapping[str, Any], name: str) -> bool:
    return any(name in _from(entries.get(thing, {})) for thing in ("is_fraud", "label_time"))


def _from(entry: Mapping[str, Any]) -> Sequence[str]:
    if "debit" in entry:
        return (entry["debit"], entry["credit"])
    found = entry.get("from", ())
    return (found,) if isinstance(found, str) else tuple(found)


def _direction(guesses: Mapping[str, Guess], by_name: Mapping[str, ColumnFacts], notes: Notes) -> dict[str, Any]:
    amount = by_name[guesses["amount"].column] if "amount" in guesses else None
    if amount is not None and (form := amount.number) is not None and form.negative:
        throughout = (
            ", which is negative throughout: are these outgoing?"
            if form.negative == 1
            else ": is a negative one outgoing?"
        )
        notes.ask("direction", f"told by the sign of the amount{throughout}")
        # The sign is read of the same text as the amount.
        return {"sign_of": amount.name, "negative": "out"} | written_numbers(form)
    kind = by_name[guesses["channel"].column] if "channel" in guesses else None
    if kind is not None and any(is_incoming(text) for text in kind.counts):
        codes = {text: "in" if is_incoming(text) else "out" for text in meant_codes(kind)}
        incoming = ", ".join(text for text, way in codes.items() if way == "in")
        notes.ask(
            "direction", f"no column of its own: by the kind of payment, {incoming} comes in and all else goes out"
        )
        return {"from": kind.name, "codes": codes}
    notes.ask("direction", "no column: taken as outgoing throughout")
    return {"constant": "out"}


def _channel(
    guesses: Mapping[str, Guess], by_name: Mapping[str, ColumnFacts], contract: DataContract, notes: Notes
) -> dict[str, Any]:
    allowed = contract.codes("channel")
    category, account = guesses.get("category"), guesses.get("account_id")
    cards = account is not None and (by_name[account.column].looks("card") or "card" in account.reason)
    merchants = "merchant" in guesses["counterparty_id"].column.lower() if "counterparty_id" in guesses else False
    if "card" in allowed and (cards or merchants or (category is not None and "merchant" in category.reason)):
        notes.ask("channel", "no column: payments of cards by their other columns, so card throughout")
        return {"constant": "card"}
    ibans = [guesses[thing].column for thing in ("account_id", "counterparty_id") if thing in guesses]
    if "transfer" in allowed and any(by_name[name].looks("iban", 0.5) for name in ibans):
        notes.ask("channel", "no column: payments between accounts by their other columns, so transfer throughout")
        return {"constant": "transfer"}
    notes.ask("channel", f"no column looks like it: name one in `from`, or put `constant: {allowed[0]}`")
    return {"from": UNDECIDED}


def _category(entries: Mapping[str, Any], contract: DataContract, notes: Notes) -> dict[str, Any]:
    """By the channel: the contract has one category for transfers, and one for what fits nothing."""
    allowed, channel = contract.codes("category"), entries.get("channel", {})
    if not {"transfer", "other"} <= set(allowed) or channel.get("from") == UNDECIDED:
        notes.ask("category", "no column looks like it: name one in `from`, or a `constant`")
        return {"from": UNDECIDED}
    notes.ask("category", "no column: transfer for transfers, other for all else")
    if "constant" in channel:
        return {"constant": "transfer" if channel["constant"] == "transfer" else "other"}
    codes = channel.get("codes") or {code: code for code in contract.codes("channel")}
    return {
        "from": channel["from"],
        "codes": {text: "transfer" if code == "transfer" else "other" for text, code in codes.items()},
    }
