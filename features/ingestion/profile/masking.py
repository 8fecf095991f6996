"""What may be shown of a column's values in a draft or a report, and how. Everything else is shown by its shape.

Numbers, times and codes that say nothing of a person are shown as they are; a text that may (a name, an account, free
text) keeps its length and marks, and nothing else: ``Müller, Hans`` is ``Xxxxxx, Xxxx``.
"""

import re
from collections.abc import Sequence

from features.ingestion.profile.facts import ColumnFacts
from features.ingestion.profile.words import is_personal

__all__ = ["masked", "may_show", "samples"]

LONGEST = 32
_PLAIN_CODE = re.compile(r"[A-Z0-9+\-]{1,4}|[a-z]+(?:_[a-z0-9]+)+|true|false|True|False|[A-Z]+(?:_[A-Z0-9]+)+")


def masked(text: str) -> str:
    """The shape of a text: letters as x or X, digits as 9, at most `LONGEST` characters of it."""
    shape = "".join("9" if c.isdigit() else "X" if c.isupper() else "x" if c.isalpha() else c for c in text[:LONGEST])
    return shape + "…" * (len(text) > LONGEST)


def may_show(facts: ColumnFacts, *, codes: bool = False) -> bool:
    """Whether the column's values may be shown as they are.

    Args:
        codes: it is taken for a column of codes, whose texts the draft has to name.
    """
    if codes and facts.counts:
        return True
    if is_personal(facts.name) or any(
        facts.shares.get(kind, 0) > 0.1 for kind in ("iban", "card", "mail", "uuid", "hash")
    ):
        return False
    if (facts.time is not None and facts.time.share > 0.9) or facts.looks("clock"):
        return True
    if facts.number is not None and facts.number.share > 0.9:
        # Whole numbers of many digits are somebody's: customers, telephones, accounts.
        return not facts.number.whole or facts.number.highest < 1e5 or facts.type == "truth"
    return bool(facts.counts) and all(_PLAIN_CODE.fullmatch(text) for text in facts.counts)


def samples(facts: ColumnFacts, most: int = 3, *, codes: bool = False) -> Sequence[str]:
    """Some different values, or their different shapes."""
    shown = may_show(facts, codes=codes)
    found: dict[str, None] = {}
    for text in facts.texts.iloc[:500]:
        found.setdefault(text[:LONGEST] if shown else masked(text))
        if len(found) == most:
            break
    return tuple(found)
