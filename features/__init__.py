"""What a feature is: the data contract, and from a bank's payments to its feature table. Knows nothing of the wire.

Extraction is loaded when it is first used: pandas takes 80 MB, and a bank in the middle of a run needs none of it.
"""

from typing import TYPE_CHECKING, Any

from features.contract.schema import DataContract, FeatureSpec, load_contract

if TYPE_CHECKING:
    from features.engineering.feature_table import extract_features, labelled_rows, time_split

__all__ = ["DataContract", "FeatureSpec", "extract_features", "labelled_rows", "load_contract", "time_split"]


def __getattr__(name: str) -> Any:
    if name in ("extract_features", "labelled_rows", "time_split"):
        from features.engineering import feature_table

        return getattr(feature_table, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
