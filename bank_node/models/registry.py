"""Finds released models in the bank's registry by their digest. It trains, changes and sends nothing."""

import hashlib
from pathlib import Path

from bank_node.config import BankConfig

__all__ = ["find_model"]


def find_model(config: BankConfig, sha256: str) -> Path | None:
    """The registered file of a model, named after its run; None if the registry has none of that SHA-256."""
    for path in sorted(config.registry.glob("*.json")):
        if path.stem != "current" and hashlib.sha256(path.read_bytes()).hexdigest() == sha256:
            return path
    return None
