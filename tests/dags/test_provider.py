"""The provider: valid by Airflow's schema; triggers travel without secrets; operators fail rightly."""

from __future__ import annotations

import asyncio
import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from protocol import errors

#: What may pass by itself, so that a retry can help; all our other errors fail a task at once.
PASSING = {
    "AggregatorUnreachable", "AggregatorFailed", "AlreadyRunning", "NodeNotReady", "RosterChanged", "StorageFull",
}  # fmt: skip
PATHS = {"ca": "/etc/ca.pem", "certificate": "/etc/a.pem", "key": "/etc/a.key"}
ENDPOINT = {"address": "127.0.0.1:9", **PATHS, "give_up_at": 1e12, "poll_seconds": 0.01}


def test_provider_info_is_valid() -> None:
    import airflow
    import jsonschema

    from dags.provider import get_provider_info

    schema = json.loads((Path(airflow.__file__).parent / "provider_info.schema.json").read_text())
    info = get_provider_info()
    jsonschema.validate(info, schema)
    for kind in ("hooks", "operators", "triggers"):
        for entry in info[kind]:
            for module in entry["python-modules"]:
                assert import_module(module).__all__


def test_connection_form_matches_the_hook() -> None:
    from dags.provider import get_provider_info
    from dags.provider.hook import ConsortiumHook

    (connection,) = get_provider_info()["connection-types"]
    assert connection["hook-class-name"] == f"{ConsortiumHook.__module__}.{ConsortiumHook.__name__}"
    assert connection["connection-type"] == ConsortiumHook.conn_type
    assert connection["hook-name"] == ConsortiumHook.hook_name
    assert set(connection["conn-fields"]) == {"ca", "certificate", "key"}


def test_airflow_builds_the_connection_form() -> None:
    from airflow.providers_manager import ProviderInfo, ProvidersManager

    from dags.provider import get_provider_info

    manager = ProvidersManager.__new__(ProvidersManager)
    manager._provider_dict = {"crossbank": ProviderInfo(version="0", data=get_provider_info())}
    manager._hook_name_dict, manager._connection_form_widgets, manager._field_behaviours = {}, {}, {}
    manager._customized_form_fields_schema_validator = __import__(
        "airflow.providers_manager", fromlist=["x"]
    )._create_customized_form_field_behaviours_schema_validator()
    manager._load_ui_metadata()
    assert "extra__crossbank__key" in manager._connection_form_widgets
    assert manager._field_behaviours["crossbank"]["relabeling"]["host"] == "Aggregator host"


def test_hook_reads_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk import Connection

    from dags.provider.hook import ConsortiumHook
    from dags.settings import SettingsError

    connection = Connection(
        conn_id="c", conn_type="crossbank", host="node.example.org", port=8443, extra=json.dumps(PATHS)
    )
    monkeypatch.setattr(ConsortiumHook, "get_connection", classmethod(lambda cls, name: connection))
    endpoint = ConsortiumHook("c").endpoint()
    assert endpoint.address == "node.example.org:8443"
    assert endpoint.key == "/etc/a.key"
    connection.port = None
    with pytest.raises(SettingsError, match="connection c needs a text for 'address'"):
        ConsortiumHook("c").endpoint()


def test_endpoint_paths_are_relative_to_the_config(banks_dir: Path) -> None:
    from dags.provider.endpoint import Endpoint

    endpoint = Endpoint.from_config(banks_dir / "alpha.yaml")
    assert endpoint.key == str(banks_dir / "alpha.key")
    assert endpoint.address == "127.0.0.1:9"


def test_endpoint_agrees_with_the_banks_own_reading(banks_dir: Path) -> None:
    from bank_node.config import load_config
    from dags.provider.endpoint import Endpoint

    endpoint, config = Endpoint.from_config(banks_dir / "beta.yaml"), load_config(banks_dir / "beta.yaml")
    assert endpoint.address == config.aggregator.address
    for name in ("ca", "certificate", "key"):
        assert getattr(endpoint, name) == str(getattr(config.aggregator, name))


@pytest.mark.parametrize(
    ("name", "own"),
    [("RunPhaseTrigger", {"run_id": "r", "phase": "KEYING"}), ("OpenRunTrigger", {"bank_id": "a"})],
)
def test_triggers_travel(name: str, own: dict[str, str]) -> None:
    from airflow.serialization.serialized_objects import BaseSerialization

    module = import_module("dags.provider.triggers")
    trigger = getattr(module, name)(**own, **ENDPOINT)
    path, arguments = trigger.serialize()
    assert set(arguments) == {*own, *ENDPOINT}
    again = BaseSerialization.deserialize(json.loads(json.dumps(BaseSerialization.serialize(arguments))))
    where, class_name = path.rsplit(".", 1)
    assert getattr(import_module(where), class_name)(**again).serialize() == (path, arguments)


def _fire(trigger: Any) -> dict[str, Any]:
    async def first() -> Any:
        return [event async for event in trigger.run()]

    (event,) = asyncio.run(first())
    return dict(event.payload)


@pytest.mark.parametrize(("phase", "outcome"), [("TRAINING", "reached"), ("ABORTED", "aborted")])
def test_phase_trigger_fires(monkeypatch: pytest.MonkeyPatch, make_view: Any, phase: str, outcome: str) -> None:
    import aggregator.operator.client
    from dags.provider.triggers import RunPhaseTrigger

    calls: list[tuple[str, ...]] = []

    async def fetch(*arguments: str) -> Any:
        calls.append(arguments)
        return make_view() if len(calls) < 3 else make_view(phase=phase, reason="why")

    monkeypatch.setattr(aggregator.operator.client, "fetch_run_async", fetch)
    assert _fire(RunPhaseTrigger(run_id="r", phase="KEYING", **ENDPOINT))["outcome"] == outcome
    assert calls == [("127.0.0.1:9", "/etc/ca.pem", "/etc/a.pem", "/etc/a.key", "r")] * 3


def test_triggers_do_not_poll_on_when_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import aggregator.operator.client
    from dags.provider.triggers import OpenRunTrigger
    from protocol.errors import AggregatorUnreachable, RemoteError

    answers: list[Any] = [AggregatorUnreachable("restarting"), RemoteError("PERMISSION_DENIED")]

    async def refuse(*arguments: str) -> Any:
        raise answers.pop(0)

    monkeypatch.setattr(aggregator.operator.client, "list_runs_async", refuse)
    event = _fire(OpenRunTrigger(bank_id="a", **ENDPOINT))
    assert event["outcome"] == "unreachable"
    assert "PERMISSION_DENIED" in event["message"]
    assert answers == []


def test_waiting_operator_defers_and_judges_the_event(banks_dir: Path) -> None:
    from airflow.sdk.exceptions import AirflowException, AirflowFailException, TaskDeferred

    from dags.provider.operators import WaitForPhase

    operator = WaitForPhase(task_id="w", run_id="r", phase="KEYING", config_path=str(banks_dir / "alpha.yaml"))
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute({})
    assert deferred.value.method_name == "resume"
    assert deferred.value.trigger.key == str(banks_dir / "alpha.key")
    run = {"run_id": "r", "phase": "KEYING"}
    assert operator.resume({}, {"outcome": "reached", "message": "", "run": run}) == run
    with pytest.raises(AirflowFailException, match="because"):
        operator.resume({}, {"outcome": "aborted", "message": "because", "run": run})
    with pytest.raises(AirflowFailException):
        operator.resume({}, {"outcome": "timeout", "message": "", "run": None})
    with pytest.raises(AirflowException) as retryable:
        operator.resume({}, {"outcome": "unreachable", "message": "", "run": None})
    assert not isinstance(retryable.value, AirflowFailException)
    operator.fail_on_abort = False
    assert operator.resume({}, {"outcome": "aborted", "message": "", "run": run}) == run


def test_no_open_run_skips(banks_dir: Path) -> None:
    from airflow.sdk.exceptions import AirflowSkipException

    from dags.provider.operators import WaitForOpenRun

    operator = WaitForOpenRun(task_id="w", bank_id="alpha", config_path=str(banks_dir / "alpha.yaml"))
    assert operator.resume({}, {"outcome": "reached", "message": "", "run_id": "r"}) == "r"
    with pytest.raises(AirflowSkipException):
        operator.resume({}, {"outcome": "timeout", "message": "", "run_id": None})


def test_wrong_arguments_are_refused_when_the_dag_is_parsed() -> None:
    from dags.provider.operators import BankStepOperator, WaitForPhase

    with pytest.raises(ValueError, match="phase must be one of"):
        WaitForPhase(task_id="w", run_id="r", phase="FINISHED")
    with pytest.raises(ValueError, match="step must be one of"):
        BankStepOperator(task_id="s", step="steal", config_path="c")
    with pytest.raises(ValueError, match="needs a run_id"):
        BankStepOperator(task_id="s", step="train", config_path="c")
    with pytest.raises(ValueError, match="takes no run_id"):
        BankStepOperator(task_id="s", step="score", config_path="c", run_id="r")


class _Client:
    """A stand-in for `aggregator.operator.client.OperatorClient`."""

    def __init__(self, views: list[Any]) -> None:
        self.views = views
        self.opened: list[Any] = []
        self.aborted: list[str] = []

    def __enter__(self) -> _Client:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def list_runs(self) -> list[Any]:
        return self.views

    def open_run(self, settings: Any) -> str:
        self.opened.append(settings)
        return "opened"

    def get_run(self, run_id: str) -> Any:
        return self.views[0]

    def abort_run(self, run_id: str, reason: str) -> None:
        self.aborted.append(run_id)
        self.views[0].phase, self.views[0].reason = "ABORTED", reason


def _context(try_number: int = 1, **params: Any) -> Any:
    from datetime import UTC, datetime
    from types import SimpleNamespace

    run = SimpleNamespace(start_date=datetime.fromtimestamp(50.0, UTC))
    return {"ti": SimpleNamespace(try_number=try_number), "params": params, "dag_run": run}


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch, make_view: Any) -> _Client:
    from dags.provider.endpoint import Endpoint

    client = _Client([make_view(run_id="first")])
    monkeypatch.setattr(Endpoint, "client", lambda self: client)
    return client


def test_open_run_merges_settings(operator_config: Path, client: _Client) -> None:
    from dags.provider.operators import OpenRunOperator

    operator = OpenRunOperator(task_id="o", config_path=str(operator_config))
    assert operator.execute(_context(settings={"title": "mine", "enrol_seconds": 60})) == "opened"
    (settings,) = client.opened
    assert settings.roster == ("alpha", "beta")
    assert (settings.title, settings.enrol_seconds, settings.rounds) == ("mine", 60, 7)
    assert json.loads(settings.parameters_json) == {
        "alert_budget": None,
        "data_until": None,
        "params": {"max_depth": 3, "n_estimators": 7},
        "train_until": "2026-03-01T00:00:00",
        "tuning": None,
        "validate_from": None,
        "weight_column": "",
    }


def test_the_command_opens_the_very_run_that_the_dag_opens(
    operator_config: Path, client: _Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    import aggregator.cli
    from dags.provider.operators import OpenRunOperator

    monkeypatch.setattr(aggregator.cli, "_client", lambda config: client)
    OpenRunOperator(task_id="o", config_path=str(operator_config)).execute(_context())
    command = ["open-run", "--config", str(operator_config)]
    assert CliRunner().invoke(aggregator.cli.app, command).stdout == "opened\n"
    changes = {"data_until": "2026-03-09", "alert_budget": 0.02}
    OpenRunOperator(task_id="o", config_path=str(operator_config)).execute(_context(settings=changes))
    CliRunner().invoke(aggregator.cli.app, [*command, "--data-until", "2026-03-09", "--alert-budget", "0.02"])
    dag, told, dag_changed, told_changed = client.opened
    assert dag == told and dag_changed == told_changed and dag != dag_changed


def test_banks_understand_the_announced_plan(operator_config: Path) -> None:
    from dags.settings import read_mapping
    from protocol.run_plan import RunPlan, RunRequest

    search = {"sets": [{"eta": 0.1}, {"eta": 0.3}, {}], "rungs": [4, 9]}
    searching = RunRequest.of(
        read_mapping(operator_config)["run"] | {"tuning": search, "validate_from": "2026-02-10"}
    ).settings
    assert searching.rounds == 3 * 4 + 2 * 5
    assert RunPlan.from_json(searching.parameters_json).tuning.model_dump(mode="json") == search
    later = {"validate_from": "2026-02-10", "weight_column": "amount"}
    settings = RunRequest.of(read_mapping(operator_config)["run"], later).settings
    plan = RunPlan.from_json(settings.parameters_json)
    assert (plan.params["n_estimators"], plan.train_until.isoformat()) == (7, "2026-03-01T00:00:00")
    assert (plan.validate_from.isoformat(), plan.weight_column) == ("2026-02-10T00:00:00", "amount")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"tuning": {}}, "tuning.sets: is missing; tuning.rungs: is missing"),
        ({"tuning": [1]}, "tuning: "),
        ({"tuning": {"sets": "abc", "rungs": [1]}}, "tuning.sets: "),
        ({"tuning": {"sets": [{}, {}], "rungs": [1]}}, "names no validate_from"),
        ({"tuning": {"sets": [{}, {}], "rungs": [2, 1]}, "validate_from": "2026-02-10"}, "increasing numbers"),
    ],
)
def test_a_search_that_can_t_work_is_refused_at_the_operator(operator_config: Path, given: dict, said: str) -> None:
    from dags.settings import read_mapping
    from protocol.errors import PlanError
    from protocol.run_plan import RunRequest

    with pytest.raises(PlanError, match=said):
        RunRequest.of(read_mapping(operator_config)["run"], given)


def test_a_retry_of_open_run_opens_no_second_run(operator_config: Path, client: _Client) -> None:
    from dags.provider.operators import OpenRunOperator

    operator = OpenRunOperator(task_id="o", config_path=str(operator_config))
    assert operator.execute(_context(try_number=2)) == "first"
    assert client.opened == []


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"roster": []}, "roster: "),
        ({"colour": "red"}, "colour: unknown key"),
        ({"roster": "alpha"}, "list of banks"),
        ({"params": {"n_estimators": 0}}, "n_estimators must be between 1 and 10000"),
        ({"contract_fingerprint": "xyz"}, "contract fingerprint"),
        ({"enrol_seconds": "soon"}, "enrol_seconds: "),
    ],
)
def test_wrong_settings_fail_for_good(
    operator_config: Path, client: _Client, settings: dict[str, Any], text: str
) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    from dags.provider.operators import OpenRunOperator

    operator = OpenRunOperator(task_id="o", config_path=str(operator_config))
    with pytest.raises(AirflowFailException, match=text):
        operator.execute(_context(settings=settings))
    assert client.opened == []


def test_closing(operator_config: Path, client: _Client, make_view: Any) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    from dags.provider.operators import CloseRunOperator

    operator = CloseRunOperator(task_id="c", config_path=str(operator_config), run_id="first")
    with pytest.raises(AirflowFailException, match="gave up"):
        operator.execute(_context())
    assert client.aborted == ["first"]
    client.views[:] = [make_view(phase="RELEASED", model_sha256="ab")]
    assert operator.execute(_context())["model_sha256"] == "ab"
    assert client.aborted == ["first"]
    operator.run_id = "None"
    with pytest.raises(AirflowFailException, match="No run was opened"):
        operator.execute(_context())


@pytest.mark.parametrize(
    ("error", "final"),
    [
        *((f"protocol.errors.{name}", name not in PASSING) for name in errors.__all__),
        ("bank_node.boosting.errors.RowError", True),
        ("features.errors.SchemaError", True),
        ("features.errors.TooManyQuarantined", True),
        ("builtins.OSError", False),
    ],
)
def test_steps_retry_only_what_can_pass(monkeypatch: pytest.MonkeyPatch, error: str, final: bool) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    import bank_node.pipeline
    from dags.provider.operators import BankStepOperator

    module, name = error.rsplit(".", 1)
    kind = getattr(import_module(module), name)

    def train(config_path: str, run_id: str, *, log: Any) -> dict[str, Any]:
        assert (config_path, run_id) == ("c.yaml", "r")
        log("tree", 1, "of 50")
        raise kind("what went wrong")

    monkeypatch.setattr(bank_node.pipeline, "train", train)
    operator = BankStepOperator(task_id="t", step="train", config_path="c.yaml", run_id="r")
    with pytest.raises(AirflowFailException if final else kind, match="what went wrong"):
        operator.execute({})


def test_steps_exist_in_the_pipeline() -> None:
    import bank_node.pipeline
    from dags.provider.operators import BankStepOperator

    assert all(callable(getattr(bank_node.pipeline, step)) for step in BankStepOperator.STEPS)
