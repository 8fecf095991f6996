"""Federated gradient boosting on integers: bins, histograms, splits and trees; it opens no connection.

The public surface is what `__all__` lists. A bank runs `global_bins`, `bin_rows`, `train_trees` and
`export_booster` with the same parameters as the others, and a `secure_sum` that adds vectors over the banks.
"""

from bank_node.boosting.binning import (
    BinnedRows,
    Cuts,
    bin_rows,
    cuts_from_bytes,
    cuts_to_bytes,
    global_bins,
    grid_counts,
)
from bank_node.boosting.errors import BoostingError, RowError, SumError
from bank_node.boosting.export import export_booster, export_booster_ubj
from bank_node.boosting.gradients import estimate_base_score, log_odds, logistic_losses, probabilities, sigmoid
from bank_node.boosting.grower import train_trees
from bank_node.boosting.reading import ReadModel, read_booster
from bank_node.boosting.sampling import row_keys
from bank_node.boosting.stopping import kept_trees, stops
from bank_node.boosting.trees import (
    Tree,
    add_tree,
    add_trees,
    leaf_of_rows,
    predict_margin,
    trees_from_bytes,
    trees_to_bytes,
)
from bank_node.consortium import SecureSum
from protocol.errors import ParameterError
from protocol.parameters import BoostingParameters

__all__ = [
    "BinnedRows",
    "BoostingError",
    "BoostingParameters",
    "Cuts",
    "ParameterError",
    "RowError",
    "SecureSum",
    "SumError",
    "Tree",
    "add_tree",
    "bin_rows",
    "cuts_from_bytes",
    "cuts_to_bytes",
    "estimate_base_score",
    "export_booster",
    "export_booster_ubj",
    "global_bins",
    "grid_counts",
    "leaf_of_rows",
    "log_odds",
    "predict_margin",
    "probabilities",
    "sigmoid",
    "train_trees",
    "trees_from_bytes",
    "trees_to_bytes",
    "ReadModel",
    "read_booster",
    "row_keys",
    "kept_trees",
    "stops",
    "add_trees",
    "logistic_losses",
]
