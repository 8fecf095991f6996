"""The personalised model: it goes on from the consortium's, is judged on rows nobody saw, is used only if better."""

import datetime as dt
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xgboost
import yaml

from bank_node import pipeline
from bank_node.boosting import BoostingParameters
from bank_node.boosting.row_files import BankRows
from bank_node.config import BankConfig, load_config
from bank_node.models.lineage import note_trained_on
from bank_node.models.local_baseline import margins_of, train_champion
from bank_node.models.personal import make_personal, personal_model, refine
from features import load_contract
from protocol.errors import LocalError
from simulator.generator import GeneratorSettings, generate
from simulator.harness.processes import bank_files, make_certificates
from tests.released import put_released

BANKS = ["alder_bank", "birch_bank", "cedar_bank"]
CONTRACT = load_contract()
NAMES = list(CONTRACT.feature_names)
PARAMS = BoostingParameters(n_estimators=40, eta=0.3, max_depth=3, max_bin=255, early_stopping_rounds=5)
START = pd.Timestamp("2026-01-01")
UNTIL = dt.datetime(2026, 3, 1)


def table(own: bool, rows: int = 6000, seed: int = 0) -> pd.DataFrame:
    """Rows of 90 days; this bank's frauds follow another feature than the others'."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(rng.normal(size=(rows, len(NAMES))).astype(np.float32), columns=NAMES)
    signal = frame[NAMES[0]] + (2.0 * frame[NAMES[1]] if own else 0.0) + 0.3 * rng.normal(size=rows)
    frame["is_fraud"] = (signal > signal.quantile(0.96)).astype(float)
    frame["event_time"] = START + pd.to_timedelta(np.sort(rng.uniform(0, 90, rows)), unit="D")
    frame["row_id"] = [f"{seed}-{i}" for i in range(rows)]
    return frame


@pytest.fixture
def config(tmp_path: Path) -> BankConfig:
    """A bank whose current model is of the others' rows."""
    rows = table(own=False, seed=9)
    consortium = train_champion(
        rows[NAMES].to_numpy(np.float32), rows["is_fraud"].to_numpy(), BoostingParameters(n_estimators=20), NAMES
    )
    make_certificates(tmp_path / "c", BANKS)
    files = bank_files(tmp_path / "c", "alder_bank")
    document = {"bank_id": "alder_bank", "events": "events.parquet", "work_dir": "work"}
    document["aggregator"] = {"ca": str(files.ca), "certificate": str(files.certificate), "key": str(files.key)}
    path = tmp_path / "bank.yaml"
    path.write_text(yaml.safe_dump(document))
    found = load_config(path)
    put_released(found, tmp_path / "c", bytes(consortium.save_raw("json")), run_id="run-1", banks=BANKS)
    note_trained_on(found, "run-1", CONTRACT, UNTIL)
    return found


def personalised(config: BankConfig, rows: pd.DataFrame, **options: object) -> dict:
    return make_personal(config, CONTRACT, rows, PARAMS, log=lambda _: None, **options)


def test_a_bank_with_its_own_frauds_gets_a_better_model(config: BankConfig) -> None:
    report = personalised(config, table(own=True))
    assert report["kept"] == "personal" and report["personal"]["auc_pr"] > report["consortium"]["auc_pr"] + 0.2
    found = personal_model(config)
    assert found is not None
    model, path = found
    assert path == config.registry / "personal" / "model.json" and path.read_bytes() == model
    assert report == json.loads((path.parent / "report.json").read_text())
    # Its first trees are the consortium's, bit for bit, and it starts from the same score.
    booster = xgboost.Booster(model_file=path)
    consortium = xgboost.Booster(model_file=config.registry / "current.json")
    assert booster.num_boosted_rounds() == 20 + report["trees_added"] and 0 < report["trees_added"] <= 40
    columns = table(own=True, rows=200, seed=2)[NAMES].to_numpy(np.float32)
    assert (margins_of(booster[:20], columns) == margins_of(consortium, columns)).all()
    # A newer release makes it void.
    certificates = config.aggregator.ca.parent
    put_released(config, certificates, bytes(booster.save_raw("json")), run_id="run-2", banks=BANKS)
    assert personal_model(config) is None


def test_it_is_judged_on_rows_that_neither_model_saw(config: BankConfig) -> None:
    rows = table(own=True)
    report = personalised(config, rows)
    gap = pd.Timedelta(days=CONTRACT.label.delay_days)
    later = rows[rows["event_time"] >= pd.Timestamp(UNTIL) + gap]
    assert report["personal"]["rows"] == report["consortium"]["rows"] == len(later)
    assert report["trained"]["rows"] == (rows["event_time"] < UNTIL).sum()
    # Labels of the judged rows don't reach the model.
    model = (config.registry / "personal" / "model.json").read_bytes()
    flipped = rows.copy()
    flipped.loc[later.index[::7], "is_fraud"] = 1.0 - flipped.loc[later.index[::7], "is_fraud"]
    personalised(config, flipped)
    again = config.registry / "personal" / "model.json"
    assert not again.exists() or again.read_bytes() == model


def test_a_worse_one_is_not_kept(config: BankConfig) -> None:
    assert personalised(config, table(own=True))["kept"] == "personal"
    rows = table(own=False)
    early = rows["event_time"] < UNTIL
    rows.loc[early, "is_fraud"] = (rows.loc[early, NAMES[2]] > 1.5).astype(float)
    report = personalised(config, rows)
    assert report["kept"] == "consortium" and report["personal"]["auc_pr"] < report["consortium"]["auc_pr"]
    assert personal_model(config) is None and not (config.registry / "personal" / "model.json").exists()


def test_few_frauds_keep_the_consortiums(config: BankConfig) -> None:
    rows = table(own=True)
    late = rows.index[(rows["event_time"] > UNTIL) & (rows["is_fraud"] == 1)]
    rows.loc[late[:-9], "is_fraud"] = 0.0
    report = personalised(config, rows)
    assert report["kept"] == "consortium" and "only 9 frauds to judge by" in report["why"]
    rows["is_fraud"] = 0.0
    assert "lack frauds" in personalised(config, rows)["why"]


def test_the_split_is_never_before_the_consortiums(config: BankConfig) -> None:
    rows = table(own=True)
    with pytest.raises(
        LocalError, match=r"--until 2026-02-01 is before 2026-03-01: the consortium's model was trained"
    ):
        personalised(config, rows, until=dt.datetime(2026, 2, 1))
    assert personalised(config, rows, until=dt.datetime(2026, 3, 10))["trained"]["until"] == "2026-03-10T00:00:00"
    with pytest.raises(LocalError, match="days and more after 2027-01-01: choose another --until"):
        personalised(config, rows, until=dt.datetime(2027, 1, 1, tzinfo=dt.UTC))
    (config.registry / "run-1.json").unlink()
    with pytest.raises(LocalError, match="it is not known until when model"):
        personalised(config, rows)
    assert personalised(config, rows, until=UNTIL)["kept"] == "personal"


def test_refine_keeps_categories() -> None:
    rng = np.random.default_rng(0)
    columns = np.stack([rng.normal(size=3000), rng.integers(0, 12, 3000)], axis=1).astype(np.float32)
    labels = (np.isin(columns[:, 1], [3, 7, 8]) & (columns[:, 0] > 0)).astype(np.uint8)
    sets = BoostingParameters(n_estimators=3, max_depth=2, categorical_features=("b",))
    first = train_champion(columns, labels, sets, ["a", "b"])
    rows = BankRows(columns=columns, labels=labels)
    done = refine(first, rows, rows, PARAMS)
    assert done.trees > 0 and done.booster.feature_types == ["float", "c"]
    # A split by a set is written {1,2,...}; the added trees have some, as the first ones do.
    assert any("{" in tree for tree in done.booster.get_dump()[3:])


@pytest.mark.slow
def test_the_pipeline_scores_with_it_and_a_purge_names_it(config: BankConfig, tmp_path: Path) -> None:
    made = generate(GeneratorSettings(banks=1, customers=500, merchants=100, days=90, seed=3), tmp_path / "data")
    path = tmp_path / "bank.yaml"
    document = yaml.safe_load(path.read_text()) | {
        "events": str(made.events["north_bank"]),
        "scoring_model": "personal",
    }
    path.write_text(yaml.safe_dump(document))
    pipeline.extract(path, log=lambda _: None)
    said: list[str] = []
    assert pipeline.score(path, log=said.append)["model"] == "consortium"
    assert "scoring with the consortium's" in said[0]
    command = [sys.executable, "-m", "bank_node", "personalise", "--config", str(path), "--until", "2026-03-01"]
    done = subprocess.run([*command, "--trees", "30", "--eta", "0.3"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["kept"] == "personal", report["why"]
    assert pipeline.score(path, log=said.append)["model"] == "personal"
    model = config.registry / "personal" / "model.json"
    assert hashlib.sha256(model.read_bytes()).hexdigest() == report["model_sha256"]
    seen = pipeline.purge(path, until=dt.date(2026, 1, 12), log=lambda _: None)["models"]
    assert "personal" in [each["run_id"] for each in seen]
    document["scoring_model"] = "consortium"
    path.write_text(yaml.safe_dump(document))
    assert pipeline.score(path, log=said.append)["model"] == "consortium"
