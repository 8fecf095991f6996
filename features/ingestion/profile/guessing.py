"""Which column of the bank's is meant by each thing a mapping needs, by name and by values, and which others could be.

A guess has a reason and a confidence. A label is never told by its values alone, and no column is taken whose values
can't be what it would have to be.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from features.ingestion.profile.codes import DIRECTIONS, VERDICTS, channel_of, pair_of
from features.ingestion.profile.facts import ColumnFacts
from features.ingestion.profile.words import THINGS, best_fits, folded, says

__all__ = ["Guess", "Guesses", "guessed", "is_day_number"]

ACCEPTED = 0.45
"""A fit below this is none."""

CLOSE = 0.3
"""Another column whose fit is at most this far behind could be meant as well."""

_SURE, _LIKELY = 0.85, 0.65


@dataclass(frozen=True, slots=True, kw_only=True)
class Guess:
    """One column for one thing.

    Attributes:
        score: 0 to 1, to compare guesses with; not a probability.
        rivals: other columns that could be meant, the likeliest first.
    """

    column: str
    score: float
    reason: str
    rivals: tuple[str, ...] = ()

    @property
    def confidence(self) -> str:
        """In one word: sure, likely, or a guess."""
        return "sure" if self.score >= _SURE else "likely" if self.score >= _LIKELY else "a guess"


Guesses = Mapping[str, Guess]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fit:
    thing: str
    facts: ColumnFacts
    score: float
    reason: str


def guessed(columns: Sequence[ColumnFacts], things: Sequence[str]) -> Guesses:
    """The likeliest column of each thing; each column is used once.

    Args:
        things: some of `words.THINGS`; what no column fits is left out of the result.
    """
    fits = [fit for facts in columns for fit in _fits(facts, columns, things) if fit.score >= ACCEPTED]
    fits.sort(key=lambda fit: (-round(fit.score, 6), things.index(fit.thing), fit.facts.place))
    chosen: dict[str, _Fit] = {}
    for fit in fits:
        if fit.thing not in chosen and all(fit.facts is not other.facts for other in chosen.values()):
            chosen[fit.thing] = fit
    _second_of_one_name(chosen, columns, things)
    found = {}
    for thing, fit in chosen.items():
        taken = {
            other.facts.name for name, other in chosen.items() if name != thing and other.score >= fit.score - 0.05
        }
        rivals = [
            other.facts.name
            for other in fits
            if other.thing == thing and other.facts is not fit.facts and other.facts.name not in taken
            and other.score >= fit.score - CLOSE
        ]  # fmt: skip
        if thing == "is_fraud":
            rivals += [name for name in _also_labels(columns, fit.facts) if name not in rivals]
        found[thing] = Guess(column=fit.facts.name, score=fit.score, reason=fit.reason, rivals=tuple(rivals))
    return found


def _fits(facts: ColumnFacts, columns: Sequence[ColumnFacts], things: Sequence[str]) -> list[_Fit]:
    named = best_fits(facts.name)
    judged = {}
    for thing in things:
        factor, alone, why = _by_values(thing, facts, columns)
        if folded(facts.name) == folded(thing):
            # The contract's own name: it is this column, whatever is wrong with its values.
            factor = max(factor, 0.6)
        judged[thing] = (named[thing].score * factor if thing in named else 0.0, alone, why)
    # What a name says for sure is not told otherwise by values.
    said = max((by_name for by_name, *_ in judged.values()), default=0.0) >= _LIKELY
    found = []
    for thing, (by_name, alone, why) in judged.items():
        score, reason = 0.0 if said else alone, why
        if by_name >= score and thing in named:
            score, reason = by_name, f"{named[thing].reason}{'; ' * bool(why)}{why}"
        found.append(_Fit(thing=thing, facts=facts, score=min(score, 0.99), reason=reason))
    return found


def _by_values(thing: str, facts: ColumnFacts, columns: Sequence[ColumnFacts]) -> tuple[float, float, str]:
    """How the values fit a thing: what a name's fit is multiplied by, the fit without a name, and why."""
    if not facts.present:
        # A column without a value can be anything by its name.
        return 0.8, 0.0, "it has no value in the rows looked at"
    return _VALUE_RULES[thing](facts, columns)


def _is_time(facts: ColumnFacts) -> bool:
    return facts.time is not None and facts.time.share >= 0.5


def _is_number(facts: ColumnFacts) -> bool:
    return facts.number is not None and facts.number.share >= 0.5


def is_day_number(facts: ColumnFacts) -> bool:
    """Whether its numbers are days as spreadsheets count them, from 1990 to 2100."""
    form = facts.number
    return form is not None and form.share >= 0.9 and form.lowest >= 32_874 and form.highest <= 73_051


def _decimal(facts: ColumnFacts) -> bool:
    return _is_number(facts) and facts.number is not None and not facts.number.whole


def _payment_id(facts: ColumnFacts, columns: Sequence[ColumnFacts]) -> tuple[float, float, str]:
    if _decimal(facts) or (facts.time is not None and facts.time.format):
        return 0.0, 0.0, ""
    share = facts.distinct / facts.present
    if share < 0.5 or facts.missing > 0.5 * facts.rows:
        return 0.4, 0.0, f"only {facts.distinct} different values in {facts.present} rows"
    if facts.unique:
        if facts.texts.iloc[:100].str.contains(" ").any():
            return 1.0, 0.0, "every value is another"
        counter = facts.looks("digits") and facts.place == 0 and not folded(facts.name)
        alone = 0.58 if facts.looks("uuid") or facts.looks("hash") else 0.46 if not facts.looks("digits") else 0.0
        return 1.05, 0.0 if _is_time(facts) else 0.46 if counter else alone, "every value is another"
    return (1.0 if share >= 0.9 else 0.8), 0.0, f"{share:.1%} of its values are different"


def _time(facts: ColumnFacts, columns: Sequence[ColumnFacts]) -> tuple[float, float, str]:
    if not _is_time(facts) or facts.time is None:
        if is_day_number(facts):
            return 0.85, 0.0, "day numbers of a spreadsheet"
        steps = _is_number(facts) and folded(facts.name) in (["step"], ["hour"], ["hours"], ["day"], ["time"])
        return (0.75 if steps else 0.0), 0.0, "numbers that grow from a start" if steps else ""
    others = [other for other in columns if other is not facts and _is_time(other) and not other.missing]
    why = "days" if facts.time.days_only else "times"
    words = folded(facts.name)
    # The day on which money is moved, not on which it was spent.
    later = says(facts.name, "valu", "wertstell", "valeur", "valor", "settle", "rente") and len(words) <= 2
    factor = 0.8 if later else 0.95 if facts.time.days_only else 1.0
    named = bool(set(best_fits(facts.name)) & {"label_time", "version"}) or says(facts.name, "birth", "geburt", "expir")
    return factor, 0.0 if facts.missing or named else 0.46 if others else 0.6, why


def _label_time(facts: ColumnFacts, columns: Sequence[ColumnFacts]) -> tuple[float, float, str]:
    return (1.0, 0.0, "times") if _is_time(facts) else (0.0, 0.0, "")


def _account(facts: ColumnFacts, columns: Sequence[ColumnFacts]) -> tuple[float, float, str]:
    if _decimal(facts) or facts.type == "truth" or (facts.time is not None and facts.time.format):
        return 0.0, 0.0, ""
    if facts.looks("iban", 0.5):
        rivals = [other for other in columns if other.looks("iban", 0.5) and other.distinct < facts.distinct]
        return 1.1, 0.5 if not rivals else 0.3, "account numbers (IBAN)"
    if facts.looks("card"):
        return 1.1, 0.5, "card numbers"
    return 1.0, 0.0, f"{facts.distinct} different values"


def _counterparty(facts: ColumnFacts, columns: Sequence[ColumnFacts]) -> tuple[float, float, str]:
    if _decimal(facts) or facts.type == "truth" or (facts.time is not None and facts.time.format):
        return 0.0, 0.0, ""
    factor = 0.8 if says(facts.name, "name", "nom", "nombre") and not says(facts.name, "dest", "id") else 1.0
    if facts.looks("iban", 0.5):
        return 1.1, 0.46, "account numbers (IBAN)"
    return factor, 0.0, f"{facts.distinct} different values"


def _bank(facts: ColumnFacts, columns: Sequence[ColumnFacts]) -> tuple[float, float, str]:
    if facts.looks("bic") and not facts.looks("currency"):
        return 1.1, 0.6, "codes of banks (BIC)"
    return (0.0, 0.0, "") if _decimal(facts) or _is_time(facts) else (0.9, 0.0, "")


def _country(facts: ColumnFacts, columns: Sequence[ColumnFacts]) -> tuple[float, float, str]:
    return (1.1, 0.0, "country codes") if facts.looks("country") else (0.7, 0.0, "")


def _device(facts: ColumnFacts, columns: Sequence[ColumnFacts]) -> tuple[float, float, str]:
    return (0.0, 0.0, "") if _decimal(facts) else (1.0, 0.0, f"{facts.distinct} different values")


def _direction(facts: ColumnFacts, columns: Sequence[ColumnFacts]) -> tuple[float, float, str]:
    found = pair_of(_meant(facts), DIRECTIONS)
    if found is None:
        return (0.6 if 0 < len(facts.counts) <= 4 else 0.0), 0.0, ""
    shown = " and ".join(sorted(found))
    return 1.1, 0.75 if len(found) == 2 else 0.0, f"its codes {shown} say which way money goes"


def _channel(facts: ColumnFacts, columns: Sequence[ColumnFacts]) -> tuple[float, float, str]:
    if not facts.counts or _decimal(facts) or _is_time(facts) or facts.looks("mcc"):
        return 0.0, 0.0, ""
    known = sum(channel_of(text) is not None for text in facts.counts)
    if known:
        return 1.1, 0.6 if known * 2 >= len(facts.counts) else 0.4, f"{known} of its {len(facts.counts)} codes say how"
    return (0.8 if facts.distinct > 1 else 0.5), 0.0, f"{len(facts.counts)} codes"


def _amount(facts: ColumnFacts, columns: Sequence[ColumnFacts]) -> tuple[float, float, str]:
    if not _is_number(facts) or facts.number is None or (facts.looks("digits") and facts.unique):
        return 0.0, 0.0, ""
    others = [
        other for other in columns if other is not facts and other.number is not None and other.number.mostly_cents
    ]
    alone = 0.55 if facts.number.mostly_cents and not others else 0.0
    words = f"numbers from {facts.number.lowest:,.2f} to {facts.number.highest:,.2f}"
    return (1.05 if facts.number.mostly_cents else 1.0), alone, words


def _category(facts: ColumnFacts, columns: Sequence[ColumnFacts]) -> tuple[float, float, str]:
    if facts.looks("mcc") and not facts.unique and facts.distinct > 1:
        named = says(facts.name, "mcc", "merch", "cat", "branch", "rubro", "code")
        return 1.1, 0.55 if named else 0.0, "merchant category codes (ISO 18245)"
    if not facts.counts or _decimal(facts) or _is_time(facts):
        return 0.0, 0.0, ""
    return 0.95, 0.0, f"{len(facts.counts)} codes"


def _label(facts: ColumnFacts, columns: Sequence[ColumnFacts]) -> tuple[float, float, str]:
    meant = _meant(facts)
    if not 0 < len(meant) <= 6 or (_decimal(facts) and len(meant) > 2):
        return 0.0, 0.0, ""
    shown = ", ".join(f"{text} in {facts.counts[text] / facts.rows:.2%}" for text in list(meant)[:3])
    return (1.0 if pair_of(_zero_one(meant), VERDICTS) else 0.7), 0.0, f"{shown} of the rows"


def _zero_one(texts: Sequence[str]) -> list[str]:
    return [text[:1] if text in ("0.0", "1.0") else text for text in texts]


def _currency(facts: ColumnFacts, columns: Sequence[ColumnFacts]) -> tuple[float, float, str]:
    if facts.looks("currency", 0.8):
        return 1.1, 0.7, "codes of currencies (ISO 4217)"
    return (0.9, 0.0, "") if facts.counts and not _is_number(facts) and not _is_time(facts) else (0.0, 0.0, "")


def _version(facts: ColumnFacts, columns: Sequence[ColumnFacts]) -> tuple[float, float, str]:
    return (1.0, 0.0, "") if (_is_time(facts) or _is_number(facts)) and not facts.missing else (0.0, 0.0, "")


def _half_amount(facts: ColumnFacts, columns: Sequence[ColumnFacts]) -> tuple[float, float, str]:
    return (1.0, 0.0, "numbers") if _is_number(facts) and facts.missing + _zeros(facts) > 0 else (0.0, 0.0, "")


def _zeros(facts: ColumnFacts) -> int:
    return int(facts.texts.str.fullmatch(r"0+([.,]0+)?").sum())


def _clock(facts: ColumnFacts, columns: Sequence[ColumnFacts]) -> tuple[float, float, str]:
    return (1.1, 0.5, "times of day") if facts.looks("clock") else (0.0, 0.0, "")


_VALUE_RULES = {
    "payment_id": _payment_id,
    "event_time": _time,
    "label_time": _label_time,
    "account_id": _account,
    "counterparty_id": _counterparty,
    "counterparty_bank": _bank,
    "counterparty_country": _country,
    "device_id": _device,
    "direction": _direction,
    "channel": _channel,
    "amount": _amount,
    "category": _category,
    "is_fraud": _label,
    "currency": _currency,
    "version": _version,
    "debit": _half_amount,
    "credit": _half_amount,
    "clock": _clock,
}
assert _VALUE_RULES.keys() == set(THINGS)


def _meant(facts: ColumnFacts) -> list[str]:
    """The codes, without words for no value."""
    return [text for text in facts.counts if text not in facts.null_words or text == "-"]


def _second_of_one_name(chosen: dict[str, _Fit], columns: Sequence[ColumnFacts], things: Sequence[str]) -> None:
    """A second column of the account's name is the other account: of two columns Account the payer's stands first."""
    account = chosen.get("account_id")
    if account is None or "counterparty_id" not in things or "counterparty_id" in chosen:
        return
    used = [fit.facts for fit in chosen.values()]
    base = [word for word in folded(account.facts.name) if not word.isdigit()]
    for facts in columns:
        words = folded(facts.name)
        if facts.place > account.facts.place and facts not in used and [w for w in words if not w.isdigit()] == base:
            chosen["counterparty_id"] = _Fit(
                thing="counterparty_id", facts=facts, score=0.6, reason="a second column of the account's name"
            )
            return


def _also_labels(columns: Sequence[ColumnFacts], label: ColumnFacts) -> list[str]:
    """Other columns with two values whose name speaks of fraud: a bank's own rule, say, that is no verdict."""
    return [
        facts.name
        for facts in columns
        if facts is not label
        and 0 < len(_meant(facts)) <= 3
        and any(word in "".join(folded(facts.name)) for word in ("fraud", "betrug", "frode", "launder", "chargeback"))
    ]
