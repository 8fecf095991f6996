"""The headline: the model's bytes do not depend on how rows are split over banks, nor on encryption."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bank_node.boosting import BoostingParameters
from simulator.harness.training import federate, train_consortium
from tests.simulation.tables import cut, rows_and_labels

PARAMS = BoostingParameters.from_mapping({"n_estimators": 4, "max_depth": 4, "max_bin": 32, "eta": 0.3})


def _sha(table, folder: Path, mode: str, params: BoostingParameters = PARAMS) -> str:
    results, _ = federate(table, params, folder, mode=mode, alert_budget=0.01)
    digests = {result["model_sha256"] for result in results.values()}
    assert len(digests) == 1
    return digests.pop()


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(banks=st.sampled_from([1, 2, 3, 5]), seed=st.integers(0, 2**32 - 1), skew=st.floats(0.05, 5.0))
def test_any_assignment_of_rows_to_banks_gives_the_same_bytes(
    tmp_path: Path, banks: int, seed: int, skew: float
) -> None:
    columns, labels = rows_and_labels(1500, 5)
    rng = np.random.default_rng(seed)
    split = rng.choice(banks, size=len(labels), p=rng.dirichlet([skew] * banks))
    one = _sha(cut(columns, labels, np.zeros(len(labels), int), 1), tmp_path, "plain")
    assert _sha(cut(columns, labels, split, banks), tmp_path, "plain") == one


@pytest.mark.parametrize("banks", [1, 3, 5])
def test_encrypted_over_tls_gives_the_same_bytes_as_plain(tmp_path: Path, banks: int) -> None:
    columns, labels = rows_and_labels(2000, 5)
    split = np.random.default_rng(banks).integers(0, banks, len(labels))
    plain = _sha(cut(columns, labels, np.zeros(len(labels), int), 1), tmp_path, "plain")
    assert _sha(cut(columns, labels, split, banks), tmp_path, "threads") == plain


def test_real_processes_give_the_same_bytes_and_the_report_says_what_it_must(tmp_path: Path) -> None:
    columns, labels = rows_and_labels(1500, 4)
    table = cut(columns, labels, np.random.default_rng(0).integers(0, 3, len(labels)), 3)
    report = train_consortium(table, PARAMS, tmp_path, mode="processes")
    assert report["model_sha256"] == _sha(table, tmp_path, "plain")
    assert report["banks"] == ["bank_0", "bank_1", "bank_2"] and report["trees"] == 4
    assert all(sent > 500_000 for sent in report["bytes_sent_per_bank"].values())
    assert {"keys", "binning", "training", "evaluation", "total"} <= set(report["seconds"])
    assert set(report["metrics"]["per_bank"]["bank_0"]) == {"alone", "consortium", "pooled"}
    assert (tmp_path / "model.json").exists() and (tmp_path / "report.json").exists()


def test_a_bank_with_no_fraud_and_a_bank_with_no_rows_take_part(tmp_path: Path) -> None:
    columns, labels = rows_and_labels(1500, 4)
    split = np.where(labels == 1, 0, np.random.default_rng(0).integers(0, 2, len(labels)))
    one = _sha(cut(columns, labels, np.zeros(len(labels), int), 1), tmp_path, "plain")
    assert _sha(cut(columns, labels, split, 3), tmp_path, "threads") == one


def test_one_changed_label_changes_the_bytes(tmp_path: Path) -> None:
    columns, labels = rows_and_labels(1500, 5)
    everything = np.zeros(len(labels), int)
    first = _sha(cut(columns, labels, everything, 1), tmp_path, "plain")
    labels[0] ^= 1
    assert _sha(cut(columns, labels, everything, 1), tmp_path, "plain") != first
