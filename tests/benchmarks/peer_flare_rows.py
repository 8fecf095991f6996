"""The data loader FLARE's sites use in peer_flare.py: reads one site's file. It trains nothing."""

from pathlib import Path

import numpy as np
import xgboost
from nvflare.app_opt.xgboost.data_loader import XGBDataLoader

__all__ = ["SiteRows"]


class SiteRows(XGBDataLoader):
    """One site's rows; also leaves a stamp of the time they were read.

    Args:
        data: folder peers.py wrote.
        stamps: folder for the stamps, one per site.
    """

    def __init__(self, data: str, stamps: str) -> None:
        self.data = data
        self.stamps = stamps

    def load_data(self) -> tuple[xgboost.DMatrix, xgboost.DMatrix]:
        """The site's rows, and its first thousand again: FLARE wants something to evaluate on in every round."""
        with np.load(Path(self.data) / f"{self.client_id}.npz") as rows:
            columns, labels = rows["columns"], rows["labels"]
        train = xgboost.DMatrix(columns, label=labels)
        few = xgboost.DMatrix(columns[:1000], label=labels[:1000])
        (Path(self.stamps) / str(self.client_id)).touch()
        return train, few
