"""What decides splits besides the sums: the run's rules, and each node's limits. It finds no split.

Numba notices a changed kernel by the file it stands in, so kernels and what they call stay together in splitting.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from bank_node.dtypes import Floats, Marks, Signs
from protocol.parameters import BoostingParameters

__all__ = ["UNBOUNDED", "Limits", "SplitRules"]

UNBOUNDED = float(np.finfo(np.float32).max)
"""Bound of a weight that no monotone constraint bounds."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SplitRules:
    """The parameters that decide splits, rounded to float32 as XGBoost stores them, and the unit of the sums.

    Attributes:
        unit: Value of 1 in the integer sums, 2**-fraction_bits.
        literal_gain: Whether gains are computed from the rounded weight with the L1 term, as XGBoost 3.4 does
            always, or as the closed form without max_delta_step and without the L1 term with it (3.2).
        monotone: int8 (u,), -1, 0 or 1 for each usable feature.
        categorical: uint8 (u,), whether the bins of a usable feature are categories.
        max_cat_to_onehot: Fewer categories than this split one against the rest.
        max_cat_threshold: Most categories taken from either end of the order for a set.
    """

    unit: float
    reg_lambda: float
    reg_alpha: float
    gamma: float
    min_child_weight: float
    max_delta_step: float
    literal_gain: bool
    monotone: Signs = field(default_factory=lambda: np.empty(0, dtype=np.int8))
    categorical: Marks = field(default_factory=lambda: np.empty(0, dtype=np.uint8))
    max_cat_to_onehot: int = 4
    max_cat_threshold: int = 64

    @property
    def bounded(self) -> bool:
        """Whether any feature has a monotone constraint: gains are then computed from bounded weights."""
        return bool(self.monotone.any())

    @classmethod
    def of(
        cls,
        parameters: BoostingParameters,
        bits: int,
        names: Sequence[str] = (),
        categorical: npt.NDArray[np.bool_] | None = None,
    ) -> "SplitRules":
        """Rules of a run with these fraction bits.

        Args:
            parameters: The run's.
            bits: Fraction bits of the sums.
            names: Names of the usable features; needed when a monotone constraint names one.
            categorical: bool (u,), or None for none.
        """

        def single(value: float) -> float:
            return float(np.float32(value))

        ways = dict(parameters.monotone_constraints)
        return cls(
            unit=2.0**-bits,
            reg_lambda=single(parameters.reg_lambda),
            reg_alpha=single(parameters.reg_alpha),
            gamma=single(parameters.gamma),
            min_child_weight=single(parameters.min_child_weight),
            max_delta_step=single(parameters.max_delta_step),
            literal_gain=parameters.xgboost_arithmetic == "3.4",
            monotone=np.array([ways.get(name, 0) for name in names], dtype=np.int8),
            categorical=np.empty(0, dtype=np.uint8) if categorical is None else categorical.astype(np.uint8),
            max_cat_to_onehot=parameters.max_cat_to_onehot,
            max_cat_threshold=parameters.max_cat_threshold,
        )

    def of_features(self, count: int) -> tuple[Signs, Marks]:
        """`monotone` and `categorical`, with zeros where they were not given."""
        monotone = self.monotone if self.monotone.size else np.zeros(count, dtype=np.int8)
        return monotone, self.categorical if self.categorical.size else np.zeros(count, dtype=np.uint8)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Limits:
    """What differs from node to node.

    Attributes:
        allowed: uint8 (k, u), whether the node may split by that usable feature.
        outer: float32 (k, 2), bounds of the node's own weight, its parent's.
        inner: float32 (k, 2), bounds of its children's weights.
    """

    allowed: Marks
    outer: Floats
    inner: Floats

    @classmethod
    def none(cls, nodes: int, features: int) -> "Limits":
        """Everything is allowed."""
        bounds = np.tile(np.array([-UNBOUNDED, UNBOUNDED], dtype=np.float32), (nodes, 1))
        return cls(allowed=np.ones((nodes, features), dtype=np.uint8), outer=bounds, inner=bounds)
