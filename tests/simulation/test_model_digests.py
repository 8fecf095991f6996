"""The bytes of models do not change unnoticed: digests of a held list of cases, `tests/vectors/model_digests.json`.

A change of the code that is not meant to change models leaves the file alone. One that is meant to writes it anew with
``python -m tests.simulation.test_model_digests`` and says why in CHANGELOG.md: banks of before and after it would end a
run by differing digests.
"""

import hashlib
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from bank_node.boosting import BoostingParameters
from simulator.harness.training import federate
from tests.simulation.tables import cut, rows_and_labels
from tests.unit.bank_node.boosting.samples import train
from tests.unit.bank_node.boosting.test_feature_exactness import FEATURES, KEYS, LABELS, ROWS, WEIGHTS

VECTORS = Path(__file__).parents[1] / "vectors" / "model_digests.json"
HELD: dict[str, str] = json.loads(VECTORS.read_text()) if VECTORS.exists() else {}
RUNS = {
    "run, wide": {},
    "run, many features, wide": {"max_bin": 64},
    "run, many features, packed": {"max_bin": 64, "histogram_layout": "packed"},
    "run, structure local": {"structure": "local"},
    "run, deep": {"max_depth": 8, "eta": 0.1},
}


def _cases() -> list[str]:
    return [f"{case}, {layout}" for case in FEATURES for layout in ("wide", "packed")] + list(RUNS)


def digest(case: str, folder: Path) -> str:
    """SHA-256 of a case's model file: of one bank on arrays, or of three banks' run in the plain."""
    if case in RUNS:
        settings = {"n_estimators": 4, "max_depth": 4, "max_bin": 32, "eta": 0.3} | RUNS[case]
        columns, labels = rows_and_labels(2000, 100 if "many features" in case else 5)
        table = cut(columns, labels, np.random.default_rng(3).integers(0, 3, len(labels)), 3)
        results, _ = federate(table, BoostingParameters.from_mapping(settings), folder, mode="plain", alert_budget=0.01)
        (found,) = {result["model_sha256"] for result in results.values()}
        return str(found)
    feature, layout = case.rsplit(", ", 1)
    given = {"n_estimators": 3, "max_depth": 4, "max_bin": 16, "min_child_weight": 0.5, "histogram_layout": layout}
    params = BoostingParameters.from_mapping(given | FEATURES[feature])
    weights = WEIGHTS if feature in ("weights", "all of them") else None
    model = train(ROWS, LABELS, params, weights=weights, keys=KEYS).model
    return hashlib.sha256(model).hexdigest()


@pytest.mark.parametrize("case", _cases())
def test_a_held_model_has_the_bytes_of_before(case: str, tmp_path: Path) -> None:
    assert digest(case, tmp_path) == HELD[case]


def test_the_held_list_has_each_case_and_no_other() -> None:
    assert sorted(HELD) == sorted(_cases())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        VECTORS.write_text(json.dumps({case: digest(case, Path(place)) for case in _cases()}, indent=1) + "\n")
    sys.exit(0)
