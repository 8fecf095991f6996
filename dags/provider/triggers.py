"""Deferrable triggers: wait for a run's phase, or an open run, without a worker slot. They hold no secrets.

A trigger is stored in Airflow's database between being made and being run; it therefore carries the
*paths* of the certificate and key, never what is in them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from dags.provider.watching import Pace, wait_for_open_run, wait_for_phase

if TYPE_CHECKING:
    from protocol.messages import RunView

__all__ = ["OpenRunTrigger", "RunPhaseTrigger"]


def _is_hopeless(error: Exception) -> bool:
    """Returns whether polling on is useless: the aggregator refused us, or our files are wrong."""
    from protocol.errors import CrossbankError

    return isinstance(error, CrossbankError) and not error.passing


class _AggregatorTrigger(BaseTrigger):
    """What both triggers share: where the aggregator is and how often to ask.

    Args:
        address: ``host:port`` of the aggregator.
        ca: Path of the consortium CA's certificate.
        certificate: Path of the caller's certificate.
        key: Path of the caller's private key.
        give_up_at: Unix time in seconds at which the trigger fires with the outcome ``timeout``.
        poll_seconds: Seconds between two polls.
    """

    def __init__(
        self,
        *,
        address: str,
        ca: str,
        certificate: str,
        key: str,
        give_up_at: float,
        poll_seconds: float = 2.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)  # type: ignore[no-untyped-call]
        self.address = address
        self.ca = ca
        self.certificate = certificate
        self.key = key
        self.give_up_at = give_up_at
        self.poll_seconds = poll_seconds

    def _arguments(self) -> dict[str, Any]:
        return {
            "address": self.address,
            "ca": self.ca,
            "certificate": self.certificate,
            "key": self.key,
            "give_up_at": self.give_up_at,
            "poll_seconds": self.poll_seconds,
        }

    def _pace(self) -> Pace:
        return Pace(poll=self.poll_seconds, give_up_at=self.give_up_at, hopeless=_is_hopeless)


class RunPhaseTrigger(_AggregatorTrigger):
    """Fires once when a run is in a phase or past it, was aborted, or time is up.

    The event is that of `dags.provider.watching.wait_for_phase`. Progress goes to the task's log.
    """

    def __init__(self, *, run_id: str, phase: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.run_id = run_id
        self.phase = phase

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Returns the class path and the arguments that make this trigger again."""
        return (
            f"{__name__}.RunPhaseTrigger",
            {"run_id": self.run_id, "phase": self.phase, **self._arguments()},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Polls the aggregator and yields one event."""
        yield TriggerEvent(await wait_for_phase(self.fetch, phase=self.phase, pace=self._pace(), log=self.log.info))

    async def fetch(self) -> RunView:
        """Fetches the run's view from the aggregator."""
        from aggregator.operator.client import fetch_run_async

        return await fetch_run_async(self.address, self.ca, self.certificate, self.key, self.run_id)


class OpenRunTrigger(_AggregatorTrigger):
    """Fires once when there is a run for a bank to join or to go on with, or time is up.

    The event is that of `dags.provider.watching.wait_for_open_run`.
    """

    def __init__(self, *, bank_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.bank_id = bank_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Returns the class path and the arguments that make this trigger again."""
        return f"{__name__}.OpenRunTrigger", {"bank_id": self.bank_id, **self._arguments()}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Polls the aggregator and yields one event."""
        yield TriggerEvent(
            await wait_for_open_run(self.list_runs, bank_id=self.bank_id, pace=self._pace(), log=self.log.info)
        )

    async def list_runs(self) -> list[RunView]:
        """Fetches the runs this bank may see from the aggregator."""
        from aggregator.operator.client import list_runs_async

        return await list_runs_async(self.address, self.ca, self.certificate, self.key)
