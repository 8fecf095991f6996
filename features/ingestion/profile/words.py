"""The names that banks give their columns, in several languages, and how well a header fits one. Looks at no value.

A name is compared by its words: without accents, capitals and small words, camel case split. ``Date de l'opération``
and ``operation_date`` are both made of two words; German compounds (``Buchungsdatum``) are found by their end. The
words themselves are in ``words.yaml``.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import yaml

from features.contract.strict_yaml import StrictLoader

__all__ = ["THINGS", "NameFit", "best_fits", "folded", "is_personal", "says", "word_list"]

_SMALL = frozenset(
    ["der", "die", "das", "des", "dem", "den", "von", "du", "de", "del", "della", "la", "le", "les", "el", "los", "las"]
) | {"of", "the", "di", "da", "do", "per"}


@dataclass(frozen=True, slots=True, kw_only=True)
class NameFit:
    """How well a header says a thing.

    Attributes:
        score: 0 to 1.
        reason: in words, for the human who reads the draft.
    """

    score: float
    reason: str


def folded(name: str) -> list[str]:
    """The words of a name: no accents, no capitals, no small words; ae, oe and ue as their umlauts' vowels."""
    text = name.replace("ß", "ss").replace("’", "'")
    text = re.sub(r"\b[dlDL]'", " ", text)
    text = re.sub(r"(?<=[a-zà-ÿ0-9])(?=[A-ZÀ-Þ])|(?<=[A-ZÀ-Þ])(?=[A-ZÀ-Þ][a-zà-ÿ])", " ", text)
    text = unicodedata.normalize("NFKD", text.lower())
    text = "".join(each for each in text if not unicodedata.combining(each))
    for pair, vowel in (("ae", "a"), ("oe", "o"), ("ue", "u")):
        text = text.replace(pair, vowel)
    found = re.findall(r"[a-z0-9]+", text)
    return [word for word in found if word not in _SMALL] or found


@cache
def word_list(name: str) -> Any:
    """A part of ``words.yaml``."""
    text = resources.files("features").joinpath("ingestion/profile/words.yaml").read_text(encoding="utf-8")
    return yaml.load(text, StrictLoader)[name]  # noqa: S506 a SafeLoader


_PHRASES = {
    thing: [
        (language, rank, tuple(folded(str(phrase))))
        for language, phrases in by_language.items()
        for rank, phrase in enumerate(phrases)
    ]
    for thing, by_language in word_list("names").items()
}
_AGAINST = {
    thing: ([folded(word)[0] for word in each["words"]], float(each["left"]))
    for thing, each in word_list("against").items()
}
_PERSONAL = {folded(word)[0] for word in word_list("personal")}

THINGS = tuple(_PHRASES)
"""Everything that a column can be."""


def best_fits(name: str) -> dict[str, NameFit]:
    """What a header may say, with the best fit of each thing; nothing where nothing fits."""
    # Of columns of one name the reader makes NAME#1 and NAME#2.
    words = folded(re.sub(r"#\d+$", "", name))
    found: dict[str, NameFit] = {}
    for thing in THINGS:
        fit = max(_fits(thing, words), key=lambda each: each.score, default=None)
        if fit is not None:
            found[thing] = fit
    return found


def _fits(thing: str, words: list[str]) -> Iterator[NameFit]:
    whole = "".join(words)
    left = _weakened(thing, words)
    for language, rank, phrase in _PHRASES[thing]:
        text = " ".join(phrase)
        less = min(rank, 12) * 0.01
        if "".join(phrase) == whole:
            yield NameFit(score=0.97 - less, reason=f'its name is "{text}" ({language})')
        elif _holds(words, phrase):
            score = (0.82 - 0.06 * (len(words) - len(phrase)) - less) * left
            yield NameFit(score=max(score, 0.0), reason=f'its name has "{text}" ({language})')
        elif (
            len(phrase) == 1 and len(text) >= 4 and any(each.endswith(text) or each.startswith(text) for each in words)
        ):
            score = (0.66 - less - 0.06 * (len(words) - 1)) * left
            yield NameFit(score=max(score, 0.0), reason=f'its name has "{text}" ({language})')


def _holds(words: list[str], phrase: tuple[str, ...]) -> bool:
    size = len(phrase)
    return any(tuple(words[place : place + size]) == phrase for place in range(len(words) - size + 1))


def _weakened(thing: str, words: list[str]) -> float:
    stems, left = _AGAINST.get(thing, ([], 1.0))
    # German compounds hold a word in their middle: Zahlungsempfänger.
    hit = any(word == stem if len(stem) <= 2 else _begins_or_holds(word, stem) for word in words for stem in stems)
    return left if hit else 1.0


def _begins_or_holds(word: str, stem: str) -> bool:
    return word.startswith(stem) or (len(stem) >= 5 and stem in word)


def says(name: str, *stems: str) -> bool:
    """Whether one of a name's words begins with one of the stems."""
    return any(word.startswith(stem) for word in folded(name) for stem in stems)


def is_personal(name: str) -> bool:
    """Whether a column of this name may tell of a person."""
    words = folded(name)
    return any(word in _PERSONAL for word in words) or any(
        len(stem) > 4 and stem in word for word in words for stem in _PERSONAL
    )
