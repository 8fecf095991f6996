"""Successive halving as numbers: how many parameter sets are left at each rung, and how many trees that makes."""

from collections.abc import Mapping, Sequence

__all__ = ["check_rungs", "sets_at_rungs", "total_trees", "tuning_rounds"]


def sets_at_rungs(sets: int, rungs: Sequence[int]) -> list[int]:
    """How many sets are trained up to each rung: all, then always the better half, rounded up."""
    left = [sets]
    for _ in rungs[1:]:
        left.append((left[-1] + 1) // 2)
    return left


def check_rungs(rungs: Sequence[int]) -> None:
    """Refuse rungs that are no increasing numbers of trees, from 1 on.

    Raises:
        ValueError: says so.
    """
    whole = all(isinstance(rung, int) and not isinstance(rung, bool) for rung in rungs)
    if not rungs or not whole or any(later <= earlier for earlier, later in zip((0, *rungs), rungs, strict=False)):
        raise ValueError("rungs must be increasing numbers of trees, from 1 on")


def total_trees(sets: int, rungs: Sequence[int]) -> int:
    """Trees that a tuning run grows in all; sets go on from their own trees.

    Raises:
        ValueError: rungs are no increasing numbers of trees.
    """
    check_rungs(rungs)
    grown = [rung - before for before, rung in zip([0, *rungs], rungs, strict=False)]
    return sum(left * trees for left, trees in zip(sets_at_rungs(sets, rungs), grown, strict=True))


def tuning_rounds(tuning: object, validate_from: object) -> int:
    """Rounds of a run that searches, from what its operator wrote.

    Args:
        tuning: to be a mapping with a list of ``sets`` and a list of ``rungs``.
        validate_from: where the rows begin that judge the sets; a run without them can't search.

    Raises:
        ValueError: says what is wrong.
    """
    if not isinstance(tuning, Mapping) or set(tuning) != {"sets", "rungs"}:
        raise ValueError("tuning must have sets and rungs, and nothing else")
    sets, rungs = tuning["sets"], tuning["rungs"]
    if not isinstance(sets, list) or not isinstance(rungs, list):
        raise ValueError("tuning needs a list of sets and a list of rungs")
    if validate_from is None:
        raise ValueError("tuning needs validate_from: rows that judge the sets")
    return total_trees(len(sets), rungs)
