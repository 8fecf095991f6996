"""Fixtures that several folders of tests share: a real aggregator on loopback, and banks that dial it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from aggregator.config import AggregatorConfig
from aggregator.operator.client import OperatorClient
from aggregator.server import AggregatorServer
from bank_node.config import AggregatorAddress
from bank_node.secure_aggregation.session import RunSession
from bank_node.transport.client import BankClient
from bank_node.transport.identity import Identity
from protocol.errors import RunAborted
from protocol.messages import RunSettings
from protocol.run_plan import RunPlan
from simulator.harness.processes import bank_files, make_certificates, operator_files
from simulator.ports import LOOPBACK, free_port

BANKS = ["alder_bank", "birch_bank", "cedar_bank"]
FINGERPRINT = "ab" * 32


@dataclass
class Node:
    """A served aggregator and the certificates of its parties."""

    folder: Path
    address: str
    server: AggregatorServer
    sessions: list[RunSession] = field(default_factory=list)

    @property
    def certificates(self) -> Path:
        return self.folder / "certificates"

    def operator(self) -> OperatorClient:
        return OperatorClient(self.address, operator_files(self.certificates))

    def settings(self, banks: list[str] | None = None, **changes: Any) -> RunSettings:
        fields: dict[str, Any] = {
            "title": "test",
            "roster": tuple(banks or BANKS),
            "contract_fingerprint": FINGERPRINT,
            "parameters_json": RunPlan(params={"n_estimators": 2}).to_json(),
            "enrol_seconds": 60,
            "step_seconds": 60,
            "minimum_roster": min(3, len(banks or BANKS)),
        }
        made = fields | changes
        if "rounds" not in made:
            made["rounds"] = RunPlan.from_json(made["parameters_json"]).rounds
        return RunSettings(**made)

    def open(self, banks: list[str] | None = None, **changes: Any) -> str:
        with self.operator() as client:
            return client.open_run(self.settings(banks, **changes))

    def client(self, bank: str, patience_seconds: float = 5.0) -> BankClient:
        files = bank_files(self.certificates, bank)
        node = AggregatorAddress(address=self.address, ca=files.ca, certificate=files.certificate, key=files.key)
        return BankClient(node, bank, patience_seconds=patience_seconds)

    def session(self, bank: str, run_id: str, minimum_roster: int = 3) -> RunSession:
        identity = Identity(bank_files(self.certificates, bank), bank)
        folder = self.folder / bank / run_id
        session = RunSession(self.client(bank), identity, run_id, folder, lambda _: None, minimum_roster=minimum_roster)
        self.sessions.append(session)
        return session


def in_parallel(banks: list[str], work: Callable[[str], Any]) -> dict[str, Any]:
    """Run `work(bank)` for all banks at once; an error is raised, rather not one of a run that another error ended."""
    with ThreadPoolExecutor(len(banks)) as pool:
        futures = {bank: pool.submit(work, bank) for bank in banks}
    errors = [error for future in futures.values() if (error := future.exception()) is not None]
    for error in sorted(errors, key=lambda each: isinstance(each, RunAborted)):
        raise error
    return {bank: future.result() for bank, future in futures.items()}


@contextlib.contextmanager
def serving(folder: Path, adding_processes: int = 0) -> Iterator[Node]:
    """A node with its certificates and its store in a folder, and sessions that are closed at the end."""
    certificates = folder / "certificates"
    make_certificates(certificates, [*BANKS, "dune_bank", "elm_bank"])
    address = f"{LOOPBACK}:{free_port()}"
    server = AggregatorServer(
        AggregatorConfig(
            adding_processes=adding_processes,
            listen=address,
            console=None,
            ca=certificates / "ca.pem",
            certificate=certificates / "aggregator.pem",
            key=certificates / "aggregator.key",
            store=f"sqlite:///{folder / 'aggregator.db'}",
        )
    )
    server.start()
    made = Node(folder=folder, address=address, server=server)
    yield made
    for session in made.sessions:
        session.client.close()
    server.stop()


@pytest.fixture
def node(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Node]:
    """A node; it adds in so many processes as an indirect parameter says, by default in its own."""
    with serving(tmp_path, getattr(request, "param", 0)) as made:
        yield made


@pytest.fixture(autouse=True)
def no_stray_threads_fail_silently() -> Iterator[None]:
    """An exception in a thread must fail the test that started it."""
    failures: list[str] = []
    before = threading.excepthook
    threading.excepthook = lambda args: failures.append(f"{args.thread}: {args.exc_type.__name__}: {args.exc_value}")
    yield
    threading.excepthook = before
    assert not failures, failures
