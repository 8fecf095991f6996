"""Weights, early stopping, samples of rows and warm starts reach the engine; the bytes do not depend on the split.

Over real gRPC and TenSEAL where it says threads or processes.
"""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bank_node.boosting import BoostingParameters, read_booster, row_keys
from bank_node.boosting.row_files import BankRows
from protocol.errors import ConfigError
from simulator.harness.tables import SimulatedTable, auto_grid
from simulator.harness.training import check_data, federate, load_warm, train_consortium
from tests.simulation.tables import rows_and_labels

N = 2400
COLUMNS, LABELS = rows_and_labels(N, 5)
WEIGHTS = np.random.default_rng(1).uniform(0.1, 4.0, N).astype(np.float32)
KEYS = row_keys(f"row {i}" for i in range(N))
VALIDATES = np.arange(N) >= 1800
PLAIN = {"n_estimators": 3, "max_depth": 3, "max_bin": 16}
STOPPING = PLAIN | {"n_estimators": 40, "early_stopping_rounds": 2, "eta": 0.9}
CASES = {
    "weights": PLAIN,
    "early stopping": STOPPING,
    "early stopping by loss": STOPPING | {"eval_metric": "logloss"},
    "warm start": PLAIN,
    "subsample": PLAIN | {"subsample": 0.5, "seed": 4},
    "all": STOPPING | {"subsample": 0.7, "histogram_layout": "packed"},
}


def table(case: str, banks: int) -> SimulatedTable:
    split = np.random.default_rng(banks).integers(0, banks, N)
    everything = case == "all"
    validates = VALIDATES if everything or "stopping" in case else np.zeros(N, dtype=bool)
    weights = WEIGHTS if everything or case == "weights" else None
    keys = KEYS if everything or case == "subsample" else None
    train, validation = {}, {}
    for number in range(banks):
        here = (split == number) & ~validates
        train[f"bank_{number}"] = BankRows(
            columns=COLUMNS[here],
            labels=LABELS[here],
            weights=None if weights is None else weights[here],
            keys=None if keys is None else keys[here],
        )
        there = (split == number) & validates
        validation[f"bank_{number}"] = BankRows(columns=COLUMNS[there], labels=LABELS[there])
    return SimulatedTable(
        feature_names=tuple(f"f{i}" for i in range(5)),
        grids=tuple(auto_grid(COLUMNS[:, i]) for i in range(5)),
        train=train,
        test=train,
        in_sample=True,
        validation=validation if validates.any() else {},
    )


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    params = BoostingParameters.from_mapping(PLAIN | {"n_estimators": 2})
    results, _ = federate(table("", 1), params, tmp_path_factory.mktemp("w"), mode="plain", alert_budget=0.01)
    return str(results["bank_0"]["model_json"]).encode()


def model(case: str, banks: int, mode: str, folder: Path, before: bytes) -> str:
    params, warm = BoostingParameters.from_mapping(CASES[case]), b""
    if case in ("warm start", "all"):
        params, warm = replace(params, warm_start=hashlib.sha256(before).hexdigest()), before
    results, _ = federate(table(case, banks), params, folder, mode=mode, alert_budget=0.01, warm=warm)
    models = {result["model_json"] for result in results.values()}
    assert len(models) == 1
    return str(models.pop())


@pytest.mark.parametrize("case", CASES)
def test_encrypted_over_three_banks_gives_the_bytes_of_one_in_the_plain(
    case: str, tmp_path: Path, before: bytes
) -> None:
    one = model(case, 1, "plain", tmp_path, before)
    assert model(case, 3, "threads", tmp_path, before) == one
    trees = len(read_booster(one.encode()).trees)
    expected = {"weights": 3, "subsample": 3, "warm start": 5}
    assert trees == expected.get(case, trees)
    if "stopping" in case:
        assert trees < 40, "it did not stop early"
    if case != "all":
        params = BoostingParameters.from_mapping(CASES[case] | {"subsample": 1.0, "early_stopping_rounds": 0})
        without, _ = federate(table("", 1), params, tmp_path, mode="plain", alert_budget=0.01)
        assert without["bank_0"]["model_json"] != one, "the case changes nothing"


@pytest.mark.slow
def test_it_all_reaches_the_banks_own_processes(tmp_path: Path, before: bytes) -> None:
    params = replace(BoostingParameters.from_mapping(CASES["all"]), warm_start=hashlib.sha256(before).hexdigest())
    report = train_consortium(table("all", 3), params, tmp_path, mode="processes", warm=before)
    one = model("all", 1, "plain", tmp_path / "one", before)
    assert report["model_sha256"] == hashlib.sha256(one.encode()).hexdigest()
    assert sum(report["validation_rows"].values()) == 600
    assert report["trees"] == len(read_booster(one.encode()).trees) > 2
    assert report["metrics"]["pooled"]["auc_pr"] > 0.2


def test_what_the_table_lacks_is_said_before_anything_starts(tmp_path: Path, before: bytes) -> None:
    with pytest.raises(ConfigError, match="needs validation rows: give --validate-from or --validation-share"):
        check_data(BoostingParameters.from_mapping(STOPPING), table("weights", 2))
    with pytest.raises(ConfigError, match="needs the rows' ids: give --row-id-column"):
        check_data(BoostingParameters.from_mapping(CASES["subsample"]), table("weights", 2))
    check_data(BoostingParameters.from_mapping(CASES["all"]), table("all", 2))
    path = tmp_path / "model.json"
    path.write_bytes(before)
    digest = hashlib.sha256(before).hexdigest()
    assert load_warm(BoostingParameters(), path) == (BoostingParameters(warm_start=digest), before)
    with pytest.raises(ConfigError, match="give its file, --warm-start"):
        load_warm(BoostingParameters(warm_start=digest), None)
    with pytest.raises(ConfigError, match=f"go on from model {'0' * 12}, but .* is {digest[:12]}"):
        load_warm(BoostingParameters(warm_start="0" * 64), path)
