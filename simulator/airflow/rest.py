"""A small client of Airflow's REST API: triggers DAG runs and reads their state. Not an Airflow CLI wrapper.

Every call of Airflow's command line costs seconds; a REST call costs milliseconds, so the demo drives
Airflow only through this client. It talks to one api-server on the loopback and never through a proxy.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from urllib.parse import quote

import httpx

__all__ = ["TERMINAL_STATES", "AirflowRest", "AirflowRestError", "TaskState"]

#: States of a DAG run that never change again by themselves.
TERMINAL_STATES = frozenset({"success", "failed"})

# A token lives a day by default; a retry after one 401 covers a shorter setting or a restarted server.
_TOKEN_RETRIES = 1
# The api-server answers slowly while training holds every core; a refused connection is not retried.
_TIMEOUT_SECONDS = 30.0
_READ_RETRIES = 3


class AirflowRestError(RuntimeError):
    """Airflow refused a call or cannot be reached; the message names the call and Airflow's reason.

    Attributes:
        status: The HTTP status of the refusal, or None where there was no answer.
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskState:
    """One task instance of a DAG run as Airflow reports it.

    Attributes:
        task_id: Name of the task in its DAG.
        state: Airflow's state word, or ``"none"`` before the scheduler looked at it.
        try_number: Attempts so far; 0 before the first.
        seconds: Wall time of the last attempt in seconds, or None while it has not ended.
    """

    task_id: str
    state: str
    try_number: int
    seconds: float | None


class AirflowRest:
    """Reads and drives one Airflow over HTTP.

    Args:
        base_url: Address of the api-server, such as ``http://127.0.0.1:8080``.
        username: Name of the user in the password file.
        password: That user's password.
        transport: Replaces the network in tests.
    """

    def __init__(
        self, base_url: str, username: str, password: str, *, transport: httpx.BaseTransport | None = None
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._username = username
        self._password = password
        self._token: str | None = None
        self._client = httpx.Client(
            base_url=self.base_url, timeout=_TIMEOUT_SECONDS, trust_env=False, transport=transport
        )

    def __repr__(self) -> str:
        return f"AirflowRest({self.base_url!r}, {self._username!r})"

    def __enter__(self) -> AirflowRest:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections; the client is of no use afterwards."""
        self._client.close()

    # -- state of the whole -------------------------------------------------------------------------

    def health(self) -> dict[str, str]:
        """Returns the health word of each component, such as ``{"scheduler": "healthy"}``.

        Needs no token. A component that never reported is ``"unknown"``.
        """
        body = self._send("GET", "/api/v2/monitor/health", authorised=False)
        return {name: str((part or {}).get("status") or "unknown") for name, part in body.items()}

    def dag_ids(self) -> list[str]:
        """Returns the ids of every DAG Airflow has parsed so far, sorted."""
        body = self._send("GET", "/api/v2/dags", params={"limit": 1000})
        return sorted(dag["dag_id"] for dag in body["dags"])

    def import_errors(self) -> dict[str, str]:
        """Returns file name → traceback of each DAG file that does not import."""
        body = self._send("GET", "/api/v2/importErrors", params={"limit": 100})
        return {error["filename"]: error["stack_trace"] for error in body["import_errors"]}

    def wait_for_dags(self, dag_ids: Sequence[str], *, timeout: float = 60.0, poll: float = 0.5) -> None:
        """Blocks until every one of ``dag_ids`` is parsed.

        Raises:
            AirflowRestError: If a DAG file does not import, with its traceback, or if a DAG is still
                missing after ``timeout`` seconds.
        """
        deadline = time.monotonic() + timeout
        while True:
            missing = sorted(set(dag_ids) - set(self.dag_ids()))
            if not missing:
                return
            errors = self.import_errors()
            if errors:
                name, trace = next(iter(errors.items()))
                raise AirflowRestError(f"Airflow cannot import the DAG file {name}:\n{trace}")
            if time.monotonic() > deadline:
                raise AirflowRestError(f"Airflow did not find these DAGs in {timeout:.0f} s: {', '.join(missing)}.")
            time.sleep(poll)

    # -- driving -------------------------------------------------------------------------------------

    def unpause(self, dag_id: str) -> None:
        """Lets the scheduler run ``dag_id``. A DAG with a daily schedule starts a run at once."""
        self._send("PATCH", f"/api/v2/dags/{quote(dag_id)}", json={"is_paused": False})

    def pause(self, dag_id: str) -> None:
        """Keeps the scheduler from starting new runs of ``dag_id``."""
        self._send("PATCH", f"/api/v2/dags/{quote(dag_id)}", json={"is_paused": True})

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None, *, run_id: str | None = None) -> str:
        """Starts a DAG run and returns its run id.

        Args:
            dag_id: The DAG; it must be parsed and unpaused to make progress.
            conf: Values for the DAG's params.
            run_id: A run id of the caller's choice; Airflow refuses one that exists.
        """
        # Airflow requires the key "logical_date" even where there is none.
        body: dict[str, Any] = {"logical_date": None, "conf": dict(conf or {})}
        if run_id is not None:
            body["dag_run_id"] = run_id
        return str(self._send("POST", f"/api/v2/dags/{quote(dag_id)}/dagRuns", json=body)["dag_run_id"])

    # -- reading ---------------------------------------------------------------------------------------

    def runs(self, dag_id: str, *, limit: int = 20) -> list[dict[str, Any]]:
        """Returns the newest DAG runs of ``dag_id`` first, as Airflow describes them."""
        body = self._send(
            "GET", f"/api/v2/dags/{quote(dag_id)}/dagRuns", params={"limit": limit, "order_by": "-run_after"}
        )
        return list(body["dag_runs"])

    def state(self, dag_id: str, run_id: str) -> str:
        """Returns the state of one DAG run: queued, running, success or failed."""
        return str(self._send("GET", self._run_path(dag_id, run_id))["state"])

    def task_states(self, dag_id: str, run_id: str) -> dict[str, TaskState]:
        """Returns the state of each task of one DAG run, by task id."""
        body = self._send("GET", f"{self._run_path(dag_id, run_id)}/taskInstances")
        return {
            item["task_id"]: TaskState(
                task_id=item["task_id"],
                state=item["state"] or "none",
                try_number=item["try_number"],
                seconds=item["duration"],
            )
            for item in body["task_instances"]
        }

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value") -> Any:
        """Returns what a task returned, or None if it has returned nothing."""
        path = f"{self._run_path(dag_id, run_id)}/taskInstances/{quote(task_id)}/xcomEntries/{quote(key)}"
        try:
            return self._send("GET", path, params={"deserialize": "false", "stringify": "false"})["value"]
        except AirflowRestError as error:
            if error.status == httpx.codes.NOT_FOUND:
                return None
            raise

    def task_log(self, dag_id: str, run_id: str, task_id: str, try_number: int = 1) -> list[str]:
        """Returns the lines of the log of one attempt of one task, oldest first.

        An exception adds one line for its type and text; Airflow's frames and folding marks are left out.
        """
        body = self._send(
            "GET",
            f"{self._run_path(dag_id, run_id)}/taskInstances/{quote(task_id)}/logs/{try_number}",
            params={"full_content": "true"},
            headers={"accept": "application/json"},
        )
        return [line for entry in body["content"] for line in _log_lines(entry)]

    def wait(
        self,
        dag_id: str,
        run_id: str,
        *,
        timeout: float,
        poll: float = 1.0,
        on_poll: Callable[[str, dict[str, TaskState]], None] | None = None,
    ) -> str:
        """Blocks until one DAG run has ended and returns its state.

        Args:
            dag_id: The DAG.
            run_id: The DAG run.
            timeout: Seconds to wait at most.
            poll: Seconds between two looks.
            on_poll: Called with the run's state and its tasks' states at every look.

        Raises:
            AirflowRestError: If the run is not over after ``timeout`` seconds; names the unfinished tasks.
        """
        deadline = time.monotonic() + timeout
        while True:
            state = self.state(dag_id, run_id)
            if on_poll is not None:
                on_poll(state, self.task_states(dag_id, run_id))
            if state in TERMINAL_STATES:
                return state
            if time.monotonic() > deadline:
                open_tasks = [f"{task.task_id}: {task.state}" for task in self.task_states(dag_id, run_id).values()]
                raise AirflowRestError(
                    f"The DAG run {run_id} of {dag_id} is still {state} after {timeout:.0f} s "
                    f"({', '.join(open_tasks)})."
                )
            time.sleep(poll)

    def failure(self, dag_id: str, run_id: str, *, lines: int = 15) -> str:
        """Describes why a DAG run failed: each failed task with the last lines of its log."""
        parts = []
        for task in self.task_states(dag_id, run_id).values():
            if task.state != "failed":
                continue
            try:
                tail = self.task_log(dag_id, run_id, task.task_id, max(task.try_number, 1))[-lines:]
            except AirflowRestError as error:
                tail = [f"(no log: {error})"]
            parts.append("\n".join([f"{dag_id}.{task.task_id} failed:", *(f"    {line}" for line in tail)]))
        return "\n".join(parts) or f"No task of {dag_id} run {run_id} has failed."

    # -- transport ---------------------------------------------------------------------------------------

    @staticmethod
    def _run_path(dag_id: str, run_id: str) -> str:
        # A run id holds ":" and "+"; a bare "+" would arrive as a space.
        return f"/api/v2/dags/{quote(dag_id)}/dagRuns/{quote(run_id, safe='')}"

    def _fetch_token(self) -> str:
        body = {"username": self._username, "password": self._password}
        return str(self._send("POST", "/auth/token", json=body, authorised=False)["access_token"])

    def _send(self, method: str, path: str, *, authorised: bool = True, **request: Any) -> Any:
        """Sends one request and returns the JSON body; gets a new token when the old one has expired."""
        headers = dict(request.pop("headers", {}))
        reads_left = _READ_RETRIES if method == "GET" else 0
        tokens_left = _TOKEN_RETRIES
        while True:
            if authorised:
                if self._token is None:
                    self._token = self._fetch_token()
                headers["authorization"] = f"Bearer {self._token}"
            try:
                response = self._client.request(method, path, headers=headers, **request)
            except httpx.TimeoutException as error:
                if reads_left:
                    reads_left -= 1
                    continue
                raise AirflowRestError(
                    f"Airflow at {self.base_url} did not answer {method} {path} in {_TIMEOUT_SECONDS:.0f} s."
                ) from error
            except httpx.HTTPError as error:
                raise AirflowRestError(
                    f"Airflow at {self.base_url} cannot be reached for {method} {path}: {error}."
                ) from error
            if response.status_code == httpx.codes.UNAUTHORIZED and authorised and tokens_left:
                tokens_left -= 1
                self._token = None
                continue
            if response.status_code >= 500 and reads_left:
                reads_left -= 1
                time.sleep(0.5)
                continue
            if response.is_error:
                raise AirflowRestError(
                    f"Airflow answered {response.status_code} to {method} {path}: {_reason(response)}",
                    status=response.status_code,
                )
            return response.json() if response.content else {}


def _log_lines(entry: Any) -> list[str]:
    """Returns what one entry of a task log says, as lines."""
    if not isinstance(entry, dict):
        return [str(entry)]
    lines = [] if str(entry["event"]).startswith(("::group::", "::endgroup::")) else [str(entry["event"])]
    for error in entry.get("error_detail") or ():
        lines.append(f"{error.get('exc_type')}: {error.get('exc_value')}")
    return lines


def _reason(response: httpx.Response) -> str:
    """Returns Airflow's own explanation of an error response, at most 500 characters."""
    try:
        detail = response.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = response.text
    return str(detail)[:500]
