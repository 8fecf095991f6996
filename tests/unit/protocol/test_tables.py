"""Ids and heads of tables stay whole on a terminal of any width; the rest is folded, and nothing is markup."""

import io

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from protocol.tables import print_table

HEADS = ("run", "bytes received", "reason")


def _printed(rows: list[tuple[str, str, str]], width: int) -> str:
    file = io.StringIO()
    screen = Console(file=file, width=width, force_terminal=False)
    print_table(screen, HEADS, rows, whole=("run", "bytes received"))
    assert screen.width == width
    return file.getvalue()


@given(
    ids=st.lists(st.text("abcdef0123456789-_.", min_size=1, max_size=64), min_size=1, max_size=5),
    reason=st.text("abc [/]", max_size=300),
    width=st.integers(1, 200),
)
def test_no_id_or_head_is_cut(ids: list[str], reason: str, width: int) -> None:
    text = _printed([(name, "1.0 MB", reason) for name in ids], width)
    lines = text.splitlines()
    assert all(any(name in line for line in lines) for name in ids)
    assert "run" in lines[1] and "reason" in text and "…" not in text
    assert text.count("1.0 MB") == len(ids)
    words = "".join(reason.split())
    cells = "".join(line.split("│")[3].strip() for line in lines if line.startswith("│"))
    assert "".join(cells.split()) == words * len(ids)


def test_a_table_that_fits_is_no_wider_than_the_terminal() -> None:
    assert max(map(len, _printed([("run-1", "1.0 MB", "x " * 200)], 80).splitlines())) <= 80
