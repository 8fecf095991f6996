"""A few minutes of the soak: no honest run is lost, and the node's memory stays, whatever a second certificate does."""

import os
from pathlib import Path

import pytest

from tests.simulation.soak import GROWTH_BYTES, soak


@pytest.mark.slow
@pytest.mark.timeout(6000)
def test_honest_runs_beside_a_certificate_that_misbehaves(tmp_path: Path) -> None:
    """CROSSBANK_SOAK_MINUTES sets how long; an hour and 50 runs are what docs/benchmarks.md has."""
    minutes = float(os.environ.get("CROSSBANK_SOAK_MINUTES", "3"))
    result = soak(minutes, max(2, round(minutes * 50 / 60)), tmp_path)
    assert result["lost"] == 0, [one for one in result["runs"] if one["phase"] != "RELEASED" or not one["right"]]
    assert result["audit_whole"] and result["tracebacks"] == 0
    assert result["growth"] < GROWTH_BYTES
    kinds = {call.split(":")[0] for call in result["calls"]}
    assert kinds == {"garbage", "idle", "flood", "revoked"} or minutes < 2
    assert result["audit"]["calls limited of the second certificate"] > 0
    assert result["audit"]["certificate refused of the second certificate"] > 0 or minutes < 2
