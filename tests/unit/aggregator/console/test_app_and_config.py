"""The operator's page and configuration: what is shown is escaped and current; unknown keys are refused."""

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from aggregator.config import load_config
from aggregator.console.app import build_console
from protocol.errors import ConfigError
from tests.conftest import BANKS, FINGERPRINT, Node


def test_the_page_shows_runs_phases_banks_and_history(node: Node) -> None:
    web = TestClient(build_console(node.server.coordinator), base_url="http://127.0.0.1:7480")
    assert "No run yet" in web.get("/").text
    run_id = node.open(title="<b>quarterly</b>")
    node.session(BANKS[0], run_id).join(FINGERPRINT)
    page = web.get("/").text
    assert run_id in page and "1 of 3" in page and "&lt;b&gt;quarterly" in page and "<b>quarterly" not in page
    run = web.get(f"/runs/{run_id}").text
    assert "joined (1 of 3)" in run and all(bank in run for bank in BANKS)
    body = web.get(f"/api/runs/{run_id}").json()
    assert body["phase"] == "ENROLLING" and body["joined"] == [BANKS[0]]
    assert web.get("/runs/nope").status_code == 404 and web.get("/health").json() == {"status": "ok"}


def test_the_page_answers_to_its_own_names_only(node: Node) -> None:
    """A page of elsewhere whose name points here (DNS rebinding) can't have its visitor's browser read the runs."""
    app = build_console(node.server.coordinator, hosts=("localhost", "node.example.org"))
    paths = ["/", "/api/runs", "/health"]
    for path in paths:
        assert TestClient(app, base_url="http://node.example.org:7480").get(path).status_code == 200
        assert TestClient(app, base_url="http://evil.example.com:7480").get(path).status_code == 400


@pytest.mark.parametrize("text", ["[1, 2]", "33", "null", '"xx"', "{broken", "[" * 5000])
def test_parameters_and_metrics_that_are_no_mapping_do_not_break_the_page(node: Node, text: str) -> None:
    """Banks and operators of other versions write them; the page shows what it can."""
    from dataclasses import replace

    run_id = node.open()
    coordinator = node.server.coordinator
    run = coordinator._runs[run_id]
    run.settings, run.metrics_json = replace(run.settings, parameters_json=text), text
    web = TestClient(build_console(coordinator), base_url="http://localhost")
    assert web.get(f"/runs/{run_id}").status_code == 200 and web.get("/").status_code == 200


def test_the_page_can_change_nothing(node: Node) -> None:
    app = build_console(node.server.coordinator)
    methods = {method for route in app.routes for method in getattr(route, "methods", ())}
    assert methods <= {"GET", "HEAD"}


def test_runs_under_way_go_on_when_the_node_starts_again(node: Node) -> None:
    from aggregator.persistence.store import Store
    from aggregator.runs.coordinator import Coordinator

    waiting, running = node.open(), node.open(["alder_bank"])
    session = node.session("alder_bank", running)
    session.join(FINGERPRINT)
    again = Coordinator(Store(f"sqlite:///{node.folder / 'aggregator.db'}"))
    assert again.run(waiting).phase == "ENROLLING"
    view = again.run(running)
    assert view.phase == "KEYING" and view.members == ("alder_bank",)
    assert any("restarted" in event.text for event in view.events)


def test_a_roster_that_does_not_come_together_ends_at_the_deadline(node: Node) -> None:
    run_id = node.open(enrol_seconds=1)
    node.session(BANKS[0], run_id).join(FINGERPRINT)
    node.server.coordinator._now = lambda: 4e9
    node.server.coordinator.enforce_deadlines()
    view = node.server.coordinator.run(run_id)
    assert view.phase == "ABORTED" and view.reason == "not joined within 1 s: birch_bank, cedar_bank"


@pytest.mark.parametrize(
    ("text", "message"),
    [("listen: x\ntypo: 1\n", "typo: Extra inputs"), ("- a\n", "must be a mapping"), ("a: [", "is not YAML")],
)
def test_a_wrong_configuration_names_file_and_key(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "node.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"node\.yaml") as caught:
        load_config(path)
    assert message in str(caught.value)
