"""`simulator train` with each bank's rows on Dask workers: the model of one process a bank."""

from pathlib import Path

import pytest

from bank_node.boosting import BoostingParameters
from protocol.errors import ConfigError
from simulator.benchmarks.training import make_rows
from simulator.harness.training import federate

PARAMS = BoostingParameters(n_estimators=4, max_depth=4, max_bin=32, histogram_layout="packed")


@pytest.mark.slow
def test_shards_give_the_same_model_over_encrypted_sums(tmp_path: Path) -> None:
    table = make_rows(3, 2_000, 5, seed=2)
    digests = set()
    for shards, mode in ((0, "plain"), (2, "processes")):
        results, _ = federate(table, PARAMS, tmp_path, mode=mode, alert_budget=0.01, shards=shards)
        digests |= {result["model_sha256"] for result in results.values()}
    assert len(digests) == 1


def test_shards_need_processes(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="each bank in a process of its own"):
        federate(make_rows(2, 50, 3, seed=2), PARAMS, tmp_path, mode="plain", alert_budget=0.01, shards=2)
