"""Operators: open, await, follow and close a run; run a step of a bank's pipeline. They decode, call, encode.

All are safe to retry. An error that no retry can mend (`CrossbankError.passing` is false: an aborted run, a
forged sum, wrong settings; or bad data) fails the task at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Final

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from dags.provider.endpoint import Endpoint
from dags.provider.hook import ConsortiumHook
from dags.provider.triggers import OpenRunTrigger, RunPhaseTrigger
from dags.provider.watching import PHASES, choose_reopened, describe, summary, table
from dags.settings import SettingsError, read_mapping

if TYPE_CHECKING:
    from airflow.sdk import Context

    from dags.provider.watching import OpenRunEvent, PhaseEvent, RunSummary

__all__ = ["BankStepOperator", "CloseRunOperator", "OpenRunOperator", "WaitForOpenRun", "WaitForPhase"]

_DAY: Final = 86_400.0


@contextmanager
def _no_retry_where_useless(*kinds: type[Exception]) -> Iterator[None]:
    """Turns errors that no retry mends, ``kinds`` among them, into AirflowFailException with their text."""
    from protocol.errors import CrossbankError

    useless = (SettingsError, CrossbankError)
    try:
        yield
    except useless + kinds as error:
        if isinstance(error, CrossbankError) and error.passing:
            raise
        raise AirflowFailException(f"{type(error).__name__}: {error}") from error


class _AggregatorOperator(BaseOperator):
    """What operators that call the aggregator share: a config file or a connection says where it is."""

    template_fields: Sequence[str] = ("config_path", "consortium_conn_id")

    def __init__(self, *, config_path: str | None = None, consortium_conn_id: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.config_path = config_path
        self.consortium_conn_id = consortium_conn_id

    def endpoint(self) -> Endpoint:
        """Returns the aggregator's address and our TLS files."""
        if self.config_path is not None:
            return Endpoint.from_config(self.config_path)
        return ConsortiumHook(self.consortium_conn_id or ConsortiumHook.default_conn_name).endpoint()


class OpenRunOperator(_AggregatorOperator):
    """Opens a run and returns its id.

    The settings are those of the config's section ``run``, replaced key by key by ``settings``, and those
    by the DAG's param ``settings``. A retry takes up the run that the failed attempt opened, if it is still
    enrolling, so that a worker which died between opening and reporting leaves no second run behind.

    Args:
        settings: Keys of `protocol.run_plan.RunRequest`; templated.
    """

    template_fields: Sequence[str] = (*_AggregatorOperator.template_fields, "settings")

    def __init__(self, *, settings: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.settings = dict(settings or {})

    def execute(self, context: Context) -> str:
        """Opens the run."""
        from protocol.run_plan import RunRequest

        with _no_retry_where_useless():
            base = read_mapping(self.config_path).get("run") if self.config_path is not None else None
            given = context["params"].get("settings") or {}
            wanted = RunRequest.of(base or {}, self.settings, given).settings
            with self.endpoint().client() as client:
                if context["ti"].try_number > 1:
                    run_id = choose_reopened(client.list_runs(), wanted.roster, since=_started(context))
                    if run_id is not None:
                        self.log.info("run %s was opened by an earlier attempt of this task", run_id)
                        return run_id
                run_id = client.open_run(wanted)
                for warning in client.get_run(run_id).warnings:
                    self.log.warning("%s", warning)
        self.log.info("opened run %s for %s", run_id, ", ".join(wanted.roster))
        return run_id


class WaitForPhase(_AggregatorOperator):
    """Waits, without a worker slot, until a run is in a phase or past it. Returns the run's summary.

    Args:
        run_id: The run; templated.
        phase: The phase to wait for, such as ``KEYING`` (the roster is complete) or ``RELEASED``.
        wait_seconds: Seconds to wait at most; then the task fails.
        poll_seconds: Seconds between two polls.
        fail_on_abort: Whether an aborted run fails the task (for good) or ends the wait like any other.
    """

    template_fields: Sequence[str] = (*_AggregatorOperator.template_fields, "run_id")

    def __init__(
        self,
        *,
        run_id: str,
        phase: str,
        wait_seconds: float = _DAY,
        poll_seconds: float = 2.0,
        fail_on_abort: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if phase not in PHASES:
            raise ValueError(f"phase must be one of {', '.join(PHASES)}, not {phase!r}")
        self.run_id = run_id
        self.phase = phase
        self.wait_seconds = wait_seconds
        self.poll_seconds = poll_seconds
        self.fail_on_abort = fail_on_abort

    def execute(self, context: Context) -> None:
        """Hands the wait to the triggerer."""
        with _no_retry_where_useless():
            endpoint = self.endpoint()
        self.log.info("waiting for run %s to reach %s", self.run_id, self.phase)
        self.defer(
            trigger=RunPhaseTrigger(
                run_id=self.run_id,
                phase=self.phase,
                give_up_at=time.time() + self.wait_seconds,
                poll_seconds=self.poll_seconds,
                **endpoint.as_arguments(),
            ),
            method_name="resume",
        )

    def resume(self, context: Context, event: PhaseEvent) -> RunSummary | None:
        """Takes the trigger's event: returns the run's summary or fails.

        Raises:
            AirflowFailException: If the run was aborted or time is up; a retry would not help.
            AirflowException: If the aggregator could not be reached; a retry may help.
        """
        self.log.info("%s", event["message"])
        if event["outcome"] == "reached" or (event["outcome"] == "aborted" and not self.fail_on_abort):
            return event["run"]
        if event["outcome"] == "unreachable":
            raise AirflowException(event["message"])
        raise AirflowFailException(event["message"])


class WaitForOpenRun(_AggregatorOperator):
    """Waits, without a worker slot, for a run that a bank should work on. Returns the run's id.

    When none opens in time the task is skipped, and with it the rest of the DAG: no run today is no error.

    Args:
        bank_id: The bank.
        wait_seconds: Seconds to wait at most.
        poll_seconds: Seconds between two polls.
    """

    def __init__(
        self, *, bank_id: str, wait_seconds: float = _DAY / 2, poll_seconds: float = 2.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.bank_id = bank_id
        self.wait_seconds = wait_seconds
        self.poll_seconds = poll_seconds

    def execute(self, context: Context) -> None:
        """Hands the wait to the triggerer."""
        with _no_retry_where_useless():
            endpoint = self.endpoint()
        self.defer(
            trigger=OpenRunTrigger(
                bank_id=self.bank_id,
                give_up_at=time.time() + self.wait_seconds,
                poll_seconds=self.poll_seconds,
                **endpoint.as_arguments(),
            ),
            method_name="resume",
        )

    def resume(self, context: Context, event: OpenRunEvent) -> str:
        """Takes the trigger's event and returns the run's id.

        Raises:
            AirflowSkipException: If no run opened in time.
            AirflowException: If the aggregator could not be reached; a retry may help.
        """
        self.log.info("%s", event["message"])
        if event["outcome"] == "timeout":
            raise AirflowSkipException(event["message"])
        if event["outcome"] != "reached":
            raise AirflowException(event["message"])
        return str(event["run_id"])


class CloseRunOperator(_AggregatorOperator):
    """Ends the story of a run: prints it as a table, and fails with the reason if it was aborted.

    A run that is unfinished, because a task before this one failed or gave up, is aborted first, so that
    no bank waits for it.

    Args:
        run_id: The run; templated. Empty when no run was opened.
    """

    template_fields: Sequence[str] = (*_AggregatorOperator.template_fields, "run_id")

    def __init__(self, *, run_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.run_id = run_id

    def execute(self, context: Context) -> RunSummary:
        """Prints and returns the run's summary."""
        if not self.run_id or self.run_id == "None":
            raise AirflowFailException("No run was opened; see the log of the task before.")
        with _no_retry_where_useless(), self.endpoint().client() as client:
            view = client.get_run(self.run_id)
            if view.phase not in ("RELEASED", "ABORTED"):
                self.log.warning("%s; it is aborted because nobody follows it any more", describe(view))
                client.abort_run(self.run_id, "the consortium's DAG gave up")
                view = client.get_run(self.run_id)
        for line in table(view):
            self.log.info("%s", line)
        if view.phase != "RELEASED":
            raise AirflowFailException(f"The run {view.run_id} was aborted: {view.reason or 'no reason given'}")
        return summary(view)


class BankStepOperator(BaseOperator):
    """Runs one step of a bank's pipeline and returns its small result.

    Args:
        step: One of ``extract``, ``gate``, ``train``, ``evaluate``, ``register``, ``score``, ``purge``; a function of
            `bank_node.pipeline`.
        config_path: Path of the bank's config; templated.
        run_id: The run, for the steps that belong to one; templated.
    """

    template_fields: Sequence[str] = ("config_path", "run_id")
    ui_color = "#dbe9f4"

    #: Step → whether it takes a run id.
    STEPS: ClassVar[Mapping[str, bool]] = {
        "extract": False,
        "gate": True,
        "train": True,
        "evaluate": True,
        "register": True,
        "score": False,
        "purge": False,
    }

    def __init__(self, *, step: str, config_path: str, run_id: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if step not in self.STEPS:
            raise ValueError(f"step must be one of {', '.join(self.STEPS)}, not {step!r}")
        if self.STEPS[step] is (run_id is None):
            raise ValueError(f"step {step} {'needs a' if self.STEPS[step] else 'takes no'} run_id")
        self.step = step
        self.config_path = config_path
        self.run_id = run_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Runs the step; what it reports goes to the task's log as it happens."""
        from bank_node import pipeline
        from features.errors import DataError

        function: Callable[..., dict[str, Any]] = getattr(pipeline, self.step)
        arguments = (self.config_path,) if self.run_id is None else (self.config_path, self.run_id)
        begun = time.monotonic()
        with _no_retry_where_useless(DataError):
            result = function(*arguments, log=self._report)
        self.log.info("%s finished in %.1f s", self.step, time.monotonic() - begun)
        return result

    def _report(self, *parts: object) -> None:
        """Takes what a step would print."""
        self.log.info("%s", " ".join(str(part) for part in parts))


def _started(context: Context) -> float:
    """Returns when this DAG run started, in Unix seconds."""
    started = context["dag_run"].start_date
    return started.timestamp() if started is not None else 0.0
