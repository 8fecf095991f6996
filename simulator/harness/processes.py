"""Starts a consortium on this machine: certificates, the aggregator's process, worker processes. No training here."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import yaml

from aggregator.operator.client import OperatorClient
from aggregator.pki.ca import create_ca, issue_server_certificate, make_key_and_request, sign_request
from bank_node.transport.identity import make_request
from protocol.channel import TlsFiles
from protocol.errors import AggregatorUnreachable, LocalError
from simulator.ports import LOOPBACK, free_port

__all__ = ["AggregatorProcess", "bank_files", "child_environment", "make_certificates", "operator_files"]


def make_certificates(folder: Path, banks: list[str]) -> None:
    """A CA, the aggregator's, an operator's and each bank's key and certificate, as each party would make them."""
    folder.mkdir(parents=True, exist_ok=True)
    create_ca(folder)
    issue_server_certificate(folder, ("localhost", LOOPBACK))
    request = make_key_and_request(folder / "operator.key", "operator", "operator")
    (folder / "operator.pem").write_bytes(sign_request(folder, request, "operator", "operator"))
    for bank in banks:
        request = make_request(folder / f"{bank}.key", bank)
        (folder / f"{bank}.pem").write_bytes(sign_request(folder, request, bank, "bank"))


def operator_files(folder: Path) -> TlsFiles:
    """The operator's TLS files."""
    return bank_files(folder, "operator")


def bank_files(folder: Path, bank: str) -> TlsFiles:
    """A bank's TLS files."""
    return TlsFiles(ca=folder / "ca.pem", certificate=folder / f"{bank}.pem", key=folder / f"{bank}.key")


def child_environment() -> dict[str, str]:
    """Environment of a worker: one thread per numerical library, so that processes do not fight for cores."""
    return os.environ | {
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "NUMBA_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "",  # without bytecode files every process pays seconds to start
    }


class AggregatorProcess:
    """``python -m aggregator serve`` as a child, on loopback, with its store and log in `folder`."""

    def __init__(
        self, folder: Path, certificates: Path, *, port: int | None = None, console: int | None = None
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.address = f"{LOOPBACK}:{port or free_port()}"
        self.console = f"http://{LOOPBACK}:{console or free_port()}"
        self.log_path = folder / "aggregator.log"
        self._certificates = certificates
        config = {
            "listen": self.address,
            "console": self.console.removeprefix("http://"),
            "ca": str(certificates / "ca.pem"),
            "certificate": str(certificates / "aggregator.pem"),
            "key": str(certificates / "aggregator.key"),
            "store": "sqlite:///aggregator.db",
        }
        self.config_path = folder / "aggregator.yaml"
        self.config_path.write_text(yaml.safe_dump(config))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id."""
        if self._process is None:
            raise LocalError("the aggregator has not been started")
        return self._process.pid

    def start(self, patience_seconds: float = 60.0) -> None:
        """Start it and wait until it answers.

        Raises:
            LocalError: it ended or did not answer; the text has the end of its log.
        """
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "aggregator", "serve", "--config", str(self.config_path)],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=child_environment(),
                start_new_session=True,
            )
        give_up = time.monotonic() + patience_seconds
        while time.monotonic() < give_up and self._process.poll() is None:
            try:
                with OperatorClient(self.address, operator_files(self._certificates)) as client:
                    client.list_runs(1)
                return
            except AggregatorUnreachable:
                time.sleep(0.2)
        tail = "\n".join(self.log_path.read_text().splitlines()[-5:])
        self.stop()
        raise LocalError(f"the aggregator did not start; the end of {self.log_path}:\n{tail}")

    def stop(self) -> None:
        """Stop it, gently, then by force."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
