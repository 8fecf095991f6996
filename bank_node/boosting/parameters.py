"""The training parameters of a run; it reads no files and does not train.

Names and meanings are XGBoost's. All banks of a run must hold equal parameters: `to_mapping` is what the
run announces and `from_mapping` what each bank builds from it.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from bank_node.boosting.errors import ParameterError

__all__ = ["ARITHMETICS", "MAX_BINS", "MAX_DEPTH", "BoostingParameters"]

MAX_BINS = 255
"""Bins of a feature: uint8 holds 0..254 for values, and at most 255 for missing."""

MAX_DEPTH = 12
"""A level of depth d sends up to 2**(d-1) histograms; 12 keeps a message below about 100 MB."""

LAYOUTS = ("wide", "packed")
"""How a slot's gradient and hessian are sent, see `BoostingParameters`."""

ARITHMETICS = ("3.2", "3.4")
"""The versions of XGBoost's split arithmetic this engine can follow, see `BoostingParameters`."""

_ALIASES = {
    "learning_rate": "eta",
    "lambda": "reg_lambda",
    "alpha": "reg_alpha",
    "min_split_loss": "gamma",
    "num_boost_round": "n_estimators",
    "random_state": "seed",
}
_FIXED = {"objective": "binary:logistic", "tree_method": "hist", "booster": "gbtree", "grow_policy": "depthwise"}
_INTEGERS = {"n_estimators", "max_depth", "max_bin", "seed"}


@dataclass(frozen=True, slots=True, kw_only=True)
class BoostingParameters:
    """Parameters of one training, with XGBoost's names and defaults unless said otherwise.

    Attributes:
        n_estimators: Trees, 1 or more. Default 100.
        max_depth: Levels of splits, 1 to 12.
        eta: Shrinkage of leaf values, in (0, 1].
        reg_lambda: L2 penalty of leaf weights, 0 or more.
        reg_alpha: L1 penalty of leaf weights, 0 or more.
        gamma: Smallest loss reduction of a split, 0 or more.
        min_child_weight: Smallest sum of hessians of a child, 0 or more.
        max_delta_step: Largest absolute leaf weight before eta, 0 for no bound.
        scale_pos_weight: Weight of rows with label 1, above 0.
        base_score: Probability all rows start from, in (0, 1); None has it estimated from the securely
            summed counts of rows and positives.
        max_bin: Most bins of a feature, 2 to 255. Default 64 (XGBoost's is 256): histograms are sent.
        seed: Kept for later random choices; training has none yet.
        xgboost_arithmetic: "3.2" or "3.4", the XGBoost release whose split gains are followed. They differ
            beyond rounding only (a) when reg_alpha and max_delta_step are both above 0, where 3.2 leaves
            the L1 term out of the gain, and (b) in the leaf of a tree whose rows weigh less than
            min_child_weight together, which is 0 in 3.2. It is a parameter and not the installed
            version, since all banks of a run must compute the same.
        histogram_layout: "wide" sends gradient and hessian of a slot as two exact numbers: the model is XGBoost's
            own. "packed" sends them as one, rounded for choosing splits only (docs/boosting.md): half the
            ciphertexts, leaf values still exact, and the model still independent of how rows lie over banks.
    """

    n_estimators: int = 100
    max_depth: int = 6
    eta: float = 0.3
    reg_lambda: float = 1.0
    reg_alpha: float = 0.0
    gamma: float = 0.0
    min_child_weight: float = 1.0
    max_delta_step: float = 0.0
    scale_pos_weight: float = 1.0
    base_score: float | None = None
    max_bin: int = 64
    seed: int = 0
    xgboost_arithmetic: str = "3.2"
    histogram_layout: str = "wide"

    def __post_init__(self) -> None:
        """Checks types and ranges; whole floats become ints and ints become floats where due.

        Raises:
            ParameterError: Naming the parameter and its allowed range.
        """
        for field in fields(self):
            if field.name not in ("xgboost_arithmetic", "histogram_layout"):
                object.__setattr__(self, field.name, _number(field.name, getattr(self, field.name)))
        if self.xgboost_arithmetic not in ARITHMETICS:
            raise ParameterError(
                f"parameter xgboost_arithmetic must be one of {', '.join(ARITHMETICS)} (as text), "
                f"got {self.xgboost_arithmetic!r}"
            )
        if self.histogram_layout not in LAYOUTS:
            raise ParameterError(
                f"parameter histogram_layout must be {' or '.join(LAYOUTS)}, got {self.histogram_layout!r}"
            )
        _check("n_estimators", self.n_estimators, self.n_estimators >= 1, "1 or more")
        _check("max_depth", self.max_depth, 1 <= self.max_depth <= MAX_DEPTH, f"between 1 and {MAX_DEPTH}")
        _check("max_bin", self.max_bin, 2 <= self.max_bin <= MAX_BINS, f"between 2 and {MAX_BINS}")
        _check("eta", self.eta, 0.0 < self.eta <= 1.0, "above 0 and at most 1")
        for name in ("reg_lambda", "reg_alpha", "gamma", "min_child_weight", "max_delta_step"):
            value = getattr(self, name)
            _check(name, value, value >= 0.0, "0 or more")
        _check("scale_pos_weight", self.scale_pos_weight, self.scale_pos_weight > 0.0, "above 0")
        if self.base_score is not None:
            _check("base_score", self.base_score, 0.0 < self.base_score < 1.0, "above 0 and below 1")
        _check("seed", self.seed, self.seed >= 0, "0 or more")

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> "BoostingParameters":
        """Builds parameters from XGBoost's names and aliases, such as a YAML file holds.

        Args:
            mapping: Any of the attributes above; the aliases learning_rate, lambda, alpha, min_split_loss,
                num_boost_round and random_state; and objective, tree_method, booster and grow_policy,
                which may be given but have one allowed value each.

        Raises:
            ParameterError: For an unknown name, a name given twice through an alias, or a bad value.
        """
        known = {field.name for field in fields(cls)}
        values: dict[str, Any] = {}
        for name, value in mapping.items():
            if name in _FIXED:
                if value != _FIXED[name]:
                    raise ParameterError(f"parameter {name} must be {_FIXED[name]}, got {value!r}")
                continue
            target = _ALIASES.get(name, name)
            if target not in known:
                raise ParameterError(
                    f"unknown parameter {name!r}; known are {', '.join(sorted(known | set(_ALIASES) | set(_FIXED)))}"
                )
            if target in values:
                raise ParameterError(f"parameter {target} is given twice (once as {name})")
            values[target] = value
        return cls(**values)

    def to_mapping(self) -> dict[str, Any]:
        """Returns all parameters by their own names, as JSON-able values; `from_mapping` reads it back."""
        return asdict(self)


def _number(name: str, value: Any) -> int | float | None:
    if name == "base_score" and value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ParameterError(f"parameter {name} must be a finite number, got {value!r}")
    if name in _INTEGERS:
        if value != int(value):
            raise ParameterError(f"parameter {name} must be a whole number, got {value!r}")
        return int(value)
    return float(value)


def _check(name: str, value: float, good: bool, allowed: str) -> None:
    if not good:
        raise ParameterError(f"parameter {name} must be {allowed}, got {value!r}")
