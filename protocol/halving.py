"""Successive halving as numbers: how many parameter sets are left at each rung, and how many trees that makes."""

from collections.abc import Sequence

__all__ = ["check_rungs", "sets_at_rungs", "total_trees"]


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
