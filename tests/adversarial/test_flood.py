"""One certificate that floods or idles, revoked or not, holds nobody up: each call is looked at before it is read."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from aggregator.operator.client import OperatorClient
from aggregator.persistence.audit import AuditKind, AuditLog, AuditRecord
from aggregator.persistence.store import Store
from aggregator.pki.ca import issued_certificates, revoke
from aggregator.rpc.access import METHOD_ROLES
from bank_node.config import AggregatorAddress
from bank_node.transport.client import BankClient
from protocol import crossbank_pb2 as pb
from protocol.channel import open_channel
from protocol.limits import MAX_CALLS_PER_IDENTITY, MAX_DETAIL_CHARS, MAX_MESSAGE_BYTES
from protocol.run_plan import RunPlan
from simulator.harness.processes import AggregatorProcess, bank_files, make_certificates, operator_files
from tests.conftest import BANKS, Node

SERVICE = "/crossbank.v1.Consortium/"
CALLS = 300


@pytest.fixture
def served(tmp_path: Path) -> Iterator[AggregatorProcess]:
    make_certificates(tmp_path / "certificates", BANKS)
    node = AggregatorProcess(tmp_path / "node", tmp_path / "certificates")
    node.start()
    yield node
    node.stop()


def _silent(channel: grpc.Channel, method: str, over: threading.Event) -> grpc.Call:
    """A call that sends no message and does not end."""

    def nothing() -> Iterator[bytes]:
        over.wait()
        yield from ()

    return channel.stream_stream(SERVICE + method)(nothing(), timeout=600)


def _records(node: AggregatorProcess, kind: AuditKind) -> list[AuditRecord]:
    log = AuditLog(Store(f"sqlite:///{node.config_path.parent / 'aggregator.db'}").engine)
    return [record for record in log.records() if record.kind == kind]


def _eventually(what: Callable[[], bool], why: str) -> None:
    give_up = time.monotonic() + 60
    while not what():
        assert time.monotonic() < give_up, why
        time.sleep(0.05)


# The second is a call of one message, which gRPC itself would wait for.
@pytest.mark.parametrize("method", ["SecureSum", "Report"])
@pytest.mark.parametrize("revoked", [False, True])
def test_calls_without_a_message_hold_neither_the_operator_nor_other_banks(
    served: AggregatorProcess, tmp_path: Path, method: str, revoked: bool
) -> None:
    certificates, over = tmp_path / "certificates", threading.Event()
    thief = bank_files(certificates, BANKS[0])
    with open_channel(served.address, thief) as channel:
        if revoked:
            revoke(certificates, BANKS[0], "laptop stolen")
            _eventually(lambda: bool(_records(served, AuditKind.REVOCATION_LIST_READ)), "the list is not read again")
        calls = [_silent(channel, method, over) for _ in range(CALLS)]
        try:
            with OperatorClient(served.address, operator_files(certificates)) as operator:
                assert operator.list_runs() == []
            files = bank_files(certificates, BANKS[1])
            address = AggregatorAddress(
                address=served.address, ca=files.ca, certificate=files.certificate, key=files.key
            )
            other = BankClient(address, BANKS[1], patience_seconds=0)
            assert other.runs() == []
            other.close()
            most = 0 if revoked else MAX_CALLS_PER_IDENTITY
            _eventually(lambda: sum(not call.done() for call in calls) <= most, "calls beyond the cap go on")
            # gRPC itself refuses streams beyond the connection's share until the caller has heard of it.
            codes = {call.code() for call in calls if call.done()} - {grpc.StatusCode.UNAVAILABLE}
            refused = AuditKind.CERTIFICATE_REFUSED if revoked else AuditKind.CALLS_LIMITED
            assert codes == {grpc.StatusCode.UNAUTHENTICATED if revoked else grpc.StatusCode.RESOURCE_EXHAUSTED}
            (serial,) = [c.serial for c in issued_certificates(certificates) if c.identity == BANKS[0]]
            named = {(record.identity, record.serial) for record in _records(served, refused)}
            assert named == {(BANKS[0], serial)}
        finally:
            over.set()
            for call in calls:
                call.cancel()


@pytest.mark.parametrize("method", ["SecureSum", "Join"])
def test_a_call_that_sends_nothing_is_ended_and_noted(node: Node, method: str) -> None:
    node.server.access.idle_seconds = 0.5
    over = threading.Event()
    with open_channel(node.address, bank_files(node.certificates, BANKS[0])) as channel:
        call = _silent(channel, method, over)
        _eventually(call.done, "the idle call goes on")
        over.set()
        assert call.code() is grpc.StatusCode.CANCELLED
    _eventually(lambda: not node.server.access._active, "the ended call is still counted")
    noted = [r for r in node.server.audit.records() if r.kind == AuditKind.CALL_ENDED]
    assert [(r.identity, r.detail) for r in noted] == [(BANKS[0], f"{method}: nothing came, or was taken, for 0.5 s")]


def test_a_stream_that_stops_after_its_header_is_ended(node: Node) -> None:
    """Also when a run is under way: the header alone does not make a caller trusted."""
    node.server.access.idle_seconds = 0.5
    over = threading.Event()

    def begin() -> Iterator[pb.SumUpload]:
        yield pb.SumUpload(batch=pb.ChunkBatch())
        over.wait()

    with open_channel(node.address, bank_files(node.certificates, BANKS[0])) as channel:
        stub = channel.stream_stream(SERVICE + "SecureSum", pb.SumUpload.SerializeToString, pb.SumReply.FromString)
        call = stub(begin(), timeout=600)
        _eventually(call.done, "the stream goes on")
        over.set()
        assert call.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_each_method_says_who_may_call_it() -> None:
    methods = pb.DESCRIPTOR.services_by_name["Consortium"].methods
    assert {SERVICE + method.name for method in methods} == {m for m in METHOD_ROLES if m.startswith(SERVICE)}


def test_health_needs_a_certificate_that_counts_and_a_share_of_the_calls(node: Node) -> None:
    """Health's `Watch` holds a thread each for as long as it is open."""
    with open_channel(node.address, bank_files(node.certificates, BANKS[0])) as channel:
        watch = channel.unary_stream("/grpc.health.v1.Health/Watch")
        calls = [watch(b"", timeout=60) for _ in range(MAX_CALLS_PER_IDENTITY + 3)]
        _eventually(lambda: sum(call.done() for call in calls) == 3, "calls beyond the cap go on")
        for call in calls:
            call.cancel()


@pytest.mark.parametrize("size", [MAX_MESSAGE_BYTES + 1000, 32 * 1024 * 1024 - 1000])
def test_a_message_beyond_the_cap_is_refused_unread(node: Node, size: int) -> None:
    """The cap was 16 times what the limits say."""
    node.open()
    files = bank_files(node.certificates, BANKS[0])
    credentials = grpc.ssl_channel_credentials(
        files.ca.read_bytes(), files.key.read_bytes(), files.certificate.read_bytes()
    )
    options = [("grpc.max_send_message_length", -1)]
    with grpc.secure_channel(node.address, credentials, options=options) as channel:
        call = channel.unary_unary(SERVICE + "ListRuns")
        with pytest.raises(grpc.RpcError, match="larger than max") as caught:
            call(bytes(size), timeout=60)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        call(b"", timeout=60)


def test_a_list_of_runs_may_be_longer_than_a_message_that_the_node_takes(node: Node) -> None:
    title = "x" * MAX_DETAIL_CHARS
    plan = RunPlan(params={"n_estimators": 2}).to_json()
    settings = node.settings(title=title, parameters_json=plan[:-1] + " " * 60_000 + plan[-1:])
    with node.operator() as operator:
        for _ in range(40):
            operator.open_run(settings)
        assert len(operator.list_runs()) == 40
