"""In which currency a draft takes amounts to be: by a column, by signs beside amounts, or asked. Converts nothing."""

from collections.abc import Mapping
from typing import Any

from features.contract.schema import DataContract
from features.ingestion.profile.codes import currency_of
from features.ingestion.profile.entries import Notes, meant_codes
from features.ingestion.profile.facts import ColumnFacts
from features.ingestion.profile.guessing import Guess

__all__ = ["currency_setting"]


def currency_setting(
    guess: Guess | None,
    amount: ColumnFacts | None,
    by_name: Mapping[str, ColumnFacts],
    contract: DataContract,
    notes: Notes,
) -> dict[str, Any]:
    """The section ``currency``, and what is asked of it.

    Args:
        guess: the column of currencies, if there is one.
        amount: the column of amounts, for signs beside them.
    """
    own = contract.currency
    if guess is not None:
        texts = meant_codes(by_name[guess.column])
        known = {text: currency_of(text) for text in texts}
        words = {text: code for text, code in known.items() if code is not None and code != text.strip().upper()}
        unknown = [text for text, code in known.items() if code is None]
        if unknown:
            shown = ", ".join(unknown[:5])
            notes.ask("currency", f"no currencies of ISO 4217: {shown}; add `codes`, or their rows are quarantined")
        if set(known.values()) - {own, None}:
            _ask_rates(contract, notes)
        return {"from": guess.column} | ({"codes": words} if words else {})
    signs = amount.number.signs if amount is not None and amount.number is not None else ()
    told = {code for sign in signs if (code := currency_of(sign)) is not None}
    if len(told) == 1:
        (code,) = told
        notes.ask("currency", f"no column of them: {code} by the signs beside the amounts; is it so throughout?")
        if code != own:
            _ask_rates(contract, notes)
        return {"constant": code}
    notes.ask(
        "currency", f"no column of them: are all amounts in {own}, the contract's? If not, write which, and `rates`"
    )
    return {"constant": own}


def _ask_rates(contract: DataContract, notes: Notes) -> None:
    own = contract.currency
    notes.ask(
        "currency",
        f"other currencies than the contract's {own} need rates: add `rates: rates.csv`, lines of day,currency,rate, "
        f"where rate is how many {own} one of it is worth",
    )
