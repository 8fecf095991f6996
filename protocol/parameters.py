"""The training parameters of a run: names, aliases, ranges, defaults. It reads no files, trains nothing, knows no rows.

Names and meanings are XGBoost's. All banks of a run must hold equal parameters: `to_mapping` is what the
run announces and `from_mapping` what each bank builds from it. Operator and node check by the same.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from protocol.documents import did_you_mean
from protocol.errors import ParameterError

__all__ = ["ARITHMETICS", "MAX_BINS", "MAX_DEPTH", "MAX_LEAVES", "MAX_TREES", "BoostingParameters"]

MAX_TREES = 10_000
"""A tree is a round of several secure sums, a second at best, and stays in memory at every bank: so many are hours."""

MAX_BINS = 255
"""Bins of a feature: uint8 holds 0..254 for values, and at most 255 for missing."""

MAX_DEPTH = 12
"""A level of depth d sends up to 2**(d-1) histograms; 12 keeps a message below about 100 MB."""

MAX_DEPTH_LOSSGUIDE = 64
"""With loss-guided growth a message is one histogram whatever the depth; this bounds the links of a tree only."""

MAX_LEAVES = 4096
"""A bank keeps a histogram of every leaf that can still be split: 4096 of 30 kB each are 120 MB."""

LAYOUTS = ("wide", "packed")
"""How a slot's gradient and hessian are sent, see `BoostingParameters`."""

STRUCTURES = ("global", "local")
"""Whose rows decide a tree's splits, see `BoostingParameters`."""

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
_FIXED = {"objective": "binary:logistic", "tree_method": "hist", "booster": "gbtree"}
_INTEGERS = {
    "n_estimators", "max_depth", "max_bin", "seed", "max_leaves", "max_cat_to_onehot", "max_cat_threshold",
    "early_stopping_rounds",
}  # fmt: skip
_CHOICES = {
    "xgboost_arithmetic": ARITHMETICS,
    "histogram_layout": LAYOUTS,
    "grow_policy": ("depthwise", "lossguide"),
    "eval_metric": ("aucpr", "logloss"),
    "structure": STRUCTURES,
}
_LISTS = ("monotone_constraints", "interaction_constraints", "categorical_features", "learning_rates")
_HEX64 = re.compile(r"[0-9a-f]{64}\Z")
_LARGEST_NUMBER = 2**63
"""Whole numbers stay below it: XGBoost's seed is of 64 bits, and larger ones have no float."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoostingParameters:
    """Parameters of one training, with XGBoost's names and defaults unless said otherwise.

    Attributes:
        n_estimators: Trees, 1 to 10000.
        max_depth: Levels of splits, 1 to 12; with grow_policy lossguide up to 64, or 0 for no bound.
        max_leaves: Most leaves of a tree, up to 4096; 0 for no bound.
        grow_policy: "depthwise" splits a whole level at a time, "lossguide" the one leaf that gains most: one secure
            sum a split instead of one a level.
        eta: Shrinkage of leaf values, in (0, 1].
        learning_rates: The shrinkage of each tree in turn, instead of eta; the last holds for all further trees.
        reg_lambda: L2 penalty of leaf weights, 0 or more.
        reg_alpha: L1 penalty of leaf weights, 0 or more.
        gamma: Smallest loss reduction of a split, 0 or more.
        min_child_weight: Smallest sum of hessians of a child, 0 or more.
        max_delta_step: Largest absolute leaf weight before eta, 0 for no bound.
        scale_pos_weight: Weight of rows with label 1, above 0.
        base_score: Probability all rows start from, in (0, 1); None has it estimated from the securely
            summed counts of rows and positives.
        max_bin: Most bins of a feature, 2 to 255. Default 64 (XGBoost's is 256): histograms are sent.
        subsample: Share of rows each tree is grown on, in (0, 1]. A row is in when a hash of its key, the seed and the
            tree's number is small enough, so the sample does not depend on which bank holds the row.
        colsample_bytree: Share of features a tree can use, in (0, 1]; at least one, as in XGBoost.
        colsample_bylevel: Share of those that a level can use.
        colsample_bynode: Share of those that a node can use.
        seed: Decides the samples of rows and features, the same at all banks.
        monotone_constraints: (feature, 1 or -1) pairs by name, given as a mapping: the prediction never falls (1) or
            never rises (-1) with that feature.
        interaction_constraints: Sets of feature names; features on one path of a tree come from one set.
        categorical_features: Names of features whose values are category numbers from 0. They split by sets.
        max_cat_to_onehot: A categorical feature with fewer categories is split one against the rest.
        max_cat_threshold: Most categories considered for a set, counted from either end of their order.
        early_stopping_rounds: Stop after so many trees without a better metric on the validation rows of all banks,
            and drop those trees; 0 trains all.
        eval_metric: "aucpr" or "logloss", for early stopping and for choosing among parameters.
        warm_start: SHA-256 of a released model to go on from, which every bank must hold; empty to begin anew.
            n_estimators counts the new trees.
        xgboost_arithmetic: "3.2" or "3.4", the XGBoost release whose split gains are followed. They differ
            beyond rounding only (a) when reg_alpha and max_delta_step are both above 0, where 3.2 leaves
            the L1 term out of the gain, and (b) in the leaf of a tree whose rows weigh less than
            min_child_weight together, which is 0 in 3.2. It is a parameter and not the installed
            version, since all banks of a run must compute the same.
        histogram_layout: "wide" sends gradient and hessian of a slot as two exact numbers: the model is XGBoost's
            own. "packed" sends them as one, rounded for choosing splits only (docs/boosting.md): half the
            ciphertexts, leaf values still exact, and the model still independent of how rows lie over banks.
        structure: "global" finds splits in all banks' histograms. "local" is for thin links, two small sums a tree: the
            banks take turns, one grows the tree's structure by XGBoost on its own rows, all sum its leaves exactly. Two
            prices: the structure, which all banks see, tells which features and thresholds part the proposer's own
            frauds; and the model then depends on which bank holds which rows. A bank that has no frauds, or nothing
            else, is passed over. No categorical_features. histogram_layout does not matter.
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
    max_leaves: int = 0
    grow_policy: str = "depthwise"
    learning_rates: tuple[float, ...] = ()
    subsample: float = 1.0
    colsample_bytree: float = 1.0
    colsample_bylevel: float = 1.0
    colsample_bynode: float = 1.0
    seed: int = 0
    monotone_constraints: tuple[tuple[str, int], ...] = ()
    interaction_constraints: tuple[tuple[str, ...], ...] = ()
    categorical_features: tuple[str, ...] = ()
    max_cat_to_onehot: int = 4
    max_cat_threshold: int = 64
    early_stopping_rounds: int = 0
    eval_metric: str = "aucpr"
    warm_start: str = ""
    xgboost_arithmetic: str = "3.2"
    histogram_layout: str = "wide"
    structure: str = "global"

    def __post_init__(self) -> None:
        """Checks types and ranges; whole floats become ints and ints become floats where due.

        Raises:
            ParameterError: Naming the parameter and its allowed range.
        """
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in _CHOICES:
                if value not in _CHOICES[field.name]:
                    raise ParameterError(
                        f"parameter {field.name} must be one of {', '.join(_CHOICES[field.name])} (as text), "
                        f"got {_shown(value)}"
                    )
            elif field.name in _LISTS:
                object.__setattr__(self, field.name, _PARSERS[field.name](value))
            elif field.name != "warm_start":
                object.__setattr__(self, field.name, _number(field.name, value))
        _check("n_estimators", self.n_estimators, 1 <= self.n_estimators <= MAX_TREES, f"between 1 and {MAX_TREES}")
        self._check_size()
        _check("max_bin", self.max_bin, 2 <= self.max_bin <= MAX_BINS, f"between 2 and {MAX_BINS}")
        for name in ("eta", "subsample", "colsample_bytree", "colsample_bylevel", "colsample_bynode"):
            _check(name, getattr(self, name), 0.0 < getattr(self, name) <= 1.0, "above 0 and at most 1")
        for name in (
            "reg_lambda", "reg_alpha", "gamma", "min_child_weight", "max_delta_step", "seed", "max_cat_to_onehot",
            "early_stopping_rounds",
        ):  # fmt: skip
            _check(name, getattr(self, name), getattr(self, name) >= 0, "0 or more")
        _check("max_cat_threshold", self.max_cat_threshold, self.max_cat_threshold >= 1, "1 or more")
        _check("scale_pos_weight", self.scale_pos_weight, self.scale_pos_weight > 0.0, "above 0")
        if self.base_score is not None:
            _check("base_score", self.base_score, 0.0 < self.base_score < 1.0, "above 0 and below 1")
        if not isinstance(self.warm_start, str) or (self.warm_start and not _HEX64.match(self.warm_start)):
            raise ParameterError(
                "parameter warm_start must be the SHA-256 of a released model: 64 hex digits, or empty"
            )
        if self.structure == "local" and self.categorical_features:
            raise ParameterError("structure local can't split by sets: leave out categorical_features")
        both = {name for name, _ in self.monotone_constraints} & set(self.categorical_features)
        if both:
            raise ParameterError(f"feature {min(both)} is categorical, so monotone_constraints can't name it")

    def _check_size(self) -> None:
        deepest = MAX_DEPTH_LOSSGUIDE if self.grow_policy == "lossguide" else MAX_DEPTH
        least = 0 if self.grow_policy == "lossguide" else 1
        _check("max_depth", self.max_depth, least <= self.max_depth <= deepest, f"between {least} and {deepest}")
        _check(
            "max_leaves",
            self.max_leaves,
            self.max_leaves == 0 or 2 <= self.max_leaves <= MAX_LEAVES,
            f"0 or between 2 and {MAX_LEAVES}",
        )
        if self.max_leaves == 0 and (self.max_depth == 0 or self.max_depth > MAX_DEPTH):
            raise ParameterError(f"a max_depth of 0 or above {MAX_DEPTH} needs max_leaves: something must bound a tree")

    def check_features(self, feature_names: Sequence[str]) -> None:
        """Checks that all features the parameters name are among those trained on.

        Raises:
            ParameterError: Naming the parameter and the unknown feature.
        """
        named = {
            "monotone_constraints": [name for name, _ in self.monotone_constraints],
            "interaction_constraints": [name for group in self.interaction_constraints for name in group],
            "categorical_features": list(self.categorical_features),
        }
        known = set(feature_names)
        for parameter, names in named.items():
            for name in names:
                if name not in known:
                    raise ParameterError(f"parameter {parameter} names a feature {name!r} that is not trained on")

    def rate(self, round_index: int) -> float:
        """The shrinkage of a tree, by its number from 0."""
        if not self.learning_rates:
            return self.eta
        return self.learning_rates[min(round_index, len(self.learning_rates) - 1)]

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> "BoostingParameters":
        """Builds parameters from XGBoost's names and aliases, such as a YAML file holds.

        Args:
            mapping: Any of the attributes above; the aliases learning_rate, lambda, alpha, min_split_loss,
                num_boost_round and random_state; and objective, tree_method and booster, which may be given but
                have one allowed value each.

        Raises:
            ParameterError: For an unknown name, a name given twice through an alias, or a bad value.
        """
        return cls(**cls.canonical(mapping))

    @classmethod
    def canonical(cls, mapping: Mapping[str, Any]) -> dict[str, Any]:
        """A mapping as `from_mapping` takes it under the attributes' own names; values are not looked at.

        Raises:
            ParameterError: For an unknown name, a name given twice through an alias, or an objective, tree_method or
                booster other than ours.
        """
        known = {field.name for field in fields(cls)}
        values: dict[str, Any] = {}
        for name, value in mapping.items():
            if name in _FIXED:
                if value != _FIXED[name]:
                    raise ParameterError(f"parameter {name} must be {_FIXED[name]}, got {_shown(value)}")
                continue
            target = _ALIASES.get(name, name)
            if target not in known:
                names = sorted(known | set(_ALIASES) | set(_FIXED))
                raise ParameterError(
                    f"unknown parameter {str(name)[:64]!r}{did_you_mean(str(name), names)}; "
                    f"known are {', '.join(names)}"
                )
            if target in values:
                raise ParameterError(f"parameter {target} is given twice (once as {name})")
            values[target] = value
        return values

    def to_mapping(self) -> dict[str, Any]:
        """Returns all parameters by their own names, as JSON-able values; `from_mapping` reads it back."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return values | {
            "monotone_constraints": dict(self.monotone_constraints),
            "interaction_constraints": [list(group) for group in self.interaction_constraints],
            "categorical_features": list(self.categorical_features),
            "learning_rates": list(self.learning_rates),
        }


def _number(name: str, value: Any) -> int | float | None:
    if name == "base_score" and value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not _finite(value):
        raise ParameterError(f"parameter {name} must be a finite number, got {_shown(value)}")
    if name in _INTEGERS:
        if value != int(value):
            raise ParameterError(f"parameter {name} must be a whole number, got {_shown(value)}")
        return int(value)
    return float(value)


def _finite(value: float) -> bool:
    return abs(value) < _LARGEST_NUMBER if isinstance(value, int) else math.isfinite(value)


def _shown(value: Any) -> str:
    """A wrong value in an error, cut where a peer could make it long."""
    try:
        text = repr(value)
    except ValueError:  # CPython writes no whole number of more than some 4000 digits
        return "a number too large to write"
    return text if len(text) <= 64 else f"{text[:64]}…"


def _check(name: str, value: float, good: bool, allowed: str) -> None:
    if not good:
        raise ParameterError(f"parameter {name} must be {allowed}, got {_shown(value)}")


def _monotone(value: Any) -> tuple[tuple[str, int], ...]:
    pairs = list(value.items()) if isinstance(value, Mapping) else value
    good = isinstance(pairs, (list, tuple)) and all(
        isinstance(pair, (list, tuple)) and len(pair) == 2 and isinstance(pair[0], str) and pair[1] in (-1, 0, 1)
        for pair in pairs
    )
    if not good:
        raise ParameterError("parameter monotone_constraints must map feature names to 1, 0 or -1")
    _no_repeats("monotone_constraints", [name for name, _ in pairs])
    return tuple(sorted((name, int(way)) for name, way in pairs if way))


def _groups(value: Any) -> tuple[tuple[str, ...], ...]:
    if not isinstance(value, (list, tuple)) or any(isinstance(group, str) for group in value):
        raise ParameterError("parameter interaction_constraints must be a list of lists of feature names")
    return tuple(_names("interaction_constraints", group) for group in value)


def _names(parameter: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(name, str) and name for name in value):
        raise ParameterError(f"parameter {parameter} must list feature names")
    _no_repeats(parameter, list(value))
    return tuple(value)


def _no_repeats(parameter: str, names: list[str]) -> None:
    if len(set(names)) != len(names):
        raise ParameterError(f"parameter {parameter} names a feature twice")


def _rates(value: Any) -> tuple[float, ...]:
    if not isinstance(value, (list, tuple)):
        raise ParameterError("parameter learning_rates must be a list of numbers")
    if len(value) > MAX_TREES:
        raise ParameterError(f"parameter learning_rates must have {MAX_TREES} numbers at most, not {len(value)}")
    rates = tuple(float(_number("learning_rates", rate) or 0.0) for rate in value)
    for rate in rates:
        _check("learning_rates", rate, 0.0 < rate <= 1.0, "above 0 and at most 1")
    return rates


_PARSERS = {
    "monotone_constraints": _monotone,
    "interaction_constraints": _groups,
    "categorical_features": lambda value: _names("categorical_features", value),
    "learning_rates": _rates,
}
