"""Reads a data contract from its file, or the packaged one, and checks it against the catalogue. Touches no data."""

from importlib import resources
from pathlib import Path

import yaml
from pydantic import ValidationError

from features.contract.schema import DataContract
from features.contract.strict_yaml import StrictLoader, places
from features.engineering.catalogue import CATALOGUE
from features.errors import ContractError

__all__ = ["MAX_CONTRACT_BYTES", "load_contract"]


MAX_CONTRACT_BYTES = 1_000_000
"""A contract is a few tens of kB; a file far above is a mistake, and YAML of that size takes minutes to parse."""


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
        text = resources.files("features").joinpath("contract/packaged/payments_v1.yaml").read_bytes()
    else:
        name = str(path)
        try:
            text = Path(path).read_bytes()
        except OSError as error:
            raise ContractError(f"Contract {name} can't be read: {error.strerror or 'unreadable'}.") from error
    if len(text) > MAX_CONTRACT_BYTES:
        raise ContractError(f"Contract {name} is larger than {MAX_CONTRACT_BYTES} bytes.")
    try:
        raw = yaml.load(text, Loader=StrictLoader)  # noqa: S506  a SafeLoader that refuses duplicate keys
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark is not None else ""
        raise ContractError(f"Contract {name} is not valid YAML{where}: {_reason(error)}.") from error
    if not isinstance(raw, dict):
        raise ContractError(f"Contract {name} must be a mapping of keys to values at its top level.")
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


def _reason(error: BaseException) -> str:
    return str(getattr(error, "problem", None) or type(error).__name__)
