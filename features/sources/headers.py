"""The names in a table's header line, each of them usable: trimmed, none empty, none twice. Reads no file."""

from collections import Counter
from collections.abc import Sequence

__all__ = ["usable_names"]


def usable_names(cells: Sequence[str]) -> list[str]:
    """One name a column, in order.

    A cell without text becomes ``column_N`` by its place from 1 (the index of a data frame, a delimiter at the end of
    each line). Cells of one text become ``NAME#1``, ``NAME#2``: none of them is ``NAME``, so that a mapping must say
    which it means.
    """
    trimmed = [cell.strip() for cell in cells]
    times = Counter(trimmed)
    seen: Counter[str] = Counter()
    names: list[str] = []
    for place, name in enumerate(trimmed, start=1):
        seen[name] += 1
        if not name:
            names.append(f"column_{place}")
        else:
            names.append(f"{name}#{seen[name]}" if times[name] > 1 else name)
    # A name made here may be another column's own: the file's word stays, ours grows.
    for place in range(len(names)):
        while names.count(names[place]) > 1 and names[place] != trimmed[place]:
            names[place] += "_"
    return names
