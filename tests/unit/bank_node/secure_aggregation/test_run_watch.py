"""Who a bank waits for, and how long still, in each phase."""

import pytest

from bank_node.secure_aggregation.run_watch import waited_for
from protocol.messages import RunSettings, RunView

SETTINGS = RunSettings(
    title="t",
    roster=("a", "b", "c"),
    contract_fingerprint="ab" * 32,
    parameters_json="{}",
    rounds=1,
    enrol_seconds=300,
    step_seconds=60,
    pause_seconds=900,
    minimum_roster=2,
)


def view(phase: str, **changes: object) -> RunView:
    fields: dict[str, object] = {
        "run_id": "r",
        "phase": phase,
        "settings": SETTINGS,
        "joined": ("a", "b", "c"),
        "members": ("a", "b", "c"),
        "reported": (),
        "step": "",
        "rounds_done": 0,
        "bytes_received": 0,
        "reason": "",
        "model_sha256": "",
        "metrics_json": "",
        "created_at": 1000.0,
        "updated_at": 2000.0,
    }
    return RunView(**(fields | changes))


@pytest.mark.parametrize(
    ("seen", "now", "expected"),
    [
        (view("ENROLLING", joined=("b",), members=("b",)), 1100.0, ("a, c", 200.0)),
        (view("BINNING", reported=("a",)), 2010.0, ("b, c", 50.0)),
        (view("TRAINING", paused_since=3000.0, waiting_for=("c",)), 3100.0, ("c", 800.0)),
        (view("VOTING", reported=("a", "b", "c")), 2010.0, ("the aggregator", 50.0)),
        (view("BINNING"), 9999.0, ("a, b, c", 0.0)),
    ],
)
def test_whom_and_how_long(seen: RunView, now: float, expected: tuple[str, float]) -> None:
    assert waited_for(seen, now) == expected
