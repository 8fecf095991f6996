"""The REST client: tokens, escaping, waiting and useful errors, against a scripted server."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from simulator.airflow.rest import AirflowRest, AirflowRestError

Handler = Callable[[httpx.Request], httpx.Response]


class Server:
    """Hands out numbered tokens and lets the newest in; answers the rest by a handler."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.tokens = 0
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/auth/token":
            self.tokens += 1
            return httpx.Response(201, json={"access_token": f"t{self.tokens}"})
        self.requests.append(request)
        if request.headers.get("authorization") != f"Bearer t{self.tokens}":
            return httpx.Response(401, json={"detail": "Invalid JWT token"})
        return self.handler(request)


def _rest(handler: Handler) -> tuple[AirflowRest, Server]:
    server = Server(handler)
    return AirflowRest("http://127.0.0.1:1", "admin", "secret-word", transport=httpx.MockTransport(server)), server


def test_trigger_sends_the_required_key_and_returns_the_run_id() -> None:
    rest, server = _rest(lambda request: httpx.Response(200, json={"dag_run_id": "manual__1"}))
    assert rest.trigger("consortium_run", {"a": 1}) == "manual__1"
    assert json.loads(server.requests[0].content) == {"logical_date": None, "conf": {"a": 1}}


def test_an_expired_token_is_renewed_once() -> None:
    rest, server = _rest(lambda request: httpx.Response(200, json={"state": "running"}))
    assert rest.state("d", "r") == "running"
    server.tokens += 1
    assert rest.state("d", "r") == "running"
    assert server.tokens == 3


def test_a_refusal_is_not_repeated_for_ever() -> None:
    rest, server = _rest(lambda request: httpx.Response(401, json={"detail": "no"}))
    with pytest.raises(AirflowRestError, match="401") as caught:
        rest.state("d", "r")
    assert caught.value.status == 401
    assert server.tokens == 2


def test_run_ids_are_escaped() -> None:
    rest, server = _rest(lambda request: httpx.Response(200, json={"state": "queued"}))
    rest.state("d", "manual__2026-11-24T02:08:42+00:00")
    assert b"%2B00%3A00" in server.requests[0].url.raw_path


def test_errors_carry_airflows_reason_and_no_password() -> None:
    rest, _ = _rest(lambda request: httpx.Response(404, json={"detail": "Dag with dag_id: 'x' not found"}))
    with pytest.raises(AirflowRestError, match="Dag with dag_id: 'x' not found"):
        rest.trigger("x")
    assert "secret-word" not in repr(rest)
    assert rest.xcom("d", "r", "t") is None


def test_an_unreachable_airflow_is_named() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("Connection refused")

    rest = AirflowRest("http://127.0.0.1:1", "a", "b", transport=httpx.MockTransport(refuse))
    with pytest.raises(AirflowRestError, match=r"http://127\.0\.0\.1:1 cannot be reached"):
        rest.health()


def _tasks(*states: str) -> dict[str, Any]:
    return {
        "task_instances": [
            {"task_id": f"t{number}", "state": state, "try_number": 1, "duration": 1.0}
            for number, state in enumerate(states)
        ]
    }


def test_wait_reports_progress_and_ends() -> None:
    states = iter(["queued", "running", "success"])

    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/taskInstances"):
            return httpx.Response(200, json=_tasks("running"))
        return httpx.Response(200, json={"state": next(states)})

    rest, _ = _rest(handler)
    seen: list[str] = []
    assert rest.wait("d", "r", timeout=5, poll=0, on_poll=lambda state, tasks: seen.append(state)) == "success"
    assert seen == ["queued", "running", "success"]


def test_wait_that_takes_too_long_names_the_open_tasks() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/taskInstances"):
            return httpx.Response(200, json=_tasks("success", "deferred"))
        return httpx.Response(200, json={"state": "running"})

    rest, _ = _rest(handler)
    with pytest.raises(AirflowRestError, match="t1: deferred"):
        rest.wait("d", "r", timeout=-1, poll=0)


def test_failure_shows_the_end_of_the_log() -> None:
    error = {"exc_type": "ValueError", "exc_value": "the reason"}
    content = [{"event": "one"}, {"event": "Task failed", "error_detail": [error]}, {"event": "::endgroup::"}]

    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/taskInstances"):
            return httpx.Response(200, json=_tasks("success", "failed"))
        return httpx.Response(200, json={"content": content})

    rest, _ = _rest(handler)
    text = rest.failure("d", "r", lines=1)
    assert "d.t1 failed" in text
    assert "ValueError: the reason" in text
    assert "one" not in text


def test_a_broken_dag_file_ends_the_wait_for_dags() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/importErrors"):
            return httpx.Response(200, json={"import_errors": [{"filename": "f.py", "stack_trace": "boom"}]})
        return httpx.Response(200, json={"dags": []})

    rest, _ = _rest(handler)
    with pytest.raises(AirflowRestError, match=r"(?s)f\.py.*boom"):
        rest.wait_for_dags(["d"], timeout=1)
