"""What a training run at one bank begins with: its rows, the run's parameters, the model to go on from. Trains nothing.

The rows lie in this process or in shards on workers; who trains asks here for counts and row stores and need not know.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bank_node.boosting import BoostingParameters, Cuts, Tree, bin_rows, predict_margin, read_booster
from bank_node.boosting.binning import bin_counts
from bank_node.boosting.dask_rows import DaskShards
from bank_node.boosting.local_rows import LocalRows, RowStore
from bank_node.boosting.row_files import BankRows
from bank_node.dtypes import Doubles, Floats, Integers
from protocol.errors import LocalError
from protocol.steps import Point

__all__ = ["Beginning", "StartingModel", "TrainingInput"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """Where binning begins, if steps came before it, and who looks at its counts.

    Attributes:
        anchor: the point up to which all is agreed.
        unit: number of the unit of steps that binning is.
        on_bins: told our counts of the binning step and the sum; may make more sums, named ``bins/<unit>/<word>``;
            gives a line for the operator.
    """

    anchor: str = Point.keys().text
    unit: int = 0
    on_bins: Callable[[Integers, Integers], str] = lambda ours, total: ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartingModel:
    """What boosting starts from: no tree and the rows' base rate, or a released model.

    Attributes:
        trees: those of the released model, or none.
        base_score: the probability before any tree.
        warm: whether it is a released model.
    """

    trees: tuple[Tree, ...] = ()
    base_score: float
    warm: bool = False

    def margins(self, columns: Floats) -> Floats:
        """Log-odds of rows, float32 (n, features), before the first new tree: float32 (n,)."""
        return predict_margin(self.trees, columns, self.base_score)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingInput:
    """One bank's input of a training run, checked when built.

    Attributes:
        rows: the bank's own, may be none.
        feature_names: names of the columns.
        grids: float64 (edges,) each: the fine grid of each feature, from the data contract.
        params: the run's.
        validation: rows not trained on, for early stopping; may be none here as long as other banks have some.
        warm: the released model that `params.warm_start` names; empty where it names none.
        shards: the same rows spread over workers, which do all that is done with rows; without, this process does.
        beginning: where binning begins.

    Raises:
        ParameterError: the parameters name a feature that is not trained on.
        LocalError: the model to go on from is missing.
    """

    rows: BankRows
    feature_names: Sequence[str]
    grids: Sequence[Doubles]
    params: BoostingParameters
    validation: BankRows | None = None
    warm: bytes = b""
    shards: DaskShards | None = None
    beginning: Beginning = Beginning()

    def __post_init__(self) -> None:
        named = self.params.warm_start
        self.params.check_features(self.feature_names)
        if named and hashlib.sha256(self.warm).hexdigest() != named:
            raise LocalError(f"the run goes on from model {named[:12]}, which this bank does not have")

    @property
    def frauds(self) -> int:
        """Rows to train on that are frauds."""
        return int(np.count_nonzero(self.rows.labels))

    @property
    def categorical(self) -> list[bool]:
        """Which features hold categories."""
        return [name in self.params.categorical_features for name in self.feature_names]

    @property
    def judging(self) -> BankRows:
        """The validation rows, none where there are none."""
        return self.validation or BankRows(columns=self.rows.columns[:0], labels=self.rows.labels[:0])

    def released_model(self) -> StartingModel | None:
        """The model that the run goes on from, if it does.

        Raises:
            LocalError: it has other features than the run.
        """
        if not self.params.warm_start:
            return None
        found, named = read_booster(self.warm), self.params.warm_start[:12]
        if found.feature_names != tuple(self.feature_names):
            raise LocalError(f"model {named} has other features than this run")
        if set(found.categorical_features) != set(self.params.categorical_features):
            raise LocalError(f"model {named} has other categorical features than this run")
        return StartingModel(trees=tuple(found.trees), base_score=found.base_score, warm=True)

    def bin_counts(self) -> Integers:
        """What the bank adds to the binning step, see `binning.bin_counts`."""
        if self.shards is not None:
            return self.shards.bin_counts(self.grids, self.feature_names, self.categorical)
        return bin_counts(
            self.rows.columns,
            self.rows.labels,
            self.grids,
            feature_names=self.feature_names,
            categorical=self.categorical,
            weights=self.rows.weights,
        )

    def row_store(self, cuts: Cuts, start: StartingModel) -> RowStore:
        """The rows, binned, for `grow_trees`."""
        if self.shards is not None:
            return self.shards.store(cuts, self.params, (start.trees, start.base_score) if start.warm else None)
        return LocalRows.checked(
            bin_rows(self.rows.columns, cuts),
            self.rows.labels,
            self.params,
            weights=self.rows.weights,
            row_keys=self.rows.keys,
            start=start.margins(self.rows.columns) if start.warm else None,
        )
