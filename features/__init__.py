"""What a feature is: the data contract, and from a bank's payments to its feature table. Knows nothing of the wire."""

from features.contract import DataContract, FeatureSpec, load_contract
from features.extraction import extract_features, labelled_rows, time_split

__all__ = ["DataContract", "FeatureSpec", "extract_features", "labelled_rows", "load_contract", "time_split"]
