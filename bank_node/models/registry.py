"""Finds released models in the bank's registry by their digest. It trains, changes and sends nothing."""

import hashlib
from pathlib import Path

from bank_node.config import BankConfig
from protocol.errors import LocalError

__all__ = ["find_model"]


def find_model(config: BankConfig, sha256: str) -> Path | None:
    """The registered file of a model, named after its run; None if the registry has none of that SHA-256."""
    for path in sorted(config.registry.glob("*.json")):
        if path.stem != "current" and hashlib.sha256(path.read_bytes()).hexdigest() == sha256:
            return path
    return None


def released_model(config: BankConfig, sha256: str) -> bytes:
    """The model that a run goes on from, from the bank's registry; nothing where it goes on from none.

    Args:
        sha256: the run's ``warm_start``, may be empty.

    Raises:
        LocalError: the registry has no model of that digest.
    """
    if not sha256:
        return b""
    found = find_model(config, sha256)
    if found is not None:
        return found.read_bytes()
    raise LocalError(
        f"the run goes on from model {sha256[:12]}, which bank {config.bank_id} does not have: put the released file "
        f"into {config.registry} (its SHA-256 must be {sha256}), then train again"
    )
