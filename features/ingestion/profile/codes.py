"""Codes in several languages: which way a payment goes, how it was paid, whether it was fraud. Reads no data."""

from collections.abc import Collection, Mapping

from features.contract.standards import MINOR_UNITS
from features.ingestion.profile.words import folded, word_list

__all__ = ["DIRECTIONS", "VERDICTS", "channel_of", "currency_of", "is_incoming", "pair_of"]

Pair = Mapping[str, str | int]


def _plain(text: str) -> str:
    return " ".join(folded(text)) or text.strip()


DIRECTIONS: tuple[Pair, ...] = tuple(
    {_plain(out): "out", _plain(back): "in"} for out, back in word_list("pairs")["direction"]
)
VERDICTS: tuple[Pair, ...] = tuple({_plain(yes): 1, _plain(no): 0} for yes, no in word_list("pairs")["is_fraud"])
"""Pairs of codes, folded."""

_CARD_WORDS, _TRANSFER_WORDS, _IN_WORDS = (
    [" ".join(folded(word.replace("_", " "))) for word in word_list("codes")[kind]]
    for kind in ("card", "transfer", "incoming")
)


def pair_of(texts: Collection[str], pairs: tuple[Pair, ...]) -> dict[str, str | int] | None:
    """What each text means, if all are of one pair; one text alone is enough where all pairs agree on it."""
    plain = {text: _plain(text) for text in texts}
    if not plain:
        return None
    for pair in pairs:
        if set(plain.values()) == pair.keys():
            return {text: pair[word] for text, word in plain.items()}
    words = set(plain.values())
    meanings = {tuple(sorted((word, pair[word]) for word in words)) for pair in pairs if words <= pair.keys()}
    if len(meanings) == 1:
        known = dict(meanings.pop())
        return {text: known[word] for text, word in plain.items()}
    return None


def channel_of(text: str) -> str | None:
    """``card`` or ``transfer`` where a word in the text says so."""
    words = f" {_plain(text)} "
    for found, known in (("card", _CARD_WORDS), ("transfer", _TRANSFER_WORDS)):
        # Compounds too: Kartenzahlung, Sammelüberweisung.
        if any(f" {word} " in words or (len(word) > 4 and word in words) for word in known):
            return found
    return None


def is_incoming(text: str) -> bool:
    """Whether a kind of payment is money that comes in."""
    words = f" {_plain(text)} "
    return any(f" {word} " in words or (len(word) > 6 and word in words) for word in _IN_WORDS)


_CURRENCIES = {_plain(str(word)).lower(): code for code, words in word_list("currencies").items() for word in words}


def currency_of(text: str) -> str | None:
    """The ISO 4217 code that a word or a sign stands for, or the text itself if it is one."""
    code = text.strip().upper()
    return code if code in MINOR_UNITS else _CURRENCIES.get(_plain(text).lower())
