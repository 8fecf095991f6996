"""What the peers' scripts share: reading the files peers.py wrote. It needs numpy only and imports nothing of ours."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["held_out", "settings", "site_rows", "xgboost_parameters"]

Rows = tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]


def settings(data: Path) -> dict[str, Any]:
    """Sites, rows, trees, depth, bins, eta and threads of the comparison."""
    chosen: dict[str, Any] = json.loads((data / "settings.json").read_text())
    return chosen


def xgboost_parameters(chosen: dict[str, Any], threads: int) -> dict[str, Any]:
    """The same training for every candidate that calls XGBoost; min_child_weight and reg_lambda stay 1."""
    return {
        "objective": "binary:logistic",
        "tree_method": "hist",
        "max_depth": chosen["depth"],
        "max_bin": chosen["bins"],
        "eta": chosen["eta"],
        "nthread": threads,
    }


def site_rows(data: Path, site: str) -> Rows:
    """Columns float32 (rows, features) and labels uint8 (rows,) of ``site-1`` and so on."""
    with np.load(data / f"{site}.npz") as rows:
        return rows["columns"], rows["labels"]


def held_out(data: Path) -> Rows:
    """The rows every candidate is judged on; nobody trains on them."""
    return site_rows(data, "held-out")
