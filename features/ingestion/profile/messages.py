"""What a draft says of messages and statements, whose columns the format names. Guesses no column.

What no format tells is asked: which transfers are the bank's own, who is meant where an entry has no counterparty, how
references repeat.
"""

from collections.abc import Mapping
from typing import Any

from features.contract.mapping import UNDECIDED
from features.contract.schema import DataContract
from features.ingestion.profile.entries import Notes
from features.ingestion.profile.facts import ColumnFacts
from features.ingestion.profile.fallbacks import tell_absent

__all__ = ["known_columns", "told_by_messages"]

_COLUMNS = {
    "payment_id": "payment_id",
    "event_time": "time",
    "account_id": "account",
    "counterparty_id": "counterparty",
    "counterparty_bank": "counterparty_agent",
    "direction": "direction",
    "amount": "amount",
}


def known_columns(contract: DataContract) -> dict[str, str]:
    """The contract's columns that messages have, each with its name there."""
    known = {column.name for column in contract.columns}
    return {name: source for name, source in _COLUMNS.items() if name in known}


def told_by_messages(
    entries: dict[str, Any],
    settings: dict[str, Any],
    by_name: Mapping[str, ColumnFacts],
    contract: DataContract,
    notes: Notes,
) -> None:
    """Complete the entries, and ask what messages leave open."""
    if by_name["direction"].missing:
        settings["own_agents"] = []
        notes.asked.pop("direction", None)
        notes.ask("own_agents", "the bank's own BICs, by which a message tells outgoing from incoming")
    others = by_name["counterparty"]
    if others.missing and by_name["bank_code"].present:
        notes.asked.pop("counterparty_id", None)
        share = others.missing / others.rows
        notes.ask("counterparty_id", f"{share:.1%} of the rows name none, such as fees: taken by their bank code")
        entries["counterparty_id"] = {"first_of": ["counterparty", "bank_code"]}
    if "bank_reference" in by_name:
        notes.ask(
            "payment_id",
            "account, bank's reference and day, or the place in the statement where there is none; write "
            "`from: bank_reference` if these are never used again, so that labels can name them",
        )
    for column in contract.columns:
        name = column.name
        if name in entries:
            continue
        if name in ("channel", "category") and "transfer" in contract.codes(name):
            entries[name] = {"constant": "transfer"}
            notes.told[name] = "messages and statements are of transfers"
        elif column.nullable:
            entries[name] = {"absent": True}
            tell_absent(name, contract, notes, labels_beside=False)
        else:
            notes.ask(name, "messages have no such column: write a `constant`")
            entries[name] = {"from": UNDECIDED}
