"""Runs the node: the gRPC service over mutual TLS, the deadline watch, the operator's page. Loopback by default."""

import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import uvicorn
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from aggregator.aggregation.adding import AddingPool
from aggregator.config import AggregatorConfig
from aggregator.console.app import build_console
from aggregator.persistence.audit import AuditKind, AuditLog
from aggregator.persistence.store import Store
from aggregator.rpc.access import AccessControl, RevocationList
from aggregator.rpc.decoding import SafeDecoding
from aggregator.rpc.gate import CallGate
from aggregator.rpc.node_certificate import NodeCertificate
from aggregator.rpc.service import ConsortiumService
from aggregator.runs.coordinator import Coordinator
from protocol import crossbank_pb2_grpc as rpc
from protocol.channel import SERVER_OPTIONS
from protocol.errors import LocalError
from protocol.limits import MAX_BANKS, MAX_CALLS_PER_IDENTITY

__all__ = ["AggregatorServer"]

logger = logging.getLogger(__name__)


class AggregatorServer:
    """One consortium node in this process."""

    def __init__(self, config: AggregatorConfig) -> None:
        """Open the store and bind the ports; `start` begins to serve.

        Raises:
            ConfigError: a file can't be read, the key is open to others, or an address can't be bound.
        """
        self.config = config
        store = Store(config.store)
        self.audit = AuditLog(store.engine)
        self.audit.on_failure = lambda: store.note_failure("the audit log can't be written")
        self.access = AccessControl(RevocationList(config.revocation_list, config.ca), self.audit)

        def refused(run_id: str, bank: str, text: str) -> None:
            self.audit.record(AuditKind.PAYLOAD_REFUSED, identity=bank, run_id=run_id, detail=text)

        self._pool = AddingPool(config.adding_processes) if config.adding_processes else None
        self.coordinator = Coordinator(store, on_refusal=refused, pool=self._pool)
        # A call holds a thread; so many that certificates which use all they may leave enough for the others.
        self._server = grpc.server(
            ThreadPoolExecutor(max_workers=MAX_BANKS * MAX_CALLS_PER_IDENTITY, thread_name_prefix="call"),
            options=[*SERVER_OPTIONS, ("grpc.so_reuseport", 0), ("grpc.max_concurrent_streams", 64)],
            interceptors=[CallGate(self.access), SafeDecoding(self.access)],
        )
        rpc.add_ConsortiumServicer_to_server(ConsortiumService(self.coordinator, self.access), self._server)
        checks = health.HealthServicer()

        def tell_health(trouble: str) -> None:
            health_status = health_pb2.HealthCheckResponse
            checks.set("", health_status.NOT_SERVING if trouble else health_status.SERVING)

        store.on_trouble = tell_health
        tell_health(store.trouble)
        health_pb2_grpc.add_HealthServicer_to_server(checks, self._server)
        certificate = NodeCertificate(
            config.certificate,
            config.key,
            config.key_passphrase_file,
            config.ca,
            lambda text: self.audit.record(AuditKind.NODE_CERTIFICATE, detail=text),
        )
        try:
            self.port = self._server.add_secure_port(config.listen, certificate.credentials())
        except RuntimeError as error:
            raise LocalError(f"can't listen on {config.listen}: is it in use?") from error
        self._stopping = threading.Event()
        self._console: uvicorn.Server | None = None
        if config.console is not None:
            host, _, port = config.console.rpartition(":")
            self._console = uvicorn.Server(
                uvicorn.Config(
                    build_console(self.coordinator, lambda: store.trouble, config.allowed_hosts),
                    host=host,
                    port=int(port),
                    log_level="warning",
                    access_log=False,
                )
            )

    def start(self) -> None:
        """Begin to serve; returns at once."""
        self.audit.record(AuditKind.NODE_STARTED, detail=f"on {self.config.listen}")
        self._server.start()
        threading.Thread(target=self._watch, name="deadlines", daemon=True).start()
        if self._console is not None:
            threading.Thread(target=self._console.run, name="console", daemon=True).start()
        logger.info("listening on %s, console on %s", self.config.listen, self.config.console)

    def stop(self) -> None:
        """Stop serving; calls under way get two seconds."""
        self._stopping.set()
        if self._console is not None:
            self._console.should_exit = True
        self._server.stop(2).wait()
        if self._pool is not None:
            self._pool.close()

    def wait(self) -> None:
        """Block until `stop` is called."""
        self._stopping.wait()

    def _watch(self) -> None:
        while not self._stopping.wait(1.0):
            try:
                self.coordinator.look()
                self.access.enforce()
                self.coordinator.enforce_deadlines()
            except Exception:
                logger.exception("the deadline watch failed; it goes on")
