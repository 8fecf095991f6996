"""After the warm-up nothing is compiled any more, whatever a run asks for; a bad folder of kernels is told.

Each case is a process of its own: in this one, other tests have called the kernels long ago.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bank_node.boosting import BoostingParameters, row_keys
from bank_node.boosting.row_files import BankRows, write_rows
from bank_node.kernels import compiled_kernels
from bank_node.training.federated import FederatedModel, train_model
from bank_node.training.release import evaluate_model
from bank_node.training.training_input import TrainingInput
from simulator.harness.tables import auto_grid
from simulator.harness.worker import PlainConsortium, PlainSums
from tests.simulation.tables import rows_and_labels

N, FEATURES = 1500, 100
CASES: dict[str, dict[str, Any]] = {
    "wide": {},
    "packed": {"histogram_layout": "packed"},
    "sampled": {"subsample": 0.5},
    "stops early": {"early_stopping_rounds": 2},
    "stops early by loss": {"early_stopping_rounds": 2, "eval_metric": "logloss"},
    "structure local": {"structure": "local"},
    "loss-guided": {"max_leaves": 5, "grow_policy": "lossguide", "max_depth": 0},
    "sampled by column": {"colsample_bynode": 0.5},
    "monotone": {"monotone_constraints": {"f0": 1}},
    "weighted": {"weighted": True},
    "weighted, packed, sampled": {"weighted": True, "histogram_layout": "packed", "subsample": 0.5},
    "goes on": {"warm_start": "wide"},
}


def _train(case: dict[str, Any], folder: Path, first: FederatedModel | None) -> FederatedModel:
    """Over mapped files, as a bank does, evaluation and all."""
    columns, labels = rows_and_labels(N, FEATURES)
    settings = {name: value for name, value in case.items() if name != "weighted"}
    if "warm_start" in case and first is not None:
        settings["warm_start"] = first.sha256
    params = BoostingParameters.from_mapping({"n_estimators": 3, "max_depth": 4, "max_bin": 64} | settings)
    given = BankRows(
        columns=columns,
        labels=labels,
        weights=np.full(N, 1.5, dtype=np.float32) if "weighted" in case else None,
        keys=row_keys(range(N)) if "subsample" in case else None,
    )
    rows = write_rows(folder / "rows", [given], FEATURES).part()
    judging = write_rows(folder / "judging", [BankRows(columns=columns, labels=labels)], FEATURES).part()
    seat = PlainConsortium(PlainSums(["one"]), "one")
    found = train_model(
        TrainingInput(
            rows=rows,
            feature_names=[f"f{i}" for i in range(FEATURES)],
            grids=[auto_grid(columns[:, i]) for i in range(FEATURES)],
            params=params,
            validation=judging if params.early_stopping_rounds else None,
            warm=first.model_json if params.warm_start and first is not None else b"",
        ),
        seat,
        folder,
        lambda _: None,
    )
    evaluate_model(found, judging, 0.01, seat, lambda _: None)
    return found


def main(folder: Path) -> None:
    """The process: warms up, then says what each case still compiled."""
    from bank_node.warm_up import warm_up

    warm_up()
    told, before, first = {}, compiled_kernels(), None
    for number, (name, case) in enumerate(CASES.items()):
        (folder / str(number)).mkdir()
        found = _train(case, folder / str(number), first)
        first = first or found
        after = compiled_kernels()
        told[name] = sorted(kernel for kernel in after if after[kernel] != before.get(kernel))
        before = after
    print(json.dumps(told))


def _python(*arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], env=os.environ | changes, capture_output=True, text=True, check=False
    )


def test_after_the_warm_up_no_run_compiles_anything(tmp_path: Path) -> None:
    done = _python("-m", "tests.unit.bank_node.test_warm_up", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {name: [] for name in CASES}


WARM = "from bank_node.warm_up import warm_up; warm_up()"


def test_a_folder_of_kernels_that_anybody_may_write_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    done = _python("-c", WARM, NUMBA_CACHE_DIR=str(tmp_path / "open"))
    assert "ConfigError: anybody may write to" in done.stderr and "NUMBA_CACHE_DIR" in done.stderr


def test_damaged_kernels_are_told_and_not_run(tmp_path: Path) -> None:
    # Only the index is read before the check of its contents; an empty one is what a full disk or a crash leaves.
    inner = "from bank_node.secure_aggregation.inner_products import inner_products as f; import numpy as np"
    call = "; n = np.ones((1, 2), np.uint64); f(n, n)"
    assert _python("-c", inner + call, NUMBA_CACHE_DIR=str(tmp_path)).returncode == 0
    (index,) = tmp_path.rglob("*.nbi")
    index.write_bytes(b"")
    guarded = f"{inner}; from bank_node.kernels import usable_cache\nwith usable_cache():\n  pass{call}"
    done = _python("-c", guarded, NUMBA_CACHE_DIR=str(tmp_path))
    assert "LocalError: compiled kernels can't be kept" in done.stderr and str(tmp_path) in done.stderr


def test_without_any_folder_kernels_still_work_and_it_is_said() -> None:
    code = "import logging; logging.basicConfig(); from numba.core import caching\n"
    code += "caching.CacheImpl._locator_classes = []\n"
    code += "from bank_node.secure_aggregation.inner_products import inner_products as f; import numpy as np\n"
    code += "n = np.ones((1, 2), np.uint64); print(f(n, n))"
    done = _python("-c", code)
    assert done.stdout.strip() == "[2]" and "can't be kept" in done.stderr, done.stderr


def test_rows_of_a_bank_are_read_only_however_they_came() -> None:
    columns = np.zeros((2, 1), dtype=np.float32)
    rows = BankRows(columns=columns, labels=np.zeros(2, dtype=np.uint8))
    with pytest.raises(ValueError, match="read-only"):
        rows.columns[0, 0] = 1.0
    columns[0, 0] = 2.0
    assert rows.columns[0, 0] == 2.0, "a view, not a copy"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
