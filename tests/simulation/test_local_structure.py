"""Structure local over whole runs: encrypted as in the plain, two sums a tree, any bank's frauds missing."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bank_node.boosting import BoostingParameters, read_booster
from bank_node.training.federated import train_model
from bank_node.training.training_input import TrainingInput
from simulator.harness.tables import SimulatedTable
from simulator.harness.training import federate, train_consortium
from simulator.harness.worker import PlainSums
from tests.simulation.tables import cut, rows_and_labels

MAPPING = {"n_estimators": 6, "max_depth": 4, "max_bin": 32, "structure": "local"}
PARAMS = BoostingParameters.from_mapping(MAPPING)
COLUMNS, LABELS = rows_and_labels(3000, 5)


def table(split: np.ndarray, banks: int) -> SimulatedTable:
    return cut(COLUMNS, LABELS, split, banks)


def run(given: SimulatedTable, folder: Path, mode: str, params: BoostingParameters = PARAMS) -> dict:
    results, _ = federate(given, params, folder, mode=mode, alert_budget=0.01)
    assert len({result["model_sha256"] for result in results.values()}) == 1
    return results["bank_0"]


@pytest.mark.parametrize("banks", [1, 3])
def test_encrypted_over_tls_gives_the_bytes_of_the_plain(tmp_path: Path, banks: int) -> None:
    given = table(np.random.default_rng(banks).integers(0, banks, len(LABELS)), banks)
    secure = run(given, tmp_path, "threads")
    assert secure["model_json"] == run(given, tmp_path, "plain")["model_json"]
    assert secure["consortium"]["auc_pr"] > 0.5


@pytest.mark.slow
def test_real_processes_send_a_few_ciphertexts_a_tree(tmp_path: Path) -> None:
    given = table(np.random.default_rng(3).integers(0, 3, len(LABELS)), 3)
    more = BoostingParameters.from_mapping(MAPPING | {"n_estimators": 26})
    sent = []
    for number, params in enumerate((PARAMS, more)):
        report = train_consortium(given, params, tmp_path / str(number), compare=False)
        assert report["model_sha256"] == run(given, tmp_path / "plain", "plain", params)["model_sha256"]
        sent.append(report["bytes_sent_per_bank"]["bank_1"])
    a_tree = (sent[1] - sent[0]) / 20
    assert 60_000 < a_tree < 120_000, "two sums of one ciphertext, about 44 kB each"


def test_banks_without_frauds_or_rows_are_passed_over(tmp_path: Path) -> None:
    split = np.where(LABELS == 1, 1, np.random.default_rng(0).integers(0, 2, len(LABELS)))
    secure = run(table(split, 3), tmp_path, "threads")
    trees = read_booster(secure["model_json"].encode()).trees
    assert len(trees) == 6 and all(tree.n_nodes > 1 for tree in trees)


def test_the_structure_is_the_proposers_and_the_leaves_are_everybodys(tmp_path: Path) -> None:
    # Bank 1's first column is noise, bank 0's tells its frauds: the first tree is bank 0's, the second bank 1's.
    rng = np.random.default_rng(0)
    columns = rng.normal(size=(4000, 3)).astype(np.float32)
    split = rng.integers(0, 2, 4000)
    labels = np.where(split == 0, columns[:, 0] > 1.5, columns[:, 1] > 1.5).astype(np.uint8)
    shallow = BoostingParameters.from_mapping(MAPPING | {"n_estimators": 2, "max_depth": 1})
    given = cut(columns, labels, split, 2)
    trees = read_booster(run(given, tmp_path, "plain", shallow)["model_json"].encode()).trees
    assert [int(tree.feature[0]) for tree in trees] == [0, 1]
    # All 4000 rows are in the root, whoever proposed it.
    share = labels.mean()
    assert trees[0].sum_hessian[0] == pytest.approx(4000 * share * (1 - share), rel=1e-3)


def test_it_goes_on_after_a_stop_from_a_model_and_stops_early(tmp_path: Path) -> None:
    split = np.random.default_rng(3).integers(0, 3, len(LABELS))
    given = table(split, 3)
    homes = {bank: tmp_path / bank for bank in given.train}

    def trained(params: BoostingParameters) -> str:
        sums = PlainSums(list(homes))

        def one(bank: str) -> str:
            homes[bank].mkdir(exist_ok=True)
            seat, rows = sums.seat(bank), given.train[bank]
            ours = TrainingInput(
                rows=rows, feature_names=given.feature_names, grids=given.grids, params=params, validation=rows
            )
            return train_model(ours, seat, homes[bank], lambda _: None).sha256

        with ThreadPoolExecutor(3) as pool:
            (digest,) = set(pool.map(one, homes))
        return digest

    trained(replace(PARAMS, n_estimators=2))
    # The folders keep bins, turns and two trees: the third is bank_2's turn again.
    assert trained(PARAMS) == run(given, tmp_path / "whole", "plain")["model_sha256"]
    before = run(given, tmp_path / "before", "plain")["model_json"].encode()
    stopping = MAPPING | {"n_estimators": 60, "early_stopping_rounds": 2, "eta": 0.9, "eval_metric": "logloss"}
    stopping["warm_start"] = hashlib.sha256(before).hexdigest()
    params = BoostingParameters.from_mapping(stopping)
    watched = replace(given, validation=cut(*rows_and_labels(900, 5, seed=8), np.arange(900) % 3, 3).train)
    models = set()
    for mode in ("plain", "threads"):
        results, _ = federate(watched, params, tmp_path / mode, mode=mode, alert_budget=0.01, warm=before)
        models |= {result["model_json"] for result in results.values()}
    trees = read_booster(models.pop().encode()).trees
    assert not models and 6 < len(trees) < 66
    start = read_booster(before).trees
    assert all((old.value == new.value).all() for old, new in zip(start, trees, strict=False))


def test_it_depends_on_whose_rows_they_are(tmp_path: Path) -> None:
    models = {
        run(table(np.random.default_rng(seed).integers(0, 3, len(LABELS)), 3), tmp_path, "plain")["model_sha256"]
        for seed in (1, 2)
    }
    assert len(models) == 2
