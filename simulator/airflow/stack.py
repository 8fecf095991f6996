"""Starts and stops a whole Airflow on the loopback: api-server, scheduler, dag-processor, triggerer.

It does not know Crossbank's DAGs and never touches the user's own ``~/airflow``: everything lives in the
home it is given. ``airflow standalone`` is not used because it opens log servers on every interface.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

import psutil

from simulator.airflow.rest import AirflowRest, AirflowRestError
from simulator.ports import LOOPBACK, free_port

__all__ = ["AirflowStack", "AirflowStackError", "listening_addresses", "stop_stack"]

_USER: Final = "admin"
_PID_FILE: Final = "processes.json"
_PASSWORD_FILE: Final = "passwords.json"
_STOP_SECONDS: Final = 8.0
_TAIL_LINES: Final = 25

# --skip-serve-logs: the log servers of these two listen on all interfaces and cannot be told otherwise.
# The api-server reads the log files from the shared folder instead.
_COMPONENTS: Final[dict[str, tuple[str, ...]]] = {
    "api-server": ("api-server", "--host", LOOPBACK, "--workers", "1"),
    "scheduler": ("scheduler", "--skip-serve-logs"),
    "dag-processor": ("dag-processor",),
    "triggerer": ("triggerer", "--skip-serve-logs"),
}
# The names the health page gives to the components.
_HEALTH_NAMES: Final = ("metadatabase", "scheduler", "dag_processor", "triggerer")


class AirflowStackError(RuntimeError):
    """Airflow did not start or died; the message names the process and shows the end of its log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Process:
    """A started process and where its output goes."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path


class AirflowStack:
    """A private Airflow with SQLite and the LocalExecutor, as a context manager.

    Entering starts it and returns when every component is healthy; leaving stops every process it
    started, also on Ctrl-C and on an error while starting.

    Args:
        home: Folder for Airflow's database, settings, logs and password file; made when missing. A home
            that was used before is used again, with its history.
        dags_folder: Folder Airflow reads DAG files from.
        env: Variables added to the environment of all components and tasks. Values win over the stack's
            own ``AIRFLOW__…`` settings. ``AIRFLOW…`` variables of the calling process are not inherited.
        port: Port of the api-server; None picks a free one.
        parallelism: Tasks that may run at the same time. Every bank of a run needs one of its own.
        paused: Whether DAGs start paused.
        keep: Leaves Airflow running when the context ends without an error; ``stop_stack(home)`` ends it.
        start_seconds: Seconds to wait for health before giving up.
        log: Called with one line of progress at a time.

    Attributes:
        seconds_to_healthy: Wall time the last start took, in seconds.
    """

    def __init__(
        self,
        home: Path,
        dags_folder: Path,
        *,
        env: Mapping[str, str] | None = None,
        port: int | None = None,
        parallelism: int = 16,
        paused: bool = True,
        keep: bool = False,
        start_seconds: float = 120.0,
        log: Callable[[str], None] | None = None,
    ) -> None:
        self.home = Path(home).resolve()
        self.dags_folder = Path(dags_folder).resolve()
        self.port = port
        self.keep = keep
        self.seconds_to_healthy: float | None = None
        self._extra = dict(env or {})
        self._parallelism = parallelism
        self._paused = paused
        self._start_seconds = start_seconds
        self._log = log or (lambda line: None)
        self._processes: list[_Process] = []
        self._password = ""

    # -- what the caller reads ---------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """Address of Airflow's page and REST API."""
        if self.port is None:
            raise AirflowStackError("Airflow has no address before it is started.")
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def username(self) -> str:
        """Name to sign in with."""
        return _USER

    @property
    def password(self) -> str:
        """Password to sign in with; made at random for each home and kept there in a 0600 file."""
        return self._password

    @property
    def logs(self) -> Path:
        """Folder of the components' log files; task logs are in its ``tasks`` folder."""
        return self.home / "logs"

    def rest(self) -> AirflowRest:
        """Returns a new REST client; the caller closes it."""
        return AirflowRest(self.url, self.username, self.password)

    def pids(self) -> dict[str, int]:
        """Returns the process id of each component that was started."""
        return {process.name: process.popen.pid for process in self._processes}

    # -- life --------------------------------------------------------------------------------------------

    def __enter__(self) -> AirflowStack:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.keep and kind is None:
            atexit.unregister(self.stop)
            return
        self.stop()

    def start(self) -> None:
        """Starts every component and waits until all are healthy.

        Raises:
            AirflowStackError: If a component dies or is not healthy in time; nothing is left running.
        """
        if running := _recorded(self.home):
            names = ", ".join(process["name"] for process, _ in running)
            raise AirflowStackError(f"An Airflow of the home {self.home} is running already ({names}); stop it first.")
        begun = time.monotonic()
        self._prepare()
        atexit.register(self.stop)
        try:
            environment = self._environment()
            self._migrate(environment)
            for name, arguments in _COMPONENTS.items():
                if name == "api-server":
                    arguments = (*arguments, "--port", str(self.port))
                self._launch(name, arguments, environment)
            self._wait_for_health(begun)
        except BaseException:
            self.stop()
            raise
        self.seconds_to_healthy = time.monotonic() - begun
        self._log(f"Airflow is healthy at {self.url} after {self.seconds_to_healthy:.1f} s.")

    def stop(self) -> None:
        """Ends every process this stack started and their children. Safe to call again."""
        atexit.unregister(self.stop)
        _end([process.popen.pid for process in self._processes])
        for process in self._processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.popen.wait(timeout=_STOP_SECONDS)
        self._processes.clear()
        (self.home / _PID_FILE).unlink(missing_ok=True)

    def check(self) -> None:
        """Raises AirflowStackError if a component has died, with the end of its log."""
        for process in self._processes:
            code = process.popen.poll()
            if code is not None:
                raise AirflowStackError(
                    f"Airflow's {process.name} ended with exit code {code}. "
                    f"The end of {process.log}:\n{_tail(process.log)}"
                )

    # -- parts of a start ----------------------------------------------------------------------------------

    def _prepare(self) -> None:
        """Makes the folders and the password file, and picks the port."""
        if not self.dags_folder.is_dir():
            raise AirflowStackError(f"The DAG folder {self.dags_folder} does not exist.")
        self.home.mkdir(parents=True, exist_ok=True)
        self.home.chmod(0o700)
        self.logs.mkdir(exist_ok=True)
        if self.port is None:
            self.port = free_port()
        path = self.home / _PASSWORD_FILE
        try:
            self._password = json.loads(path.read_text(encoding="utf-8"))[_USER]
        except (OSError, ValueError, KeyError):
            self._password = secrets.token_urlsafe(12)
            path.unlink(missing_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump({_USER: self._password}, file)

    def _environment(self) -> dict[str, str]:
        """Returns the environment of every component: the caller's without its Airflow, and the settings."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
        return inherited | self._settings() | self._extra

    def _settings(self) -> dict[str, str]:
        """Returns the variables that make this Airflow private, small and quick."""
        interpreter = Path(sys.executable)
        # DAG files and tasks import Crossbank's packages; a checkout need not be installed for that.
        root = str(Path(__file__).resolve().parents[2])
        python_path = os.pathsep.join(part for part in (root, os.environ.get("PYTHONPATH", "")) if part)
        no_proxy = ",".join(part for part in (os.environ.get("no_proxy", ""), LOOPBACK, "localhost") if part)
        return {
            # Airflow starts itself by name and waits for ever if the name is not found.
            "PATH": os.pathsep.join((str(interpreter.parent), os.environ.get("PATH", os.defpath))),
            "PYTHONPATH": python_path,
            "PYTHONUNBUFFERED": "1",
            "NO_PROXY": no_proxy,
            "no_proxy": no_proxy,
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags_folder),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": str(self._parallelism),
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": str(self._paused),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{_USER}:admin",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(self.home / _PASSWORD_FILE),
            # A look-up of the full host name can take seconds, for every task, on a machine without DNS.
            "AIRFLOW__CORE__HOSTNAME_CALLABLE": "socket.gethostname",
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__HOST": LOOPBACK,
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.home / 'airflow.db'}",
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(self.logs / "tasks"),
            "AIRFLOW__DAG_PROCESSOR__DAG_PROCESSOR_CHILD_PROCESS_LOG_DIRECTORY": str(self.logs / "dag_files"),
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "10",
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "30",
            "AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL": "5",
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
            # A task holds its slot for this long after it has ended.
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
            # Training holds every core; the api-server may answer late without anything being wrong.
            "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "30.0",
            "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "60",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        }

    def _migrate(self, environment: Mapping[str, str]) -> None:
        """Makes or updates the database."""
        self._log("Airflow: preparing the database")
        log = self.logs / "db-migrate.log"
        with log.open("ab") as output:
            code = subprocess.run(
                [sys.executable, "-m", "airflow", "db", "migrate"],
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                check=False,
            ).returncode
        if code != 0:
            raise AirflowStackError(
                f"Airflow's database migration ended with exit code {code}. The end of {log}:\n{_tail(log)}"
            )

    def _launch(self, name: str, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        """Starts one component in a process group of its own and records its process id."""
        log = self.logs / f"{name}.log"
        self._log(f"Airflow: starting the {name}")
        with log.open("ab") as output:
            popen = subprocess.Popen(
                [sys.executable, "-m", "airflow", *arguments],
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._processes.append(_Process(name=name, popen=popen, log=log))
        record = []
        for process in self._processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                created = psutil.Process(process.popen.pid).create_time()
                record.append({"name": process.name, "pid": process.popen.pid, "created": created})
        (self.home / _PID_FILE).write_text(json.dumps(record, indent=1), encoding="utf-8")

    def _wait_for_health(self, begun: float) -> None:
        """Blocks until the health page calls every component healthy."""
        seen: dict[str, str] = {}
        with self.rest() as rest:
            while True:
                self.check()
                with contextlib.suppress(AirflowRestError):
                    seen = rest.health()
                    if all(seen.get(name) == "healthy" for name in _HEALTH_NAMES):
                        return
                if time.monotonic() - begun > self._start_seconds:
                    raise AirflowStackError(self._unhealthy(seen))
                time.sleep(0.25)

    def _unhealthy(self, seen: Mapping[str, str]) -> str:
        """Describes a start that took too long: which component lags, with the end of its log."""
        if not seen:
            lagging = ["api-server"]
        else:
            lagging = [name.replace("_", "-") for name in _HEALTH_NAMES if seen.get(name) != "healthy"]
        tails = [
            f"The end of {process.log}:\n{_tail(process.log)}" for process in self._processes if process.name in lagging
        ]
        return "\n".join(
            [
                f"Airflow is not healthy after {self._start_seconds:.0f} s; waiting for {', '.join(lagging)}.",
                *tails,
            ]
        )


def stop_stack(home: Path) -> list[str]:
    """Stops an Airflow that was left running with ``keep=True``.

    Only processes recorded in ``home`` that still are what was recorded (same id, same start time) are
    ended, so a reused process id is never hit.

    Returns:
        The names of the components that were running.
    """
    running = _recorded(Path(home).resolve())
    _end([process.pid for _, process in running])
    (Path(home) / _PID_FILE).unlink(missing_ok=True)
    return [record["name"] for record, _ in running]


def listening_addresses(pids: Sequence[int]) -> list[tuple[str, int]]:
    """Returns the (address, port) of every listening TCP socket of ``pids`` and their descendants."""
    found = set()
    for process in _families(pids):
        with contextlib.suppress(psutil.Error):
            for connection in process.net_connections(kind="tcp"):
                if connection.status == psutil.CONN_LISTEN:
                    found.add((str(connection.laddr.ip), int(connection.laddr.port)))
    return sorted(found)


def _recorded(home: Path) -> list[tuple[dict[str, str], psutil.Process]]:
    """Returns the recorded processes of ``home`` that are still running."""
    try:
        records = json.loads((home / _PID_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    alive = []
    for record in records:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(record["pid"])
            same = abs(process.create_time() - record["created"]) < 1.0
            if same and process.status() != psutil.STATUS_ZOMBIE:
                alive.append((record, process))
    return alive


def _families(pids: Sequence[int]) -> Iterator[psutil.Process]:
    """Yields each process of ``pids`` that exists and all its descendants."""
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            parent = psutil.Process(pid)
            yield parent
            yield from parent.children(recursive=True)


def _end(pids: Sequence[int]) -> None:
    """Ends processes and their descendants: politely first, then by force."""
    # Collected before the first signal: a child whose parent has gone can no longer be found.
    members = list(_families(pids))
    for member in members:
        with contextlib.suppress(psutil.Error):
            member.send_signal(signal.SIGTERM)
    _, left = psutil.wait_procs(members, timeout=_STOP_SECONDS)
    late = [child for member in left for child in _families([member.pid])]
    for member in late:
        with contextlib.suppress(psutil.Error):
            member.kill()
    psutil.wait_procs(late, timeout=_STOP_SECONDS)


def _tail(path: Path) -> str:
    """Returns the last lines of a log file."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        return f"(no log: {error})"
    return "\n".join(text.splitlines()[-_TAIL_LINES:]) or "(the log is empty)"
