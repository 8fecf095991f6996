"""`simulator train` as a user calls it: results, and errors that say what is wrong."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.simulation.tables import rows_and_labels


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    columns, labels = rows_and_labels(800, 3)
    table = pd.DataFrame(columns, columns=["a", "b", "c"])
    table["text"] = "x"
    table["bank"] = np.random.default_rng(0).choice(["North Bank", "south"], len(table))
    table["y"], table["t"] = labels, pd.date_range("2026-01-01", periods=len(table), freq="h")
    path = tmp_path_factory.mktemp("rows") / "rows.parquet"
    table.to_parquet(path)
    return path


def _run(rows: Path, out: Path, **options: str | None) -> subprocess.CompletedProcess[str]:
    given: dict[str, str | None] = {
        "--table": str(rows),
        "--bank-column": "bank",
        "--label": "y",
        "--features": "a,b,c",
        "--out": str(out),
        "--plain": "",
    }
    given |= {f"--{name.replace('_', '-')}": value for name, value in options.items()}
    arguments = [part for name, value in given.items() if value is not None for part in (name, value) if part]
    return subprocess.run(
        [sys.executable, "-m", "simulator", "train", *arguments], capture_output=True, text=True, check=False
    )


def test_it_writes_a_model_and_a_report(rows: Path, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("n_estimators: 3\nlearning_rate: 0.3\nmax_bin: 16\nmax_depth: 3\n")
    done = _run(rows, tmp_path / "o", params=str(tmp_path / "p.yaml"), time_column="t", train_until="2026-01-20")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "o" / "report.json").read_text())
    assert report["banks"] == ["North_Bank", "south"] and report["metrics"]["evaluated_on"] == "later rows"
    assert report["model_sha256"] in done.stdout
    assert sum(report["rows"].values()) == 19 * 24


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"features": "a,nope"}, "has no column 'nope'"),
        ({"features": "a,text"}, "column 'text': a feature must be numeric"),
        ({"label": "a"}, "labels are not 0 or 1"),
        ({"bank_column": "branch"}, "has no column 'branch'"),
        ({"time_column": "t"}, "--time-column and --train-until go together"),
        ({"time_column": "t", "train_until": "2031-01-01"}, "leaves no rows on one side"),
        ({"table": "nowhere.parquet"}, "table nowhere.parquet can't be read"),
        ({"params": "nowhere.yaml"}, "parameters nowhere.yaml can't be read"),
    ],
    ids=lambda v: str(v)[:40],
)
def test_bad_input_is_one_clear_line(rows: Path, tmp_path: Path, options: dict[str, str], text: str) -> None:
    done = _run(rows, tmp_path / "o", **options)
    assert done.returncode == 2
    assert text in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not (tmp_path / "o" / "model.json").exists()


def test_an_unknown_parameter_is_named_with_its_file(rows: Path, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("n_estimator: 3\n")
    done = _run(rows, tmp_path / "o", params=str(tmp_path / "p.yaml"))
    assert done.returncode == 2 and "n_estimator" in done.stderr and "p.yaml" in done.stderr
