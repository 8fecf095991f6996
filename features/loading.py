"""Reads a data contract from its file, or the packaged one, and checks it against the catalogue. Touches no data."""

from importlib import resources
from pathlib import Path

from pydantic import ValidationError

from features.contract.schema import DataContract
from features.contract.strict_yaml import parsed_mapping, places, read_mapping
from features.engineering.catalogue import CATALOGUE
from features.errors import ContractError

__all__ = ["load_contract"]


def load_contract(path: Path | str | None = None) -> DataContract:
    """Read a contract.

    Args:
        path: a YAML file; None is the packaged default, ``payments_v1.yaml``.

    Raises:
        ContractError: the file is missing or not YAML, has a key or a feature nobody knows, or contradicts itself.
            The message names the file and each place in it; mend the file.
    """
    if path is None:
        name = "payments_v1.yaml (packaged)"
        packaged = resources.files("features").joinpath("contract/packaged/payments_v1.yaml")
        raw = parsed_mapping(packaged.read_bytes(), f"Contract {name}", ContractError)
    else:
        name = str(path)
        raw = read_mapping(Path(path), "Contract", ContractError)
    try:
        contract = DataContract.model_validate(raw)
    except ValidationError as error:
        raise ContractError(f"Contract {name} is not valid. {places(error)}") from error
    unknown = [feature for feature in contract.local_names if feature not in CATALOGUE]
    if unknown:
        raise ContractError(f"Contract {name} asks for features that are not in the catalogue: {', '.join(unknown)}.")
    names = {column.name for column in contract.columns}
    without = [feature for feature in contract.local_names if not CATALOGUE[feature].columns <= names]
    if without:
        raise ContractError(f"Contract {name} has no column for the features {', '.join(without)}.")
    return contract
