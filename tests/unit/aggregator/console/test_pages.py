"""The console's pages: each is given what its template uses, no more and no less, and shows these values."""

import html.parser
import json
from dataclasses import fields, replace
from pathlib import Path

import jinja2.meta
import pytest
from fastapi.testclient import TestClient

from aggregator.console import app as console
from aggregator.console.app import RunPage, RunsPage, build_console, page_templates
from protocol.errors import SubmissionRefused
from protocol.messages import RunEvent, RunSettings, RunView
from protocol.run_state import Phase

TEMPLATES = Path(console.__file__).parent / "templates"
PAGES = {"runs.html": RunsPage, "run.html": RunPage}

SETTINGS = RunSettings(
    title="Q3 <run>",
    roster=("alder_bank", "birch_bank", "cedar_bank"),
    contract_fingerprint="0123456789abcdef" * 4,
    parameters_json=json.dumps({"alert_budget": 0.005, "params": {"max_depth": 6}}),
    rounds=40,
)
TRAINING = RunView(
    run_id="r-1",
    phase=Phase.TRAINING,
    settings=SETTINGS,
    joined=("alder_bank", "cedar_bank"),
    reported=("cedar_bank",),
    step="train/7/12",
    rounds_done=7,
    bytes_received=12_340_000,
    reason="",
    model_sha256="",
    metrics_json="{}",
    created_at=1_790_000_000.0,
    updated_at=1_790_000_061.0,
    events=(
        RunEvent(seq=1, at=1_790_000_000.0, bank="", text="opened"),
        RunEvent(seq=2, at=1_790_000_030.0, bank="alder_bank", text="joined & ready"),
    ),
)
ABORTED = replace(TRAINING, run_id="r-0", phase=Phase.ABORTED, reason="2 banks <left>", step="")
RELEASED = replace(
    TRAINING,
    run_id="r-2",
    phase=Phase.RELEASED,
    step="",
    rounds_done=40,
    model_sha256="fe" * 32,
    metrics_json=json.dumps({"auc_pr": 0.75, "frauds": 12}),
)


class Runs:
    """The part of a coordinator that the console reads."""

    def __init__(self, *views: RunView) -> None:
        self.views = views

    def runs(self) -> list[RunView]:
        return list(self.views)

    def run(self, run_id: str) -> RunView:
        for view in self.views:
            if view.run_id == run_id:
                return view
        raise SubmissionRefused("no such run")


class Reader(html.parser.HTMLParser):
    """The text of each cell of each table row, and of each element that has a class."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.classed: list[tuple[str, str]] = []
        self.progress: list[tuple[str, str]] = []
        self._open: list[tuple[str, str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        elif tag == "progress":
            self.progress.append((given["value"] or "", given["max"] or ""))
        self._open.append((tag, given.get("class") or ""))

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        if any(tag in ("td", "th") for tag, _ in self._open):
            self.rows[-1][-1] += data
        if self._open and self._open[-1][1]:
            self.classed.append((self._open[-1][1], data))


def shown(path: str, *views: RunView) -> Reader:
    answer = TestClient(build_console(Runs(*views)), base_url="http://127.0.0.1").get(path)  # type: ignore[arg-type]
    assert answer.status_code == 200
    return Reader(answer.text)


def used_by(name: str) -> set[str]:
    """The variables that a template and those it extends take from their context."""
    tree = page_templates().parse((TEMPLATES / name).read_text())
    found = set(jinja2.meta.find_undeclared_variables(tree))
    for parent in jinja2.meta.find_referenced_templates(tree):
        assert parent is not None
        found |= used_by(parent)
    return found


@pytest.mark.parametrize("name", sorted(PAGES))
def test_a_page_s_context_is_what_its_template_uses(name: str) -> None:
    assert {field.name for field in fields(PAGES[name])} == used_by(name)


def test_every_template_is_a_page_or_what_pages_extend() -> None:
    assert {path.name for path in TEMPLATES.glob("*")} == {*PAGES, "base.html"}


def test_the_list_shows_each_run_s_figures() -> None:
    page = shown("/", RELEASED, TRAINING, ABORTED)
    assert page.rows == [
        ["Run", "Title", "Phase", "Banks", "Rounds", "Received", "Opened"],
        ["r-2", "Q3 <run>", "RELEASED", "2 of 3", " 40/40", "12.3 MB", "2026-09-21 14:13:20 UTC"],
        ["r-1", "Q3 <run>", "TRAINING", "2 of 3", " 7/40", "12.3 MB", "2026-09-21 14:13:20 UTC"],
        ["r-0", "Q3 <run>", "ABORTED", "2 of 3", " 7/40", "12.3 MB", "2026-09-21 14:13:20 UTC"],
    ]
    assert page.progress == [("40", "40"), ("7", "40"), ("7", "40")]
    assert [text for name, text in page.classed if name == "bad"] == ["ABORTED"]


def test_a_run_s_page_shows_where_it_stands_its_banks_and_its_history() -> None:
    page = shown("/runs/r-1", TRAINING)
    order = [phase.value for phase in Phase if phase is not Phase.ABORTED]
    place = order.index("TRAINING")
    assert [text for name, text in page.classed if name == "done"] == order[:place]
    assert [text for name, text in page.classed if name == "now"] == ["TRAINING"]
    assert page.rows == [
        ["Run", "r-1"],
        ["Boosting rounds", " 7 of 40, step train/7/12"],
        ["Ciphertext received", "12.3 MB"],
        ["Data contract", "0123456789abcdef…"],
        ["Model digest", "not yet"],
        ["Opened, last change", "2026-09-21 14:13:20 UTC, 2026-09-21 14:14:21 UTC"],
        ["Bank", "Joined", "Ended TRAINING"],
        ["alder_bank", "yes", ""],
        ["birch_bank", "waiting", ""],
        ["cedar_bank", "yes", "yes"],
        ["alert_budget", "0.005"],
        ["params", "{'max_depth': 6}"],
        ["2026-09-21 14:13:50 UTC", "alder_bank", "joined & ready"],
        ["2026-09-21 14:13:20 UTC", "", "opened"],
    ]


def test_a_released_run_shows_its_model_and_metrics() -> None:
    page = shown("/runs/r-2", RELEASED)
    assert ["Model digest", "fe" * 32] in page.rows
    assert ["auc_pr", "0.75"] in page.rows and ["frauds", "12"] in page.rows


def test_an_aborted_run_shows_its_reason_and_no_phase_as_done() -> None:
    page = shown("/runs/r-0", ABORTED)
    assert [text for name, text in page.classed if name == "bad"] == ["ABORTED: 2 banks <left>"]
    assert not [text for name, text in page.classed if name in ("done", "now")]
