"""The DAG files: they import, make the expected DAGs per bank, stay light, and keep banks apart."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dags.defaults import START_DATE

ROOT = Path(__file__).resolve().parents[2]
DAGS = ROOT / "dags"
HEAVY = ("xgboost", "numba", "tenseal", "pandas", "numpy", "sklearn", "duckdb", "ibis", "grpc", "bank_node")


@pytest.fixture
def dagbag(banks_dir: Path, operator_config: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("CROSSBANK_BANKS_DIR", str(banks_dir))
    monkeypatch.setenv("CROSSBANK_CONSORTIUM_CONFIG", str(operator_config))
    monkeypatch.delenv("CROSSBANK_DAILY_SCHEDULE", raising=False)
    from airflow.dag_processing.dagbag import DagBag

    return DagBag(dag_folder=str(DAGS))


def _edges(dag: Any) -> set[tuple[str, str]]:
    return {(task.task_id, down) for task in dag.tasks for down in task.downstream_task_ids}


def test_dagbag_has_every_dag_and_no_error(dagbag: Any) -> None:
    assert dagbag.import_errors == {}
    expected = {
        f"bank_{bank}_{dag}" for bank in ("alpha", "beta") for dag in ("features", "training", "scoring", "purge")
    }
    assert set(dagbag.dags) == expected | {"consortium_run"}


def test_training_chain(dagbag: Any) -> None:
    dag = dagbag.dags["bank_alpha_training"]
    assert _edges(dag) == {
        ("wait_for_open_run", "quality_gate"),
        ("quality_gate", "join_and_train"),
        ("join_and_train", "evaluate"),
        ("evaluate", "register"),
    }


def test_every_dag_has_the_same_defaults(dagbag: Any) -> None:
    for dag in dagbag.dags.values():
        assert dag.max_active_runs == 1 and not dag.catchup and dag.start_date == START_DATE, dag.dag_id
        assert "crossbank" in dag.tags and dag.doc_md, dag.dag_id
        for task in dag.tasks:
            assert (task.retries, task.retry_delay, task.owner) == (2, timedelta(seconds=10), "crossbank"), task


def test_consortium_chain(dagbag: Any) -> None:
    dag = dagbag.dags["consortium_run"]
    assert _edges(dag) == {("open_run", "wait_for_roster"), ("wait_for_roster", "watch"), ("watch", "report")}
    assert dag.get_task("report").trigger_rule == "all_done"
    assert dag.params["settings"]["params"] == {"n_estimators": 7, "max_depth": 3}


def test_training_is_scheduled_by_the_own_features_asset_only(dagbag: Any) -> None:
    for bank, other in (("alpha", "beta"), ("beta", "alpha")):
        features, training = dagbag.dags[f"bank_{bank}_features"], dagbag.dags[f"bank_{bank}_training"]
        (outlet,) = features.get_task("extract").outlets
        assert outlet.uri == f"crossbank://{bank}/features"
        (asset,) = training.timetable.asset_condition.objects
        assert asset.uri == outlet.uri
        for dag_id in ("features", "training", "scoring", "purge"):
            for task in dagbag.dags[f"bank_{bank}_{dag_id}"].tasks:
                assert Path(task.config_path).name == f"{bank}.yaml"
                assert other not in task.config_path.rsplit("/", 1)[-1]


def test_dags_do_not_catch_up_and_say_what_they_do(dagbag: Any) -> None:
    for dag in dagbag.dags.values():
        assert dag.catchup is False
        assert "crossbank" in dag.tags
        assert dag.doc_md and len(dag.doc_md) > 50


def test_dags_survive_serialisation(dagbag: Any) -> None:
    from airflow.serialization.serialized_objects import DagSerialization

    for dag in dagbag.dags.values():
        again = DagSerialization.from_dict(json.loads(json.dumps(DagSerialization.to_dict(dag))))
        assert again.task_ids == dag.task_ids


@pytest.mark.parametrize(("value", "expected"), [(None, "0 0 * * *"), ("30 2 * * *", "30 2 * * *"), ("none", "None")])
def test_daily_schedule_is_configurable(
    banks_dir: Path, monkeypatch: pytest.MonkeyPatch, value: str | None, expected: str
) -> None:
    from dags import settings
    from dags.bank_dags import make_bank_dags

    environ = {} if value is None else {"CROSSBANK_DAILY_SCHEDULE": value}
    features, _, scoring, purge = make_bank_dags("alpha", "alpha.yaml", settings.daily_schedule(environ), True)
    for dag in (features, scoring, purge):
        assert getattr(dag.timetable, "expression", str(dag.schedule)) in (expected, value, "@daily")
    assert (features.schedule is None) is (value == "none")
    assert features.is_paused_upon_creation is True


def test_parsing_imports_nothing_heavy(banks_dir: Path, operator_config: Path, tmp_path: Path) -> None:
    code = (
        "import sys, json, dags.bank_dags, dags.consortium_dags, dags.provider.triggers, dags.provider.hook\n"
        f"print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))\n"
        "print(json.dumps([name for name in dir(dags.bank_dags) if name.startswith('bank_')]))"
    )
    environ = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "CROSSBANK_BANKS_DIR": str(banks_dir),
        "CROSSBANK_CONSORTIUM_CONFIG": str(operator_config),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    heavy, dag_names = (json.loads(line) for line in done.stdout.splitlines()[-2:])
    assert heavy == []
    assert len(dag_names) == 8


def test_no_environment_means_no_dags(monkeypatch: pytest.MonkeyPatch) -> None:
    from dags import settings

    assert settings.bank_configs({}).paths == {}
    assert settings.consortium_config({}) is None
    assert settings.paused({}) is None


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"events: x\n", "needs a bank_id"),
        (b"", "needs a bank_id"),
        (b"bank_id: 'a b'\n", "needs a bank_id"),
        (b"bank_id: " + b"a" * 65, "needs a bank_id"),
        (b"bank_id: [secret\n", "is not YAML at line"),
        (b"bank_id: alpha\nevents: \xff secret\n", "is not YAML"),
        (b"bank_id: alpha\nsince: 2026-02-30\n", "is not YAML"),
        (b"[" * 3000, "is not YAML"),
    ],
)
def test_a_wrong_bank_config_is_named_without_its_content_and_takes_no_other_away(
    tmp_path: Path, write_bank: Callable[..., Path], content: bytes, text: str
) -> None:
    from dags.settings import bank_configs

    (tmp_path / "x.yml").write_bytes(content)
    good = write_bank(tmp_path, "alpha")
    found = bank_configs({"CROSSBANK_BANKS_DIR": str(tmp_path)})
    assert found.paths == {"alpha": str(good)} and found.others == ()
    (fault,) = found.faults
    assert text in fault and "x.yml" in fault and "secret" not in fault


def test_files_that_are_no_bank_s_are_told_apart(tmp_path: Path, write_bank: Callable[..., Path]) -> None:
    from dags.settings import bank_configs

    write_bank(tmp_path, "alpha")
    (tmp_path / "mapping.yaml").write_text("confirmed: true\ncolumns: {}\n")
    (tmp_path / "list.yaml").write_text("- 1\n")
    (tmp_path / "operator.yaml").write_text("aggregator: {}\nrun: {}\n")
    (tmp_path / "notes.txt").write_text("bank_id: x\n")
    found = bank_configs({"CROSSBANK_BANKS_DIR": str(tmp_path)})
    assert list(found.paths) == ["alpha"] and found.faults == ()
    assert found.others == ("list.yaml", "mapping.yaml", "operator.yaml")


def test_two_configs_of_one_bank_are_refused_and_others_stay(tmp_path: Path, write_bank: Callable[..., Path]) -> None:
    from dags.settings import bank_configs

    write_bank(tmp_path, "alpha", "one")
    write_bank(tmp_path, "alpha", "two")
    write_bank(tmp_path, "beta")
    found = bank_configs({"CROSSBANK_BANKS_DIR": str(tmp_path)})
    assert list(found.paths) == ["beta"]
    (fault,) = found.faults
    assert "one.yaml and" in fault and "two.yaml all have the bank_id alpha" in fault


def test_what_names_a_bank_here_names_one_on_the_wire(tmp_path: Path) -> None:
    from dags.settings import bank_configs
    from protocol.errors import ProtocolViolation
    from protocol.messages import check_id

    for bank_id in ("a", "a-b_c.9", "9a", "-a", ".a", "a b", "a/b", "a\n", "", "a" * 64, "a" * 65, "\u00e4"):
        (tmp_path / "x.yaml").write_text(json.dumps({"bank_id": bank_id}))
        try:
            known = check_id("bank id", bank_id) == bank_id
        except ProtocolViolation:
            known = False
        assert bool(bank_configs({"CROSSBANK_BANKS_DIR": str(tmp_path)}).paths) is known, bank_id


def test_a_wrong_config_is_an_import_error_of_its_own_and_the_other_banks_keep_their_dags(
    banks_dir: Path, operator_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By Airflow's own parse of the folder. A file with an import error loses its DAGs: it must not be theirs."""
    monkeypatch.setenv("CROSSBANK_BANKS_DIR", str(banks_dir))
    monkeypatch.setenv("CROSSBANK_CONSORTIUM_CONFIG", str(operator_config))
    (banks_dir / "broken.yaml").write_text("bank_id: [secret\n")
    (banks_dir / "mapping.yaml").write_text("confirmed: true\n")
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(dag_folder=str(DAGS))
    assert {name for name in bag.dags if name.startswith("bank_")} == {
        f"bank_{bank}_{dag}" for bank in ("alpha", "beta") for dag in ("features", "training", "scoring", "purge")
    }
    ((path, text),) = bag.import_errors.items()
    assert Path(path).name == "bank_config_faults.py"
    assert "broken.yaml is not YAML" in text and "secret" not in text and "mapping.yaml" not in text


def test_a_missing_folder_and_a_wrong_word_are_named(tmp_path: Path) -> None:
    from dags.settings import SettingsError, bank_configs, paused

    with pytest.raises(SettingsError, match="CROSSBANK_BANKS_DIR"):
        bank_configs({"CROSSBANK_BANKS_DIR": str(tmp_path / "none")})
    with pytest.raises(SettingsError, match="CROSSBANK_DAGS_PAUSED"):
        paused({"CROSSBANK_DAGS_PAUSED": "maybe"})
