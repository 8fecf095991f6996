"""Operators and triggers against a real aggregator in this process, over mutual TLS. No Airflow processes."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

FINGERPRINT = "a" * 64


@dataclass(kw_only=True)
class Node:
    """A running aggregator and who may talk to it."""

    server: Any
    operator_config: str
    folder: Path

    def arguments(self, identity: str) -> dict[str, Any]:
        """The arguments of a trigger that runs as ``identity``."""
        return {
            "address": f"127.0.0.1:{self.server.port}",
            "ca": str(self.folder / "ca.pem"),
            "certificate": str(self.folder / f"{identity}.pem"),
            "key": str(self.folder / f"{identity}.key"),
            "give_up_at": time.time() + 20,
            "poll_seconds": 0.05,
        }


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    from aggregator.config import AggregatorConfig
    from aggregator.pki.ca import create_ca, issue_server_certificate, make_key_and_request, sign_request
    from aggregator.server import AggregatorServer

    folder = tmp_path_factory.mktemp("node")
    create_ca(folder)
    issue_server_certificate(folder, ("localhost", "127.0.0.1"))
    for identity, role in (("operator", "operator"), ("alpha", "bank"), ("gamma", "bank")):
        request = make_key_and_request(folder / f"{identity}.key", identity, role)
        (folder / f"{identity}.pem").write_bytes(sign_request(folder, request, identity, role))
    server = AggregatorServer(
        AggregatorConfig(
            adding_processes=0,
            listen="127.0.0.1:0",
            console=None,
            ca=folder / "ca.pem",
            certificate=folder / "aggregator.pem",
            key=folder / "aggregator.key",
            store=f"sqlite:///{folder / 'node.db'}",
        )
    )
    server.start()
    config = folder / "operator.yaml"
    config.write_text(
        f"""
aggregator:
  address: "127.0.0.1:{server.port}"
  ca: ca.pem
  certificate: operator.pem
  key: operator.key
run: {{roster: [alpha, beta], minimum_roster: 2, contract_fingerprint: {FINGERPRINT}, params: {{n_estimators: 3}}}}
"""
    )
    yield Node(server=server, operator_config=str(config), folder=folder)
    server.stop()


def _context(try_number: int = 1) -> Any:
    started = datetime.fromtimestamp(time.time() - 60, UTC)
    return {
        "ti": SimpleNamespace(try_number=try_number),
        "params": {},
        "dag_run": SimpleNamespace(start_date=started),
    }


def _open(node: Node, try_number: int = 1) -> str:
    from dags.provider.operators import OpenRunOperator

    return OpenRunOperator(task_id="o", config_path=node.operator_config).execute(_context(try_number))


def _close(node: Node, run_id: str) -> Any:
    from dags.provider.operators import CloseRunOperator

    return CloseRunOperator(task_id="c", config_path=node.operator_config, run_id=run_id).execute(_context())


def _abort(node: Node, run_id: str, reason: str) -> None:
    from dags.provider.endpoint import Endpoint

    with Endpoint.from_config(node.operator_config).client() as client:
        client.abort_run(run_id, reason)


def _fire(trigger: Any) -> dict[str, Any]:
    async def first() -> Any:
        return [event async for event in trigger.run()]

    (event,) = asyncio.run(first())
    return dict(event.payload)


def test_a_run_is_opened_found_by_its_bank_and_closed(node: Node) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    from dags.provider.triggers import OpenRunTrigger

    run_id = _open(node)
    event = _fire(OpenRunTrigger(bank_id="alpha", **node.arguments("alpha")))
    assert (event["outcome"], event["run_id"]) == ("reached", run_id)
    assert _open(node, try_number=2) == run_id
    with pytest.raises(AirflowFailException, match=rf"{run_id} was aborted: the consortium's DAG gave up"):
        _close(node, run_id)


def test_a_bank_that_is_not_invited_goes_on_waiting(node: Node) -> None:
    from dags.provider.triggers import OpenRunTrigger

    run_id = _open(node)
    arguments = {**node.arguments("gamma"), "give_up_at": time.time() + 0.5}
    assert _fire(OpenRunTrigger(bank_id="gamma", **arguments))["outcome"] == "timeout"
    _abort(node, run_id, "test")


def test_the_phase_trigger_fires_on_a_real_abort(node: Node) -> None:
    from dags.provider.triggers import RunPhaseTrigger

    run_id = _open(node)
    later = threading.Timer(0.4, _abort, (node, run_id, "beta never came"))
    later.start()
    event = _fire(RunPhaseTrigger(run_id=run_id, phase="KEYING", **node.arguments("operator")))
    later.join()
    assert event["outcome"] == "aborted"
    assert "beta never came" in event["message"]
    assert event["run"]["rounds_total"] == 3


def test_a_stranger_is_told_at_once(node: Node) -> None:
    from dags.provider.triggers import RunPhaseTrigger

    run_id = _open(node)
    begun = time.monotonic()
    event = _fire(RunPhaseTrigger(run_id=run_id, phase="KEYING", **node.arguments("gamma")))
    assert event["outcome"] == "unreachable"
    assert time.monotonic() - begun < 5
    _abort(node, run_id, "test")


def test_the_hooks_test_button(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk import Connection

    from dags.provider.hook import ConsortiumHook

    files = {name: str(node.folder / file) for name, file in (("ca", "ca.pem"), ("certificate", "operator.pem"))}
    connection = Connection(conn_id="c", conn_type="crossbank", host="127.0.0.1", port=node.server.port)
    connection.extra = json.dumps({**files, "key": str(node.folder / "operator.key")})
    monkeypatch.setattr(ConsortiumHook, "get_connection", classmethod(lambda cls, name: connection))
    ok, message = ConsortiumHook("c").test_connection()
    assert ok, message
    connection.port = 1
    ok, message = ConsortiumHook("c").test_connection()
    assert not ok
    assert "127.0.0.1:1" in message
