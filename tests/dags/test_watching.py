"""Waiting for runs: what ends a wait, what does not, and which run a bank takes up. No Airflow, no clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from dags.provider.watching import (
    PHASES,
    Pace,
    choose_reopened,
    describe,
    has_reached,
    summary,
    table,
    wait_for_open_run,
    wait_for_phase,
)


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.time = 0.0
        self.sleeps = 0

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.time += seconds
        self.sleeps += 1


def _pace(clock: Clock, **changes: Any) -> Pace:
    return Pace(
        **{
            "poll": 1.0,
            "give_up_at": 60.0,
            "patience": 10.0,
            "now": clock.now,
            "sleep": clock.sleep,
            **changes,
        }
    )


def _script(*answers: Any) -> Callable[[], Any]:
    """Answers one poll after another; the last answer repeats; an exception is raised."""
    left = list(answers)

    async def fetch() -> Any:
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    return fetch


def _wait(fetch: Callable[[], Any], phase: str, pace: Pace) -> tuple[dict[str, Any], list[str]]:
    lines: list[str] = []
    return asyncio.run(wait_for_phase(fetch, phase=phase, pace=pace, log=lines.append)), lines


def test_order_of_phases_is_the_protocols() -> None:
    from protocol.run_state import Phase

    assert (*PHASES, "ABORTED") == tuple(Phase)


@pytest.mark.parametrize(
    ("phase", "target", "expected"),
    [
        ("ENROLLING", "KEYING", False),
        ("KEYING", "KEYING", True),
        ("TRAINING", "KEYING", True),
        ("RELEASED", "VOTING", True),
        ("ABORTED", "DRAFT", False),
    ],
)
def test_has_reached(phase: str, target: str, expected: bool) -> None:
    assert has_reached(phase, target) is expected


def test_fires_when_the_phase_is_reached_and_logs_each_move_once(make_view: Any) -> None:
    views = [
        make_view(),
        make_view(),
        make_view(joined=("alpha",)),
        make_view(phase="KEYING", joined=("alpha", "beta")),
    ]
    clock = Clock()
    event, lines = _wait(_script(*views), "KEYING", _pace(clock))
    assert event["outcome"] == "reached"
    assert event["run"]["phase"] == "KEYING"
    assert clock.sleeps == 3
    assert len(lines) == 3
    assert "1 of 2 banks joined" in lines[1]


def test_fires_for_a_phase_already_passed(make_view: Any) -> None:
    event, _ = _wait(_script(make_view(phase="VOTING")), "KEYING", _pace(Clock()))
    assert event["outcome"] == "reached"


def test_fires_on_aborted_with_the_reason(make_view: Any) -> None:
    views = [make_view(), make_view(phase="ABORTED", reason="bank beta sent a bad sum")]
    event, _ = _wait(_script(*views), "RELEASED", _pace(Clock()))
    assert event["outcome"] == "aborted"
    assert "bank beta sent a bad sum" in event["message"]


def test_time_up_keeps_the_last_view(make_view: Any) -> None:
    event, _ = _wait(_script(make_view(joined=("alpha",))), "KEYING", _pace(Clock(), give_up_at=5.0))
    assert event["outcome"] == "timeout"
    assert event["run"]["joined"] == ["alpha"]


def test_a_short_outage_is_survived(make_view: Any) -> None:
    answers = [make_view(), *[OSError("refused")] * 5, make_view(phase="KEYING")]
    event, lines = _wait(_script(*answers), "KEYING", _pace(Clock()))
    assert event["outcome"] == "reached"
    assert sum("can't be asked" in line for line in lines) == 1
    assert "the aggregator answers again" in lines


def test_a_long_outage_ends_the_wait() -> None:
    clock = Clock()
    event, _ = _wait(_script(OSError("refused")), "KEYING", _pace(clock))
    assert event["outcome"] == "unreachable"
    assert event["run"] is None
    assert clock.time == 10.0
    assert "refused" in event["message"]


def test_a_hopeless_error_ends_the_wait_at_once() -> None:
    clock = Clock()
    event, _ = _wait(_script(ValueError("no such run")), "KEYING", _pace(clock, hopeless=lambda error: True))
    assert event["outcome"] == "unreachable"
    assert clock.sleeps == 0


def test_open_run_waits_for_an_invitation(make_view: Any) -> None:
    polls = [[], [make_view(run_id="other", roster=("gamma",))], [make_view(run_id="mine")]]
    lines: list[str] = []
    event = asyncio.run(wait_for_open_run(_script(*polls), bank_id="alpha", pace=_pace(Clock()), log=lines.append))
    assert event["outcome"] == "reached"
    assert event["run_id"] == "mine"
    late = asyncio.run(
        wait_for_open_run(_script([]), bank_id="alpha", pace=_pace(Clock(), give_up_at=3.0), log=lines.append)
    )
    assert (late["outcome"], late["run_id"]) == ("timeout", None)


def test_a_retry_finds_only_its_own_fresh_run(make_view: Any) -> None:
    mine = make_view(run_id="mine", created_at=50.0)
    assert choose_reopened([mine], ["beta", "alpha"], since=40.0) == "mine"
    assert choose_reopened([mine], ["beta", "alpha"], since=60.0) is None
    assert choose_reopened([mine], ["alpha"], since=40.0) is None
    assert choose_reopened([make_view(phase="KEYING")], ["beta", "alpha"], since=0.0) is None


def test_table_tells_the_story(make_view: Any) -> None:
    from protocol.messages import RunEvent

    events = (
        RunEvent(seq=0, at=100.0, bank="", text="opened"),
        RunEvent(seq=1, at=103.5, bank="alpha", text="joined"),
    )
    view = make_view(phase="ABORTED", reason="beta left", bytes_received=2_500_000, events=events)
    text = "\n".join(table(view))
    for part in ("ABORTED", "beta left", "2.5 MB", "3.5 s  alpha", "alpha, beta"):
        assert part in text
    assert "tree 3 of 50" in describe(make_view(phase="TRAINING", round_done=3))
    assert summary(view)["roster"] == ["alpha", "beta"]


def test_the_stand_in_has_what_a_real_view_has(make_view: Any) -> None:
    from protocol.messages import RunView

    missing = [name for name in vars(make_view()) if not hasattr(RunView, name) and name not in RunView.__slots__]
    assert missing == []
