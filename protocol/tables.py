"""Tables on a terminal whose ids and column heads are never cut, however narrow it is. It fills none."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["print_table"]

#: What rich draws beside a cell: a blank on either side and a line.
_BESIDE = 3


def print_table(screen: Console, heads: Sequence[str], rows: Sequence[Sequence[str]], *, whole: Sequence[str]) -> None:
    """Print a table; where it needs more than the terminal's width, its lines are longer than that.

    Args:
        screen: where to.
        heads: the columns' heads.
        rows: the cells, as text; nothing in them is read as markup.
        whole: the heads of columns with ids, serials and the like, whose cells stay in one piece. Others are folded.
    """
    table, needed = Table(), 1
    for place, head in enumerate(heads):
        words = [word for row in rows for word in ([row[place]] if head in whole else [])]
        least = max(map(len, [*head.split(), *words]), default=1)
        table.add_column(head, min_width=least, no_wrap=head in whole, overflow="fold")
        needed += least + _BESIDE
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    before = screen.width
    try:
        screen.width = max(before, needed)
        screen.print(table, crop=False)
    finally:
        screen.width = before
