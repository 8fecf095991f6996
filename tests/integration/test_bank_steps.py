"""A bank's steps by hand: out of order, twice at once, without later rows; and a registry whose files were changed."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from aggregator.pki.ca import create_ca
from bank_node import pipeline
from bank_node.config import BankConfig, load_config
from bank_node.models.registry import current_model, find_model, released_runs
from features import load_contract
from protocol.errors import AlreadyRunning, LocalError
from protocol.run_plan import RunPlan
from simulator.generator import GeneratorSettings, generate
from tests.conftest import BANKS, Node, in_parallel
from tests.integration.test_contracts import configure

CONTRACT = load_contract()
SMALL = {"n_estimators": 2, "max_depth": 2, "max_bin": 16}
NODE = {"ca": "ca.pem", "certificate": "a.pem", "key": "a.key"}


@pytest.fixture(scope="module")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """Each bank's payments, and its work_dir after extraction; made once."""
    folder = tmp_path_factory.mktemp("extracted")
    made = generate(GeneratorSettings(banks=3, customers=100, merchants=50, days=60, seed=5), folder / "data")
    found = {}
    for bank, events in zip(BANKS, made.events.values(), strict=True):
        path = folder / f"{bank}.yaml"
        path.write_text(
            yaml.safe_dump({"bank_id": bank, "events": str(events), "work_dir": str(folder / bank), "aggregator": NODE})
        )
        pipeline.extract(path, log=lambda _: None)
        found[bank] = (events, folder / bank)
    return found


@pytest.fixture
def configs(node: Node, extracted: dict[str, tuple[Path, Path]]) -> dict[str, Path]:
    found = {}
    for bank, (events, work) in extracted.items():
        found[bank] = configure(node, bank, events, "data")
        shutil.copytree(work, load_config(found[bank]).work_dir)
    return found


def opened(node: Node, **plan: Any) -> str:
    parameters = RunPlan(params=SMALL, **plan).to_json()
    return node.open(contract_fingerprint=CONTRACT.fingerprint, parameters_json=parameters)


Outcome = tuple[dict[str, Any], list[str]]


def test_steps_out_of_order_say_what_to_run_first_and_without_later_rows_nothing_is_evaluated(
    node: Node, configs: dict[str, Path]
) -> None:
    run = opened(node)
    for step in (pipeline.evaluate, pipeline.register):
        with pytest.raises(LocalError, match=f"has not ended training in run {run}; first run `bank-node train"):
            step(configs[BANKS[0]], run, log=lambda _: None)

    def take_part(bank: str) -> Outcome:
        said: list[str] = []
        pipeline.train(configs[bank], run, log=lambda _: None)
        with pytest.raises(LocalError, match=f"has not evaluated the model in run {run}; first run `bank-node"):
            pipeline.register(configs[bank], run, log=lambda _: None)
        found = pipeline.evaluate(configs[bank], run, log=said.append)
        pipeline.register(configs[bank], run, log=lambda _: None)
        return found, said

    for bank, (found, said) in in_parallel(BANKS, take_part).items():
        assert (found["consortium"], found["own"], found["alone"]) == (None, None, None)
        assert "no train_until" in found["evaluation"]
        assert not [text for text in said if "AUC" in text] and any("no evaluation" in text for text in said)
        kept = json.loads((load_config(configs[bank]).run_dir(run) / "evaluation.json").read_text())
        assert kept == found
    with node.operator() as operator:
        view = operator.get_run(run)
    assert view.phase == "RELEASED" and view.metrics_json in ("", "{}")
    assert sum("no evaluation: the run names no train_until" in event.text for event in view.events) == 3


@pytest.mark.slow
def test_a_second_train_says_that_the_first_runs_and_a_killed_one_holds_nothing(
    node: Node, configs: dict[str, Path]
) -> None:
    run, config = opened(node), configs[BANKS[0]]
    command = [sys.executable, "-m", "bank_node", "train", "--config", str(config), "--run", run, "--ignore-gate"]
    first = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert first.stderr is not None
        for line in first.stderr:
            if "joined" in line:
                break
        second = subprocess.run(command, capture_output=True, text=True, check=False)
        assert second.returncode == 2 and "Traceback" not in second.stderr
        assert f"run {run}: train runs already (process {first.pid}, since " in second.stderr
        with pytest.raises(AlreadyRunning):
            pipeline.gate(config, run, log=lambda _: None)
    finally:
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        first.stderr.close()

    def take_part(bank: str) -> str:
        return str(pipeline.train(configs[bank], run, log=lambda _: None)["model_sha256"])

    assert len(set(in_parallel(BANKS, take_part).values())) == 1


def _tampered(path: Path, change: Callable[[bytes], bytes]) -> bytes:
    before = path.read_bytes()
    path.write_bytes(change(before))
    return before


def _a_changed_calibration_is_refused(
    configs: dict[str, Path], config: BankConfig, run: str, refused: Callable[[str], None]
) -> None:
    """The sidecar is what all banks signed, and says how far scores hold."""
    sidecar = config.registry / "current.calibration.json"
    others = {load_config(configs[bank]).registry / f"{run}.calibration.json" for bank in BANKS}
    assert len({each.read_bytes() for each in others} | {sidecar.read_bytes()}) == 1
    evaluation = json.loads((config.run_dir(run) / "evaluation.json").read_text())["calibration"]
    document = json.loads(sidecar.read_text())
    assert evaluation["consortium"]["before"] == document["before"] and evaluation["own"]["before"]["rows"] > 0
    assert evaluation["largest_leaf"] > 0.0 and "alert_cost" in evaluation["costs"]
    kept = _tampered(sidecar, lambda b: b.replace(b'"slope": ', b'"slope": 2'))
    refused("is not the one that the banks of run")
    sidecar.unlink()
    refused("is missing; it is not used")
    sidecar.write_bytes(kept)
    # An evaluation whose signed metrics were changed to fit, or left out.
    record_path = config.registry / "current.release.json"
    signed = _tampered(record_path, lambda b: b.replace(b"calibration_sha256", b"calibration_sha255"))
    refused("is not what the banks signed")
    released = json.loads(signed)
    votes = [each for each in released["evidence"] if each.get("phase") != "EVALUATING"]
    record_path.write_text(json.dumps(released | {"evidence": votes}))
    refused("is not one that the banks of run")
    record_path.write_bytes(signed)
    assert pipeline.score(configs[config.bank_id], log=lambda _: None)["left_out_by_cost"] == 0


@pytest.mark.slow
def test_a_changed_model_is_refused_wherever_it_is_used(node: Node, configs: dict[str, Path]) -> None:
    run = opened(node, train_until="2026-02-15T00:00:00")

    def take_part(bank: str) -> Outcome:
        said: list[str] = []
        pipeline.train(configs[bank], run, log=lambda _: None)
        found = pipeline.evaluate(configs[bank], run, log=said.append)
        pipeline.register(configs[bank], run, log=lambda _: None)
        return found, said

    for found, said in in_parallel(BANKS, take_part).values():
        own = found["own"]
        (line,) = [text for text in said if "AUC-PR" in text]
        if own["auc_pr"] is None:
            assert f"of our {own['rows']} labelled rows after 2026-02-15" in line
        else:
            assert f"({own['rows']}, of which {own['frauds']} frauds)" in line
            assert f"consortium {own['auc_pr']:.4f}" in line
    path = configs[BANKS[0]]
    config: BankConfig = load_config(path)
    current, record_path = config.registry / "current.json", config.registry / "current.release.json"
    record = json.loads(record_path.read_text())
    assert record["run_id"] == run and record["banks"] == BANKS and record["trained_until"] == "2026-02-15T00:00:00"
    assert record["contract"] == f"{CONTRACT.name} {CONTRACT.version}"
    assert record["model_sha256"] == hashlib.sha256(current.read_bytes()).hexdigest()
    assert current_model(config)[1].model_sha256 == record["model_sha256"]
    assert list(released_runs(config)) == [run] and find_model(config, record["model_sha256"]) is not None
    words: list[str] = []
    assert pipeline.score(path, log=words.append)["model"] == "consortium"
    assert any(run in text and "2026-02-15" in text for text in words)

    def refused(match: str) -> None:
        for use in (pipeline.score, pipeline.personalise):
            with pytest.raises(LocalError, match=match):
                use(path, log=lambda _: None)

    def refused_score(match: str) -> None:
        with pytest.raises(LocalError, match=match):
            pipeline.score(path, log=lambda _: None)

    # Another leaf value: XGBoost would load it without a word.
    model = _tampered(current, lambda b: b.replace(b'"base_weights":[', b'"base_weights":[ '))
    refused("was changed: it has SHA-256")
    # The record changed to fit: the votes are about another digest.
    digest = hashlib.sha256(current.read_bytes()).hexdigest()
    kept = _tampered(record_path, lambda b: json.dumps(json.loads(b) | {"model_sha256": digest}).encode())
    refused("is not the one that the banks of run")
    # The votes changed to fit: they are not signed.
    forged = json.loads(kept.replace(record["model_sha256"].encode(), digest.encode()))
    record_path.write_text(json.dumps(forged))
    refused("is not signed by it")
    # No votes at all, though the record says who voted.
    record_path.write_text(json.dumps(forged | {"evidence": []}))
    refused("does not have the votes")
    record_path.unlink()
    refused("has no record")
    record_path.write_text("{}")
    refused("is damaged")
    current.write_bytes(model)
    record_path.write_bytes(kept)
    assert pipeline.score(path, log=lambda _: None)["rows"] > 0
    _a_changed_calibration_is_refused(configs, config, run, refused_score)
    # By the advice: registering again mends it, though the run is over and its keys are wiped.
    _tampered(current, lambda b: b + b" ")
    pipeline.register(path, run, log=lambda _: None)
    assert current.read_bytes() == model
    # Under another CA the votes prove nothing; a copy of the configuration with the run's own CA scores on.
    create_ca(node.folder / "new_ca")
    document = yaml.safe_load(path.read_text())
    new = document["aggregator"] | {"ca": str(node.folder / "new_ca" / "ca.pem")}
    old = path.read_text()
    path.write_text(yaml.safe_dump(document | {"aggregator": new}))
    refused(f"use a copy of the configuration whose `ca` is the one of run {run}")
    copy = path.with_name("old_ca.yaml")
    copy.write_text(old)
    for step in (["score"], ["verify", "--run", run]):
        done = subprocess.run(
            [sys.executable, "-m", "bank_node", *step, "--config", str(copy)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    path.write_text(old)
    # The personalised model likewise.
    path.write_text(path.read_text() + "scoring_model: personal\n")
    folder = config.registry / "personal"
    folder.mkdir()
    (folder / "model.json").write_bytes(model)
    report = dict.fromkeys(("from_sha256", "model_sha256"), record["model_sha256"])
    (folder / "report.json").write_text(json.dumps(report))
    assert pipeline.score(path, log=lambda _: None)["model"] == "personal"
    (folder / "model.json").write_bytes(model + b" ")
    with pytest.raises(LocalError, match="was changed since it was made"):
        pipeline.score(path, log=lambda _: None)
    # Made from another than the current model: the consortium's scores, and the log says so.
    (folder / "report.json").write_text(json.dumps(report | {"from_sha256": "0" * 64}))
    assert pipeline.score(path, log=lambda _: None)["model"] == "consortium"
