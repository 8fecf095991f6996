"""The calibration's bytes do not depend on how rows are split over banks, nor on encryption."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bank_node.boosting import BoostingParameters
from bank_node.evaluation.calibration import digest_of, read
from simulator.harness.training import federate
from tests.simulation.tables import cut, rows_and_labels

PARAMS = BoostingParameters.from_mapping({"n_estimators": 4, "max_depth": 4, "max_bin": 32, "eta": 0.3})


def _sidecar(table, folder: Path, mode: str) -> bytes:
    results, _ = federate(table, PARAMS, folder, mode=mode, alert_budget=0.01)
    found = {result["calibration"] for result in results.values()}
    assert len(found) == 1, "every bank has the same bytes"
    document = found.pop().encode()
    read(document, next(iter(results.values()))["model_sha256"])
    return document


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(banks=st.sampled_from([1, 2, 3, 5]), seed=st.integers(0, 2**32 - 1), skew=st.floats(0.05, 5.0))
def test_any_assignment_of_rows_to_banks_gives_the_same_bytes(
    tmp_path: Path, banks: int, seed: int, skew: float
) -> None:
    columns, labels = rows_and_labels(1500, 5)
    rng = np.random.default_rng(seed)
    split = rng.choice(banks, size=len(labels), p=rng.dirichlet([skew] * banks))
    one = _sidecar(cut(columns, labels, np.zeros(len(labels), int), 1), tmp_path, "plain")
    assert _sidecar(cut(columns, labels, split, banks), tmp_path, "plain") == one
    assert json.loads(one)["uncalibrated_because"] == ""


@pytest.mark.parametrize("banks", [1, 3])
def test_encrypted_over_tls_gives_the_same_bytes_as_plain(tmp_path: Path, banks: int) -> None:
    columns, labels = rows_and_labels(2000, 5)
    split = np.random.default_rng(banks).integers(0, banks, len(labels))
    plain = _sidecar(cut(columns, labels, np.zeros(len(labels), int), 1), tmp_path, "plain")
    assert _sidecar(cut(columns, labels, split, banks), tmp_path, "threads") == plain


def test_one_changed_label_changes_the_bytes(tmp_path: Path) -> None:
    columns, labels = rows_and_labels(1500, 5)
    everything = np.zeros(len(labels), int)
    first = _sidecar(cut(columns, labels, everything, 1), tmp_path, "plain")
    labels[0] ^= 1
    assert digest_of(_sidecar(cut(columns, labels, everything, 1), tmp_path, "plain")) != digest_of(first)
