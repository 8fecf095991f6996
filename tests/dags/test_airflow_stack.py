"""The stack of Airflow: private settings, clear errors, nothing left running. Once for real (slow)."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from simulator.airflow import stack as airflow_stack
from simulator.airflow.stack import (
    AirflowStack,
    AirflowStackError,
    listening_addresses,
    stop_stack,
)


def _sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])


@pytest.fixture
def stack(tmp_path: Path) -> AirflowStack:
    (tmp_path / "dags").mkdir()
    return AirflowStack(tmp_path / "home", tmp_path / "dags", env={"CROSSBANK_BANKS_DIR": "b"}, parallelism=9)


def test_settings_keep_airflow_private(stack: AirflowStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "the-users-own")
    stack._prepare()
    environment = stack._environment()
    assert "AIRFLOW__CORE__FERNET_KEY" not in environment
    assert environment["AIRFLOW_HOME"] == str(stack.home)
    assert environment["CROSSBANK_BANKS_DIR"] == "b"
    assert environment["AIRFLOW__CORE__PARALLELISM"] == "9"
    assert environment["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == f"{stack.url}/execution/"
    assert environment["PATH"].split(":")[0] == str(Path(sys.executable).parent)
    assert "127.0.0.1" in environment["NO_PROXY"]
    assert str(stack.home) in environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]
    for name in ("scheduler", "triggerer"):
        assert "--skip-serve-logs" in airflow_stack._COMPONENTS[name]


def test_the_password_is_random_kept_and_unreadable_to_others(stack: AirflowStack, tmp_path: Path) -> None:
    stack._prepare()
    path = stack.home / "passwords.json"
    assert json.loads(path.read_text()) == {"admin": stack.password}
    assert path.stat().st_mode & 0o077 == 0
    again = AirflowStack(stack.home, stack.dags_folder)
    again._prepare()
    assert again.password == stack.password
    other = AirflowStack(tmp_path / "other", stack.dags_folder)
    other._prepare()
    assert other.password != stack.password


def test_a_dead_component_is_named_with_the_end_of_its_log(stack: AirflowStack) -> None:
    stack._prepare()
    stack._launch("scheduler", ["no-such-command"], stack._environment())
    stack._processes[0].popen.wait(timeout=60)
    with pytest.raises(AirflowStackError, match=r"(?s)scheduler ended with exit code.*scheduler\.log.*\S"):
        stack.check()
    stack.stop()
    assert not (stack.home / "processes.json").exists()


def test_a_missing_dag_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AirflowStackError, match="does not exist"), AirflowStack(tmp_path, tmp_path / "none"):
        pass


def test_stop_ends_children_too() -> None:
    sleep = "import time; time.sleep(60)"
    code = f"import subprocess; subprocess.Popen([{sys.executable!r}, '-c', {sleep!r}]); {sleep}"
    parent = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    deadline = time.monotonic() + 10
    while not (children := psutil.Process(parent.pid).children()) and time.monotonic() < deadline:
        time.sleep(0.02)
    airflow_stack._end([parent.pid])
    assert children
    for pid in (parent.pid, *(child.pid for child in children)):
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_stop_stack_spares_a_reused_process_id(tmp_path: Path) -> None:
    mine, stranger = _sleeper(), _sleeper()
    try:
        created = psutil.Process(mine.pid).create_time()
        records = [
            {"name": "scheduler", "pid": mine.pid, "created": created},
            {"name": "triggerer", "pid": stranger.pid, "created": created - 1000.0},
        ]
        (tmp_path / "processes.json").write_text(json.dumps(records))
        with pytest.raises(AirflowStackError, match="running already"):
            AirflowStack(tmp_path, tmp_path).start()
        assert stop_stack(tmp_path) == ["scheduler"]
        assert not psutil.pid_exists(mine.pid)
        assert stranger.poll() is None
        assert stop_stack(tmp_path) == []
    finally:
        for process in (mine, stranger):
            process.kill()
            process.wait()


def test_listening_addresses_sees_a_socket() -> None:
    import os
    import socket

    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        assert server.getsockname() in listening_addresses([os.getpid()])


_DAG = """
from datetime import datetime
from airflow.sdk import dag, task

@dag(dag_id="small", schedule=None, start_date=datetime(2026, 1, 1), catchup=False)
def make():
    @task
    def answer():
        print("working")
        return {"answer": 42}

    @task
    def fail(value):
        raise ValueError("asked to fail")

    fail(answer())

make()
"""


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_real_airflow_runs_a_dag_on_the_loopback_only(stack: AirflowStack) -> None:
    (stack.dags_folder / "small.py").write_text(_DAG)
    with stack, stack.rest() as rest:
        assert stack.seconds_to_healthy is not None and stack.seconds_to_healthy < 60
        assert {address for address, _ in listening_addresses(list(stack.pids().values()))} == {"127.0.0.1"}
        rest.wait_for_dags(["small"])
        rest.unpause("small")
        run_id = rest.trigger("small")
        assert rest.wait("small", run_id, timeout=120) == "failed"
        assert rest.xcom("small", run_id, "answer") == {"answer": 42}
        assert "working" in rest.task_log("small", run_id, "answer")
        assert "asked to fail" in rest.failure("small", run_id)
        pids = stack.pids()
    assert set(pids) == {"api-server", "scheduler", "dag-processor", "triggerer"}
    assert not any(psutil.pid_exists(pid) for pid in pids.values())


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_real_airflow_keeps_the_other_banks_dags_when_one_config_is_wrong(tmp_path: Path) -> None:
    banks, dags = tmp_path / "banks", Path(__file__).resolve().parents[2] / "dags"
    banks.mkdir()
    node = '{address: "127.0.0.1:9", ca: ca.pem, certificate: c.pem, key: k.key}'
    (banks / "alpha.yaml").write_text(f"bank_id: alpha\nevents: e\nwork_dir: w\naggregator: {node}\n")
    (banks / "beta.yaml").write_text("bank_id: [beta\n")
    (banks / "mapping.yaml").write_text("confirmed: true\n")
    env = {"CROSSBANK_BANKS_DIR": str(banks), "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "2"}
    stack = AirflowStack(tmp_path / "home", dags, env=env)
    with stack, stack.rest() as rest:

        def until(done: Callable[[], bool]) -> None:
            end = time.monotonic() + 90
            while not done():
                assert time.monotonic() < end, (rest.dag_ids(), rest.import_errors())
                time.sleep(1)

        # Not wait_for_dags, which gives up at an import error.
        until(lambda: bool(rest.import_errors()) and len(rest.dag_ids()) == 4)
        ((where, text),) = rest.import_errors().items()
        assert where.endswith("bank_config_faults.py") and "beta.yaml is not YAML" in text
        rest.unpause("bank_alpha_purge")
        run_id = rest.trigger("bank_alpha_purge")
        assert rest.state("bank_alpha_purge", run_id) in ("queued", "running"), "a stale DAG can't be triggered"
        (banks / "beta.yaml").write_text((banks / "alpha.yaml").read_text().replace("alpha", "beta"))
        until(lambda: len(rest.dag_ids()) == 8 and not rest.import_errors())
