"""Tables and marked blocks of Markdown. It knows nothing of what they say."""

import re
from collections.abc import Iterable, Sequence

__all__ = ["cell", "put_block", "read_block", "table"]


def cell(text: object) -> str:
    """Text for a table's cell: one line, no bar that would end it."""
    return re.sub(r"\s+", " ", str(text)).strip().replace("|", "\\|")


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table with a line at its end."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(cell(value) for value in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _parts(text: str, kind: str, name: str) -> tuple[str, str, str, str]:
    """What is before a block, its first line, what is in it, and the rest from its last line on.

    Raises:
        ValueError: the block is not there, or there twice.
    """
    pattern = rf"^<!-- {kind}: {re.escape(name)}(?:;[^\n]*)? -->\n"
    begins = list(re.finditer(pattern, text, re.MULTILINE))
    end = f"<!-- end of {name} -->"
    if len(begins) != 1 or text.count(end) != 1 or text.index(end) < begins[0].end():
        raise ValueError(f"there must be one block '{name}', from <!-- {kind}: {name} --> to {end}")
    start, inside, stop = begins[0].start(), begins[0].end(), text.index(end)
    return text[:start], text[start:inside], text[inside:stop], text[stop:]


def read_block(text: str, kind: str, name: str) -> tuple[str, str]:
    """A block's first line and what is in it.

    Raises:
        ValueError: there is no such block, or two.
    """
    _, first, inside, _ = _parts(text, kind, name)
    return first, inside


def put_block(text: str, kind: str, name: str, inside: str, note: str) -> str:
    """The text with a block's inside and the note in its first line replaced.

    Raises:
        ValueError: there is no such block, or two.
    """
    before, _, _, rest = _parts(text, kind, name)
    return f"{before}<!-- {kind}: {name}; {note} -->\n{inside}{rest}"
