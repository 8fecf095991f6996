"""What the aggregator says of a run, and waiting until it says more. It takes nothing as true and holds no keys.

Banks only dial out, so a bank looks: often at first, since phases end within milliseconds of each other, then less.
"""

import time
from collections.abc import Callable, Iterator

from bank_node.consortium import Log
from bank_node.transport.client import BankClient
from protocol.errors import AggregatorUnreachable, RosterChanged, RunAborted
from protocol.messages import RunView
from protocol.run_state import Phase

__all__ = ["RunWatch", "next_phase", "pauses", "waited_for"]

_ORDER: list[Phase] = [p for p in Phase if p is not Phase.ABORTED]
_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 2.0
_TELL_AGAIN = 300.0
"""Seconds after which a bank that still waits says so again."""


def next_phase(phase: Phase) -> Phase:
    """The phase that follows in a run that is not aborted."""
    return _ORDER[_ORDER.index(phase) + 1]


def pauses() -> Iterator[float]:
    """Seconds to wait before each next look."""
    pause = _FIRST_PAUSE
    while True:
        yield pause
        pause = min(pause * 1.15, _LONGEST_PAUSE)


def waited_for(view: RunView, now: float) -> tuple[str, float]:
    """Which banks a run waits for, in words, and the seconds until it goes on without them, pauses, or ends.

    Args:
        view: what the aggregator says of it.
        now: Unix seconds; a clock that differs from the aggregator's makes the seconds differ.
    """
    settings = view.settings
    if view.phase == Phase.ENROLLING:
        missing, until = set(view.roster) - set(view.joined), view.created_at + settings.enrol_seconds
    elif view.paused_since:
        missing, until = set(view.waiting_for), view.paused_since + settings.pause_seconds
    else:
        missing, until = set(view.members) - set(view.reported), view.updated_at + settings.step_seconds
    return ", ".join(sorted(missing)) or "the aggregator", max(until - now, 0.0)


class RunWatch:
    """The newest view of one run."""

    def __init__(self, client: BankClient, run_id: str, log: Log, *, on_abort: Callable[[], None]) -> None:
        """Looks once.

        Args:
            client: the aggregator.
            run_id: the run.
            log: told what is waited for.
            on_abort: called before `RunAborted` is raised.
        """
        self._client, self._run_id, self._log, self._on_abort = client, run_id, log, on_abort
        self.view: RunView = client.run(run_id)

    def look(self) -> None:
        """Ask anew."""
        self.view = self._client.run(self._run_id)

    def check_alive(self) -> None:
        """Raises RunAborted if it is."""
        if self.view.phase == Phase.ABORTED:
            self._on_abort()
            raise RunAborted(f"run {self._run_id} was aborted: {self.view.reason}")

    def check_attempt(self, attempt: int) -> None:
        """Raises RosterChanged if the run is at another."""
        if self.view.attempt != attempt:
            raise RosterChanged(f"run {self._run_id} is at attempt {self.view.attempt}, not {attempt}")

    def reached(self, phase: Phase) -> bool:
        """Whether the run is at a phase or beyond."""
        return _ORDER.index(Phase(self.view.phase)) >= _ORDER.index(phase)

    def look_again(self, pause: float, attempt: int) -> None:
        """Ask anew after a pause; the run must be alive and at this attempt."""
        time.sleep(pause)
        self.look()
        self.check_alive()
        self.check_attempt(attempt)

    def waits(self, what: str) -> Iterator[float]:
        """Seconds to wait before each next look, for as long as the run's own deadlines allow.

        Args:
            what: is waited for; said once, when it takes longer.

        Raises:
            AggregatorUnreachable: those deadlines are all past.
        """
        told, since = False, time.monotonic()
        for pause in pauses():
            if time.monotonic() - since > self._longest():
                raise AggregatorUnreachable(f"run {self._run_id}: {what} did not come in {self._longest():.0f} s")
            if not told and pause > 1:
                told = True
                self._log(f"run {self._run_id}: waiting for {what}")
            yield pause

    def wait_for(self, phase: Phase, attempt: int | None) -> None:
        """Wait until the run has reached a phase or gone beyond it.

        Args:
            phase: which.
            attempt: the one we are at; None before the key exchange.

        Raises:
            RosterChanged: a bank was dropped while waiting.
            RunAborted: the run ended.
            AggregatorUnreachable: nothing at all happened for longer than the run's own deadlines allow.
        """
        longest = self._longest()
        told, told_at, seen, since = "", 0.0, self._progress(), time.monotonic()
        for pause in pauses():
            self.check_alive()
            if self.reached(phase):
                return
            if attempt is not None:
                self.check_attempt(attempt)
            if self._progress() != seen:
                seen, since = self._progress(), time.monotonic()
            if time.monotonic() - since > longest:
                raise AggregatorUnreachable(
                    f"run {self._run_id} has not moved in {longest:.0f} s, past all its deadlines"
                )
            whom, seconds = waited_for(self.view, time.time())
            if pause > 1 and (whom != told or time.monotonic() - told_at > _TELL_AGAIN):
                told, told_at = whom, time.monotonic()
                self._log(
                    f"run {self._run_id} is in {self.view.phase}: waiting for {whom}, {seconds:.0f} s more at most"
                )
            time.sleep(pause)
            self.look()

    def _longest(self) -> float:
        settings = self.view.settings
        return settings.enrol_seconds + settings.step_seconds + settings.pause_seconds + 60.0

    def _progress(self) -> tuple[object, ...]:
        view = self.view
        return (view.phase, view.step, view.attempt, view.joined, view.reported, view.paused_since)
