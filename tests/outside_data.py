"""Where the outside data sets are. They are no part of the repository, so tests that need them skip without them."""

import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("CROSSBANK_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))


def needs(*names: str) -> pytest.MarkDecorator:
    """Skip unless these data sets are there."""
    return pytest.mark.skipif(
        not all((SHARED / name).is_dir() for name in names),
        reason=f"needs the outside data sets {', '.join(names)}: set CROSSBANK_SHARED_DATA to the folder they are in",
    )
