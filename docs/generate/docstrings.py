"""Reads what the code says of itself: first paragraphs, and the entries under ``Attributes:``. It writes nothing."""

import inspect
import re
from typing import Any

__all__ = ["attributes", "summary", "words"]

_SECTION = re.compile(r"^(Args|Attributes|Raises|Returns|Example|Examples|Note):\s*$")


def words(text: str) -> str:
    """Text on one line, with Markdown's quotes for code instead of docstrings' double ones."""
    return re.sub(r"``([^`]+)``", r"`\1`", " ".join(text.split()))


def summary(thing: Any) -> str:
    """What a docstring says before its first section, on one line.

    Raises:
        LookupError: there is no docstring of its own.
    """
    text = thing.__doc__
    if not text:
        raise LookupError(f"{thing.__qualname__} has no docstring")
    lines = []
    for line in inspect.cleandoc(text).splitlines():
        if _SECTION.match(line):
            break
        lines.append(line)
    return words("\n".join(lines))


def attributes(thing: type) -> dict[str, str]:
    """Name and meaning of each entry under ``Attributes:`` of a class and its bases; the class's own wins."""
    found: dict[str, str] = {}
    for base in reversed(thing.__mro__):
        found |= _entries(inspect.cleandoc(base.__dict__.get("__doc__") or ""))
    return found


def _entries(text: str) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    current: list[str] | None = None
    inside = False
    for line in text.splitlines():
        if _SECTION.match(line):
            inside, current = line.startswith("Attributes"), None
        elif inside and (match := re.match(r"^    (\w+(?:, \w+)*): (.*)$", line)):
            current = [match.group(2)]
            for name in match.group(1).split(", "):
                found[name] = current
        elif inside and current is not None and line.startswith("        "):
            current.append(line.strip())
    return {name: words(" ".join(lines)) for name, lines in found.items()}
