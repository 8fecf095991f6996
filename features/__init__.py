"""What a feature is: the data contract, and from a bank's payments to its feature table. Knows nothing of the wire.

Extraction is loaded when it is first used: pandas takes 80 MB, and a bank in the middle of a run needs none of it.
"""

from typing import TYPE_CHECKING, Any

from features.contract.schema import DataContract, FeatureSpec
from features.loading import load_contract

if TYPE_CHECKING:
    from features.engineering.feature_table import extract_features
    from features.engineering.splits import labelled_rows, labelled_split, time_split

__all__ = [
    "DataContract",
    "FeatureSpec",
    "extract_features",
    "labelled_rows",
    "labelled_split",
    "load_contract",
    "time_split",
]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    lazy = {
        "extract_features": "feature_table",
        "labelled_rows": "splits",
        "labelled_split": "splits",
        "time_split": "splits",
    }
    if name in lazy:
        return getattr(import_module(f"features.engineering.{lazy[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
