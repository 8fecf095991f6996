"""`simulator train` as a user calls it: results, and errors that say what is wrong."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from simulator import cli
from tests.simulation.tables import rows_and_labels


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    columns, labels = rows_and_labels(800, 3)
    table = pd.DataFrame(columns, columns=["a", "b", "c"])
    table["text"] = "x"
    table["bank"] = np.random.default_rng(0).choice(["North Bank", "south"], len(table))
    table["id"], table["w"] = np.arange(len(table)), np.random.default_rng(1).uniform(0.5, 2, len(table))
    table["y"], table["t"] = labels, pd.date_range("2026-01-01", periods=len(table), freq="h")
    path = tmp_path_factory.mktemp("rows") / "rows.parquet"
    table.to_parquet(path)
    return path


def _arguments(rows: Path, out: Path, options: Mapping[str, str | None]) -> list[str]:
    given: dict[str, str | None] = {
        "--table": str(rows),
        "--bank-column": "bank",
        "--label": "y",
        "--features": "a,b,c",
        "--out": str(out),
        "--plain": "",
    }
    given |= {f"--{name.replace('_', '-')}": value for name, value in options.items()}
    return ["train", *(part for name, value in given.items() if value is not None for part in (name, value) if part)]


def _run(rows: Path, out: Path, **options: str | None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "simulator", *_arguments(rows, out, options)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_it_writes_a_model_and_a_report(rows: Path, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("n_estimators: 3\nlearning_rate: 0.3\nmax_bin: 16\nmax_depth: 3\n")
    done = _run(rows, tmp_path / "o", params=str(tmp_path / "p.yaml"), time_column="t", train_until="2026-01-20")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "o" / "report.json").read_text())
    assert report["banks"] == ["North_Bank", "south"] and report["metrics"]["evaluated_on"] == "later rows"
    assert report["model_sha256"] in done.stdout
    assert sum(report["rows"].values()) == 19 * 24


@pytest.mark.slow
def test_it_stops_early_weighs_samples_and_goes_on_from_a_model(rows: Path, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("{n_estimators: 2, max_bin: 16, max_depth: 3}")
    assert _run(rows, tmp_path / "first", params=str(tmp_path / "p.yaml")).returncode == 0
    (tmp_path / "q.yaml").write_text(
        "{n_estimators: 30, early_stopping_rounds: 2, subsample: 0.8, max_bin: 16, eta: 0.9}"
    )
    split = {"time_column": "t", "train_until": "2026-01-25", "validate_from": "2026-01-20"}
    done = _run(
        rows,
        tmp_path / "o",
        params=str(tmp_path / "q.yaml"),
        weight_column="w",
        row_id_column="id",
        warm_start=str(tmp_path / "first" / "model.json"),
        **split,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "o" / "report.json").read_text())
    assert sum(report["rows"].values()) == 19 * 24 and sum(report["validation_rows"].values()) == 5 * 24
    assert 2 < report["trees"] < 32
    first = json.loads((tmp_path / "first" / "report.json").read_text())
    assert report["params"]["warm_start"] == first["model_sha256"]
    # The share takes the latest rows, or by id a sample, whatever bank they are of.
    by_share = {"time_column": "t", "validation_share": "0.25"}
    assert _run(rows, tmp_path / "s", params=str(tmp_path / "p.yaml"), **by_share).returncode == 0
    report = json.loads((tmp_path / "s" / "report.json").read_text())
    assert sum(report["validation_rows"].values()) == 200
    by_id = {"row_id_column": "id", "validation_share": "0.25"}
    assert _run(rows, tmp_path / "i", params=str(tmp_path / "p.yaml"), **by_id).returncode == 0
    report = json.loads((tmp_path / "i" / "report.json").read_text())
    assert 150 < sum(report["validation_rows"].values()) < 250


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"features": "a,nope"}, "has no column 'nope'"),
        ({"features": "a,text"}, "column 'text': a feature must be numeric"),
        ({"label": "a"}, "labels are not 0 or 1"),
        ({"bank_column": "branch"}, "has no column 'branch'"),
        ({"time_column": "t"}, "--time-column needs --train-until, --validate-from or --validation-share"),
        ({"validate_from": "2026-01-20"}, "--train-until and --validate-from need --time-column"),
        ({"validation_share": "0.2"}, "needs --time-column (the latest rows) or --row-id-column"),
        ({"weight_column": "a"}, "weights are missing, negative or infinite"),
        ({"row_id_column": "bank"}, "row ids are missing or there twice"),
        ({"warm_start": "nowhere.json"}, "model nowhere.json can't be read"),
        ({"time_column": "t", "train_until": "2031-01-01"}, "leaves no rows on one side"),
        ({"time_column": "text", "validation_share": "0.2"}, "column 'text': neither times nor numbers"),
        ({"table": "nowhere.parquet"}, "table nowhere.parquet can't be read"),
        ({"params": "nowhere.yaml"}, "parameters nowhere.yaml can't be read"),
    ],
    ids=lambda v: str(v)[:40],
)
def test_bad_input_is_one_clear_line(
    rows: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: dict[str, str],
    text: str,
) -> None:
    # In this process: a new one imports for two seconds before it looks at the input.
    monkeypatch.setattr(sys, "argv", ["simulator", *_arguments(rows, tmp_path / "o", options)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert text in said and said.startswith("error: ") and said.count("\n") == 1, said
    assert not (tmp_path / "o" / "model.json").exists()


def test_an_unknown_parameter_is_named_with_its_file(rows: Path, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("n_estimator: 3\n")
    done = _run(rows, tmp_path / "o", params=str(tmp_path / "p.yaml"))
    assert done.returncode == 2 and "n_estimator" in done.stderr and "p.yaml" in done.stderr
