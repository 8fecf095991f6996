"""Local structure mode: whose turn it is to propose a tree, and the tree, grown by XGBoost on the bank's own rows.

A structure says something of the proposer's rows alone: which features and thresholds part its frauds. That is the
price of two ciphertexts a tree; docs/threat-model.md says what follows. Nothing here sends anything.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xgboost

from bank_node.boosting import BinnedRows, BoostingParameters, Cuts, Tree, add_tree, bin_rows
from bank_node.boosting.sampling import sample_rows
from bank_node.boosting.structure import ProposedSplit, code_length, encode
from bank_node.boosting.xgboost_settings import xgboost_settings
from bank_node.consortium import SecureSum
from bank_node.dtypes import Floats, Integers, Marks, Words
from protocol.errors import LocalError

__all__ = ["Proposer", "agree_on_proposers", "structure_of", "whose_turn"]


#: Enough for each bin, so that XGBoost sees the bins as they are.
_XGBOOST_BINS = 256


def agree_on_proposers(
    members: Sequence[str], own: str, labels: Marks, secure_sum: SecureSum, step: str
) -> tuple[str, ...]:
    """The banks that can propose, in the order of their turns: those with frauds and others among their rows.

    Raises:
        LocalError: no bank can.
    """
    marks = np.zeros(len(members), dtype=np.int64)
    marks[list(members).index(own)] = 0 < int(np.count_nonzero(labels)) < labels.size
    total = secure_sum(step, marks)
    found = tuple(bank for bank, mark in zip(members, total.tolist(), strict=True) if mark == 1)
    if not found:
        raise LocalError("no bank has both frauds and others to grow a tree from: use structure global")
    return found


def whose_turn(proposers: Sequence[str], members: Sequence[str], round_index: int) -> str:
    """The bank that proposes a tree: in turn those that can and are still in the run.

    Raises:
        LocalError: all that can were dropped.
    """
    left = [bank for bank in proposers if bank in members]
    if not left:
        raise LocalError("all banks that can propose a tree were dropped from the run")
    return left[round_index % len(left)]


class Proposer:
    """This bank's proposals, from all its rows, in this process; it builds XGBoost's matrix at its first turn."""

    def __init__(
        self,
        columns: Floats,
        labels: Marks,
        cuts: Cuts,
        params: BoostingParameters,
        start: Floats,
        weights: Floats | None = None,
        keys: Words | None = None,
    ) -> None:
        """Takes the bank's rows.

        Args:
            columns: float32 (n, features), NaN for missing.
            labels: uint8 (n,), 0 or 1.
            cuts: the agreed bins.
            params: the run's.
            start: float32 (n,), margins before the first tree.
            weights: float32 (n,), or None where each row weighs 1.
            keys: uint64 (n,), for samples of rows.
        """
        self._columns, self._labels, self._cuts, self._params = columns, labels, cuts, params
        self._margins = start.astype(np.float32, copy=True)
        self._weights, self._keys = weights, keys
        self._followed = 0
        self._binned: BinnedRows | None = None
        self._matrix: xgboost.QuantileDMatrix | None = None
        self._settings = xgboost_settings(params) | {
            "max_bin": _XGBOOST_BINS,
            "nthread": 1,
            # The margins stand for the base score, and rows outside the sample get weight 0.
            "base_score": 0.5,
            "subsample": 1.0,
        }

    def __call__(self, round_index: int, trees: Sequence[Tree]) -> Integers:
        """The code of a tree for the rows as they stand after some trees."""
        binned = self._binned = self._binned or bin_rows(self._columns, self._cuts)
        for tree in trees[self._followed :]:
            add_tree(self._margins, tree, binned)
        self._followed = len(trees)
        if self._matrix is None:
            values = binned.bins.astype(np.float32)
            values[binned.bins == self._cuts.n_bins[None, :]] = np.nan
            names = self._cuts.feature_names
            self._matrix = xgboost.QuantileDMatrix(
                values,
                label=self._labels,
                feature_names=None if names is None else list(names),
                max_bin=_XGBOOST_BINS,
                nthread=1,
            )
        weights = np.ones(self._labels.size, dtype=np.float32) if self._weights is None else self._weights
        if self._keys is not None and self._params.subsample < 1.0:
            weights = weights * sample_rows(self._keys, self._params.subsample, self._params.seed, round_index)
        self._matrix.set_weight(weights.astype(np.float32))
        self._matrix.set_base_margin(self._margins)
        booster = xgboost.train(self._settings | {"seed": self._params.seed + round_index}, self._matrix, 1)
        model = json.loads(bytes(booster.save_raw("json")))
        tree = model["learner"]["gradient_booster"]["model"]["trees"][0]
        return encode(structure_of(tree, self._cuts.n_bins), code_length(self._params))


def structure_of(tree: Mapping[str, Any], n_bins: Integers) -> ProposedSplit | None:
    """The structure of a tree in XGBoost's JSON that was grown on bin numbers."""

    def node(number: int) -> ProposedSplit | None:
        left = tree["left_children"][number]
        if left < 0:
            return None
        feature = tree["split_indices"][number]
        # Bins are whole numbers: b < threshold where b <= ceil(threshold) - 1. XGBoost 3.4 writes an infinite threshold
        # where all present values go the same way.
        bins = int(n_bins[feature])
        last = int(np.ceil(np.clip(tree["split_conditions"][number], 0.0, bins))) - 1
        return ProposedSplit(
            feature=feature,
            split_bin=last,
            default_left=bool(tree["default_left"][number]),
            left=node(left),
            right=node(tree["right_children"][number]),
        )

    return node(0)
