"""What a privacy officer can see of a run, and what a later check finds in the bank's own ledger."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bank_node.boosting import BoostingParameters
from bank_node.cli import app
from bank_node.secure_aggregation.ledger import Ledger, read_records
from bank_node.secure_aggregation.ledger_audit import verify_run
from bank_node.transport.egress_log import byte_entropy, read_outbox
from protocol.errors import LocalError, ProtocolViolation
from simulator.harness import training
from tests.simulation.tables import small_table


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A whole run of three banks over gRPC and TLS; the folder of its work, and the run's id."""
    out = tmp_path_factory.mktemp("run")
    kept = tmp_path_factory.mktemp("kept")
    params = BoostingParameters.from_mapping({"n_estimators": 2, "max_depth": 3, "max_bin": 16})
    remove = shutil.rmtree

    def keep(path: Any, *arguments: Any, **named: Any) -> None:
        if Path(path).exists():
            shutil.copytree(path, kept, dirs_exist_ok=True)
        remove(path, *arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "rmtree", keep)
        table = small_table(banks=3, rows=600, features=3)
        training.federate(table, params, out, mode="threads", alert_budget=0.02)
    run_id = json.loads((kept / "bank_0" / "ledger.jsonl").read_text().splitlines()[0]).get("run_id", "")
    lines = (kept / "bank_0" / "outbox.jsonl").read_text()
    assert lines
    return kept, run_id or _run_id(kept)


def _run_id(kept: Path) -> str:
    import sqlite3

    return str(sqlite3.connect(kept / "aggregator.db").execute("SELECT run_id FROM runs").fetchone()[0])


def _as_bank(finished: tuple[Path, str], tmp_path: Path) -> tuple[Path, Path]:
    """A bank's configuration and run folder with a copy of what the run left."""
    kept, run_id = finished
    folder = tmp_path / "work" / "runs" / run_id
    shutil.copytree(kept / "bank_0", folder)
    shutil.copy(kept / "certificates" / "ca.pem", tmp_path)
    config = tmp_path / "bank.yaml"
    config.write_text(
        "bank_id: bank_0\nevents: events\nwork_dir: work\naggregator: {ca: ca.pem, certificate: c.pem, key: k.key}\n"
    )
    return config, folder


def test_the_outbox_lists_every_message_and_shows_ciphertexts_as_noise(
    finished: tuple[Path, str], tmp_path: Path
) -> None:
    config, folder = _as_bank(finished, tmp_path)
    entries = read_outbox(folder / "outbox.jsonl")
    kinds = {entry.kind for entry in entries}
    keying = {"RunRef", "JoinRequest", "KeyAnnouncement"}
    assert kinds - {"KeyBundle"} == keying | {"Ciphertexts", "PhaseReport", "ReportsRef"}
    for entry in entries:
        assert len(entry.sha256) == 64 and entry.size >= 0 and entry.destination.startswith("127.0.0.1:")
        if entry.kind == "Ciphertexts":
            assert entry.step and entry.ciphertexts and entry.he_fingerprint and (entry.entropy or 0) > 7.9
    shown = CliRunner().invoke(app, ["outbox", "--config", str(config), "--run", finished[1]])
    assert shown.exit_code == 0 and "Ciphertexts" in shown.output and "entropy of the ciphertexts" in shown.output
    lines = CliRunner().invoke(app, ["outbox", "--config", str(config), "--run", finished[1], "--json"]).output
    assert len(lines.splitlines()) == len(entries)


def test_a_finished_run_verifies(finished: tuple[Path, str], tmp_path: Path) -> None:
    config, folder = _as_bank(finished, tmp_path)
    findings = verify_run(folder, finished[1], "bank_0", tmp_path / "ca.pem")
    assert [finding.wrong for finding in findings] == [""] * len(findings)
    counts = {finding.what: finding.count for finding in findings}
    assert counts["every sum's MAC and witness held"] == counts["every bank signed the same before each sum"] >= 7
    assert counts["every bank signed the same at each phase's end"] == 5
    shown = CliRunner().invoke(app, ["verify", "--config", str(config), "--run", finished[1]])
    assert shown.exit_code == 0 and shown.output.count("holds") == len(findings)


def _first(records: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    return next(record for record in records if record["kind"] == kind)


def _flip(text: str) -> str:
    return ("1" if text[0] == "0" else "0") + text[1:]


def _flip_statement(records: list[dict[str, Any]]) -> None:
    statement = _first(records, "sum")["statements"][1]
    statement[2] = _flip(statement[2])


def _flip_state(records: list[dict[str, Any]]) -> None:
    _first(records, "sum")["after"] = "0" * 64


def _drop_a_sum(records: list[dict[str, Any]]) -> None:
    records.remove(_first(records, "sum"))


def _change_a_report(records: list[dict[str, Any]]) -> None:
    report = _first(records, "report")["reports"][1]
    report["digest"] = _flip(report["digest"])


def _another_key(records: list[dict[str, Any]]) -> None:
    peers = _first(records, "peers")["peers"]
    peers[1]["ed25519"] = peers[2]["ed25519"]


def _grow(records: list[dict[str, Any]]) -> None:
    records.append({"kind": "roster", "attempt": 1, "members": ["bank_0", "bank_1", "bank_2", "bank_3"]})


def _bad_mac(records: list[dict[str, Any]]) -> None:
    _first(records, "sum")["mac"] = "not checked"


def _failed(records: list[dict[str, Any]]) -> None:
    records.append({"kind": "failure", "error": "TamperedSum", "text": "chunk 0", "step": "s"})


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (_flip_statement, "every bank signed the same before each sum"),
        (_flip_state, "states follow from one sum to the next"),
        (_drop_a_sum, "states follow from one sum to the next"),
        (_change_a_report, "every bank signed the same at each phase's end"),
        (_another_key, "run keys are signed by certified banks"),
        (_grow, "rosters only shrink"),
        (_bad_mac, "every sum's MAC and witness held"),
        (_failed, "no failure was noted"),
    ],
)
def test_whatever_is_changed_in_the_ledger_is_found(
    finished: tuple[Path, str], tmp_path: Path, change: Callable[[list[dict[str, Any]]], None], what: str
) -> None:
    config, folder = _as_bank(finished, tmp_path)
    records = read_records(folder / "ledger.jsonl")
    change(records)
    (folder / "ledger.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    findings = {f.what: f.wrong for f in verify_run(folder, finished[1], "bank_0", tmp_path / "ca.pem")}
    assert findings[what]
    shown = CliRunner().invoke(app, ["verify", "--config", str(config), "--run", finished[1]])
    assert shown.exit_code == 1


def test_another_model_file_is_found(finished: tuple[Path, str], tmp_path: Path) -> None:
    _, folder = _as_bank(finished, tmp_path)
    (folder / "model.json").write_bytes((folder / "model.json").read_bytes() + b" ")
    findings = verify_run(folder, finished[1], "bank_0", tmp_path / "ca.pem")
    assert any("is not the one that the banks reported" in finding.wrong for finding in findings)


def test_a_run_that_this_bank_does_not_know_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="has no ledger"):
        verify_run(tmp_path, "run-1", "a", tmp_path / "ca.pem")


def test_the_entropy_of_noise_and_of_a_table() -> None:
    import numpy as np

    assert byte_entropy(np.random.default_rng(0).bytes(90_000)) > 7.98
    assert byte_entropy(np.arange(10_000, dtype=np.int64).tobytes()) < 4
    assert byte_entropy(b"") == 0 == byte_entropy(bytes(100))


# -- the ledger ---------------------------------------------------------------------------------------------------


def test_a_torn_last_record_is_left_out_and_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    first = Ledger(path)
    first.note("roster", attempt=0, members=["a", "b", "c"])
    first.close()
    path.write_bytes(path.read_bytes() + b'{"kind": "anch')
    again = Ledger(path)
    assert again.rosters == {0: ("a", "b", "c")}
    again.note("anchor", name="keys", state="00", digest="11")
    again.close()
    assert [record["kind"] for record in read_records(path)] == ["roster", "anchor"]


def test_a_damaged_ledger_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_text('{"kind": "x"}\nnonsense\n')
    with pytest.raises(LocalError, match="line 2 is damaged"):
        Ledger(path)


def test_a_step_is_never_answered_twice_in_a_way_that_shows_a_difference(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.note("roster", attempt=0, members=["a", "b", "c", "d"])
    ledger.bind("train/1/0", 0, "11")
    ledger.bind("train/1/0", 0, "11")
    with pytest.raises(LocalError, match="already sent other numbers"):
        ledger.bind("train/1/0", 0, "22")
    ledger.note("roster", attempt=1, members=["a", "b", "c"])
    ledger.bind("train/1/0", 1, "33")
    with pytest.raises(ProtocolViolation, match="larger or different roster"):
        ledger.bind("train/1/0", 0, "11")
    ledger.note("roster", attempt=2, members=["a", "b", "d"])
    with pytest.raises(ProtocolViolation, match="larger or different roster"):
        ledger.bind("train/1/0", 2, "44")
    ledger.bind("train/2/0", 2, "44")
