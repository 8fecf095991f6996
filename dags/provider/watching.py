"""Waits for runs by polling, as plain coroutines. Knows neither Airflow nor gRPC; clock and sleep come in.

A poll that fails is repeated: an aggregator that restarts must not fail a task that has waited for hours.
Only when nothing has been heard for ``patience`` seconds, or at once for an error that is hopeless, does the
wait end as ``unreachable``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypedDict, TypeVar

from protocol.run_choice import run_for_bank
from protocol.run_state import Phase

if TYPE_CHECKING:
    from protocol.messages import RunView

__all__ = [
    "PHASES",
    "OpenRunEvent",
    "Pace",
    "PhaseEvent",
    "RunSummary",
    "choose_reopened",
    "describe",
    "has_reached",
    "summary",
    "table",
    "wait_for_open_run",
    "wait_for_phase",
]

#: The phases of a run in order; ABORTED can follow any of the others and counts as later than none.
PHASES: Final = tuple(phase.value for phase in Phase if phase is not Phase.ABORTED)

E = TypeVar("E")


class RunSummary(TypedDict):
    """The part of a run's view that tasks hand on: JSON, ids and counts only."""

    run_id: str
    phase: str
    roster: list[str]
    joined: list[str]
    round_done: int
    rounds_total: int
    reason: str
    model_sha256: str


class PhaseEvent(TypedDict):
    """How the wait for a phase ended. ``outcome`` is reached, aborted, timeout or unreachable.

    ``run`` is the run as last seen, None if no poll succeeded.
    """

    outcome: str
    message: str
    run: RunSummary | None


class OpenRunEvent(TypedDict):
    """How the wait for an open run ended. ``outcome`` is reached, timeout or unreachable."""

    outcome: str
    message: str
    run_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How a wait polls and when it ends.

    Attributes:
        poll: Seconds between two polls.
        give_up_at: Unix time in seconds after which the wait ends as ``timeout``.
        patience: Seconds of failed polls in a row after which the wait ends as ``unreachable``.
        hopeless: Whether an error of a poll will not pass by itself.
        now: Returns the Unix time in seconds.
        sleep: Suspends for a number of seconds.
    """

    poll: float
    give_up_at: float
    patience: float = 300.0
    hopeless: Callable[[Exception], bool] = lambda error: False
    now: Callable[[], float] = time.time
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep


def has_reached(phase: str, target: str) -> bool:
    """Returns whether a run in ``phase`` is in ``target`` or past it. ABORTED is past nothing."""
    return phase in PHASES and PHASES.index(phase) >= PHASES.index(target)


def choose_reopened(views: Iterable[RunView], roster: Iterable[str], *, since: float) -> str | None:
    """Returns the newest enrolling run with exactly ``roster`` that was opened after ``since``, or None.

    Args:
        views: The runs the operator can see.
        roster: The banks of the wanted run, in any order.
        since: Unix time in seconds; an older run was opened by somebody else.
    """
    wanted = sorted(roster)
    matching = [
        view
        for view in views
        if view.phase == "ENROLLING" and sorted(view.roster) == wanted and view.created_at >= since
    ]
    return str(max(matching, key=lambda view: view.created_at).run_id) if matching else None


def describe(view: RunView) -> str:
    """Returns one line on where a run stands: phase, banks, trees; the reason if it was aborted."""
    parts = [f"run {view.run_id}: {view.phase}", f"{len(view.joined)} of {len(view.roster)} banks joined"]
    if has_reached(view.phase, "TRAINING") or view.round_done:
        parts.append(f"tree {view.round_done} of {view.rounds_total}")
    if view.phase == Phase.ABORTED:
        parts.append(f"reason: {view.reason}")
    return ", ".join(parts)


def summary(view: RunView) -> RunSummary:
    """Returns the part of a run's view that tasks hand on."""
    return {
        "run_id": view.run_id,
        "phase": view.phase,
        "roster": list(view.roster),
        "joined": list(view.joined),
        "round_done": view.round_done,
        "rounds_total": view.rounds_total,
        "reason": view.reason,
        "model_sha256": view.model_sha256,
    }


def table(view: RunView) -> list[str]:
    """Returns the lines of a table that tells a run's story: outcome, banks, trees, times, events."""
    rows = [
        ("run", view.run_id),
        ("phase", view.phase),
        *((("reason", view.reason),) if view.reason else ()),
        ("banks", ", ".join(view.roster)),
        ("joined", f"{len(view.joined)} of {len(view.roster)}"),
        ("trees", f"{view.round_done} of {view.rounds_total}"),
        ("seconds", f"{view.updated_at - view.created_at:.0f}"),
        ("received", f"{view.bytes_received / 1e6:.1f} MB"),
        ("model", view.model_sha256 or "none"),
    ]
    rule = "-" * 78
    lines = [rule, *(f"{name:<10}{value}" for name, value in rows)]
    if view.metrics_json and view.metrics_json != "{}":
        lines.append(f"{'metrics':<10}{view.metrics_json}")
    if view.events:
        lines.append(rule)
        first = view.events[0].at
        lines.extend(f"{event.at - first:9.1f} s  {event.bank or '-':<16}{event.text}" for event in view.events)
    return [*lines, rule]


async def wait_for_phase(
    fetch: Callable[[], Awaitable[RunView]], *, phase: str, pace: Pace, log: Callable[[str], None]
) -> PhaseEvent:
    """Waits until a run is in ``phase`` or past it, or was aborted.

    Args:
        fetch: Fetches the run's view.
        phase: One of `PHASES`.
        pace: How to poll.
        log: Called with one line whenever the run has moved.
    """
    last: RunView | None = None

    async def look() -> PhaseEvent | None:
        nonlocal last
        view = await fetch()
        line = describe(view)
        if last is None or line != describe(last):
            log(line)
        last = view
        if view.phase == Phase.ABORTED:
            return {"outcome": "aborted", "message": line, "run": summary(view)}
        if has_reached(view.phase, phase):
            return {"outcome": "reached", "message": line, "run": summary(view)}
        return None

    def unfinished(outcome: str, message: str) -> PhaseEvent:
        return {"outcome": outcome, "message": message, "run": None if last is None else summary(last)}

    return await _poll(look, unfinished, pace=pace, log=log, waiting_for=f"phase {phase}")


async def wait_for_open_run(
    list_runs: Callable[[], Awaitable[Sequence[RunView]]], *, bank_id: str, pace: Pace, log: Callable[[str], None]
) -> OpenRunEvent:
    """Waits until there is a run for ``bank_id`` to work on (see `protocol.run_choice`)."""
    log(f"bank {bank_id} waits for an open run that invites it")

    async def look() -> OpenRunEvent | None:
        view = run_for_bank(await list_runs(), bank_id)
        if view is None:
            return None
        log(f"run {view.run_id} is open for bank {bank_id}")
        return {"outcome": "reached", "message": f"run {view.run_id} is open", "run_id": view.run_id}

    def unfinished(outcome: str, message: str) -> OpenRunEvent:
        return {"outcome": outcome, "message": message, "run_id": None}

    return await _poll(look, unfinished, pace=pace, log=log, waiting_for=f"an open run for bank {bank_id}")


async def _poll(
    look: Callable[[], Awaitable[E | None]],
    unfinished: Callable[[str, str], E],
    *,
    pace: Pace,
    log: Callable[[str], None],
    waiting_for: str,
) -> E:
    """Calls ``look`` until it returns an event, the time is up, or it has failed for too long.

    In the last two cases ``unfinished`` makes the event from the outcome's word and the message.
    """
    failing_since: float | None = None
    while True:
        try:
            event = await look()
        except Exception as error:  # any failed poll may pass: a restart, a network fault
            moment = pace.now()
            if failing_since is None:
                failing_since = moment
                log(f"the aggregator can't be asked: {error}")
            if pace.hopeless(error) or moment - failing_since >= pace.patience:
                message = f"can't wait for {waiting_for}, failed for {moment - failing_since:.0f} s: {error}"
                return unfinished("unreachable", message)
        else:
            if failing_since is not None:
                log("the aggregator answers again")
            failing_since = None
            if event is not None:
                return event
        if pace.now() >= pace.give_up_at:
            return unfinished("timeout", f"waited too long for {waiting_for}")
        await pace.sleep(pace.poll)
