"""The node's disk is full for a while, in any phase: it says so, tells nothing that it has not kept, and goes on."""

import json
import random
import resource
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from aggregator.operator.client import OperatorClient
from aggregator.persistence.store import Store
from aggregator.runs.run import load_run
from protocol.errors import AggregatorUnreachable
from protocol.messages import RunView
from protocol.run_state import Phase
from simulator.harness.processes import operator_files
from tests.simulation.chaos import Chaos, chaos, undisturbed
from tests.simulation.tables import small_table

NO_LIMIT = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


def _health(consortium: Chaos) -> tuple[int, dict[str, str]]:
    try:
        with urllib.request.urlopen(f"{consortium.node.console}/health", timeout=20) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
    except urllib.error.URLError:
        return 0, {}  # the page starts a moment after the node


def _healthy(consortium: Chaos, status: int) -> None:
    give_up = time.monotonic() + 60
    while _health(consortium)[0] != status:
        assert time.monotonic() < give_up, f"the node's health is not {status}"
        time.sleep(0.1)


def _kept(consortium: Chaos) -> tuple[object, ...]:
    store = Store(f"sqlite:///{consortium.folder / 'node' / 'aggregator.db'}")
    row = store.run(consortium.run_id)
    assert row is not None
    return _state(load_run(store, row, 0.0).view())


def _state(view: RunView) -> tuple[object, ...]:
    return view.phase, view.joined, view.members, view.attempt, view.reported, view.reason, len(view.events)


def _reached(view: RunView, phase: Phase) -> bool:
    order = list(Phase)
    return order.index(Phase(view.phase)) >= order.index(phase)


@pytest.mark.parametrize(
    "phase",
    [
        Phase.TRAINING,
        *(pytest.param(phase, marks=pytest.mark.slow) for phase in (Phase.ENROLLING, Phase.KEYING, Phase.BINNING)),
    ],
)
def test_a_full_disk_stops_the_node_s_word_and_nothing_else(tmp_path: Path, phase: Phase) -> None:
    table = small_table(banks=3, rows=900, features=4)
    with chaos(tmp_path / "run", table) as consortium:
        _healthy(consortium, 200)
        banks = list(table.train)
        for bank in banks if phase is not Phase.ENROLLING else banks[:1]:
            consortium.start(bank)
        consortium.wait(lambda v: _reached(v, phase) and bool(v.joined))
        time.sleep(random.uniform(0, 0.2))
        # As a full disk does, it refuses each write that would make a file longer, and most others.
        resource.prlimit(consortium.node.pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
        for bank in banks:
            if bank not in consortium.banks:
                consortium.start(bank)
        with OperatorClient(consortium.node.address, operator_files(consortium.certificates)) as operator:
            with pytest.raises(AggregatorUnreachable, match="can't keep its state"):
                operator.abort_run(consortium.run_id, "the operator gives up")
            status, body = _health(consortium)
            assert status == 503 and body["why"]
            for _ in range(20):
                assert _state(operator.get_run(consortium.run_id)) == _kept(consortium)
                assert operator.get_run(consortium.run_id).phase != "ABORTED"
                time.sleep(0.1)
        resource.prlimit(consortium.node.pid, resource.RLIMIT_FSIZE, NO_LIMIT)
        results = consortium.finish(banks)
        _healthy(consortium, 200)
        assert _state(consortium.view()) == _kept(consortium)
        assert "Traceback" not in consortium.node.log_path.read_text()
        assert {r["model_sha256"] for r in results.values()} == {undisturbed(table, tmp_path / "calm")}


def test_a_store_that_is_removed_under_the_node_makes_it_unready(tmp_path: Path) -> None:
    with chaos(tmp_path / "run", small_table(banks=3, rows=900, features=4)) as consortium:
        _healthy(consortium, 200)
        (tmp_path / "run" / "node" / "aggregator.db").unlink()
        _healthy(consortium, 503)
        assert "removed or replaced" in _health(consortium)[1]["why"]
        with (
            OperatorClient(consortium.node.address, operator_files(consortium.certificates)) as operator,
            pytest.raises(AggregatorUnreachable, match="removed or replaced"),
        ):
            operator.abort_run(consortium.run_id, "enough")
