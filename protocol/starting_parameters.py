"""What a training starts from where nobody gives parameters: for rare frauds. It changes no parameter that is given.

The demo, the DAGs, `open-run` and the simulator take theirs from here; docs/boosting.md has what they were chosen by.
Given parameters are whole: what they leave out is XGBoost's own default, so that equal names mean equal trees.
"""

from collections.abc import Mapping
from typing import Any, Final

__all__ = ["EARLY_STOPPING", "STARTING", "STARTING_RUNGS", "STARTING_SETS", "starting_parameters"]

#: From a base score of 0.5 the first leaves are 2 times eta at most, and all rows come down together. From a share of
#: frauds p, a first leaf of frauds alone is 1/p times eta: one leaf decides, and later trees do not put it right.
STARTING: Final[Mapping[str, Any]] = {
    "n_estimators": 60,
    "max_depth": 6,
    "eta": 0.15,
    "min_child_weight": 2.0,
    "max_bin": 64,
    "base_score": 0.5,
    "max_delta_step": 4.0,
}

#: Where a run has validation rows: so many trees at most, and so many without a better AUC-PR before it stops.
EARLY_STOPPING: Final[Mapping[str, Any]] = {"n_estimators": 300, "early_stopping_rounds": 20}

#: What a search tries where nobody says what: depth and step, with either way to keep the first leaves of rare frauds
#: small. It differs from `STARTING` in these only.
STARTING_SETS: Final[tuple[Mapping[str, Any], ...]] = tuple(
    {"max_depth": depth, "eta": eta} | start
    for start in ({"base_score": 0.5, "max_delta_step": 4.0}, {"base_score": None, "max_delta_step": 1.0})
    for depth in (4, 6, 8)
    for eta in (0.1, 0.2)
)
STARTING_RUNGS: Final = (10, 30, 90)


def starting_parameters(*, validated: bool = False, searched: bool = False) -> dict[str, Any]:
    """Parameters by XGBoost's names, for a training whose operator gave none.

    Args:
        validated: there are validation rows, by which it stops early.
        searched: it is a search, whose rungs stop instead.
    """
    if searched:
        return {name: value for name, value in STARTING.items() if name != "n_estimators"}
    return {**STARTING, **(EARLY_STOPPING if validated else {})}
