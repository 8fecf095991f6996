"""Stolen, expired, foreign and self-made certificates, and connections without one: refused, and in the audit log."""

import datetime as dt
import json
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from sqlalchemy import create_engine, text

from aggregator.persistence.audit import AuditKind, AuditLog
from aggregator.persistence.store import Store
from aggregator.pki.ca import (
    create_ca,
    issued_certificates,
    make_key_and_request,
    revoke,
    sign_request,
    write_crl,
)
from aggregator.rpc.handshakes import handshake_failure
from bank_node.config import AggregatorAddress
from bank_node.transport.client import BankClient
from bank_node.transport.identity import Identity, make_request
from protocol.channel import TlsFiles, open_channel
from protocol.enrolment import request_fingerprint
from protocol.errors import AggregatorUnreachable, ConfigError, ProtocolViolation, RemoteError
from protocol.messages import JoinRequest
from simulator.harness.processes import AggregatorProcess, bank_files, make_certificates
from tests.conftest import BANKS, FINGERPRINT, Node, in_parallel

NOW = dt.datetime.now(dt.UTC)


def _eventually(what: Callable[[], bool], why: str) -> None:
    """Poll; the patience is for slow machines, not a limit on speed."""
    give_up = time.monotonic() + 60
    while not what():
        assert time.monotonic() < give_up, why
        time.sleep(0.05)


def _audit(database: Path) -> AuditLog:
    return AuditLog(Store(f"sqlite:///{database}").engine)


def _client(address: str, files: TlsFiles, bank: str) -> BankClient:
    node = AggregatorAddress(address=address, ca=files.ca, certificate=files.certificate, key=files.key)
    return BankClient(node, bank, patience_seconds=0.3)


# -- at the handshake, against the real process ---------------------------------------------------------------


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[AggregatorProcess, Path]]:
    folder = tmp_path_factory.mktemp("served")
    make_certificates(folder / "certificates", BANKS)
    node = AggregatorProcess(folder / "node", folder / "certificates")
    node.start()
    yield node, folder
    node.stop()


def _plain_bytes(address: str, certificates: Path) -> None:
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        connection.settimeout(20)
        # It may answer with a TLS alert; it must close.
        while connection.recv(1000):
            pass


def _plain_grpc(address: str, certificates: Path) -> None:
    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/crossbank.v1.Consortium/ListRuns")(b"", timeout=20)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def _no_certificate(address: str, certificates: Path) -> None:
    credentials = grpc.ssl_channel_credentials((certificates / "ca.pem").read_bytes())
    with grpc.secure_channel(address, credentials) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/crossbank.v1.Consortium/ListRuns")(b"", timeout=20)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def _with(address: str, certificates: Path, certificate: Path, key: Path) -> None:
    client = _client(address, TlsFiles(ca=certificates / "ca.pem", certificate=certificate, key=key), BANKS[0])
    with pytest.raises(AggregatorUnreachable):
        client.runs()
    client.close()


def _self_made(address: str, certificates: Path) -> None:
    forger = certificates.parent / "forger"
    make_certificates(forger, [BANKS[0]])
    _with(address, certificates, forger / f"{BANKS[0]}.pem", forger / f"{BANKS[0]}.key")


def _expired(address: str, certificates: Path) -> None:
    key, pem = certificates / "late.key", certificates / "late.pem"
    pem.write_bytes(sign_request(certificates, make_request(key, BANKS[0]), BANKS[0], "bank", days=-1))
    _with(address, certificates, pem, key)


@pytest.mark.parametrize(
    ("attack", "reason"),
    [
        (_plain_bytes, "no TLS"),
        (_plain_grpc, "no TLS"),
        (_no_certificate, "no client certificate"),
        (_self_made, "CA"),
        (_expired, "an expired certificate"),
    ],
)
def test_a_refused_handshake_is_in_the_audit_log_with_its_reason(
    served: tuple[AggregatorProcess, Path], attack: Callable[[str, Path], None], reason: str
) -> None:
    node, folder = served
    log = _audit(folder / "node" / "aggregator.db")
    before = len(log.records())
    attack(node.address, folder / "certificates")

    def found() -> bool:
        later = log.records()[before:]
        return any(r.kind == AuditKind.HANDSHAKE_REFUSED and reason in r.detail for r in later)

    _eventually(found, f"{[r.detail for r in log.records()[before:]]}")
    good = _client(node.address, bank_files(folder / "certificates", BANKS[0]), BANKS[0])
    assert good.runs() == []
    good.close()
    assert log.verify()[1] == ""


def test_nothing_below_tls_1_2_is_spoken(served: tuple[AggregatorProcess, Path]) -> None:
    node, _ = served
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    host, _, port = node.address.rpartition(":")
    with socket.create_connection((host, int(port))) as raw, pytest.raises((ssl.SSLError, OSError)):
        context.wrap_socket(raw)


# -- past the handshake ---------------------------------------------------------------------------------------


def _records(node: Node, kind: AuditKind) -> list[str]:
    return [f"{r.identity} {r.detail}" for r in node.server.audit.records() if r.kind == kind]


def test_a_revoked_certificate_is_refused_at_once_on_an_open_connection(node: Node) -> None:
    thief, honest = node.client(BANKS[0], 0.3), node.client(BANKS[1], 0.3)
    assert thief.runs() == [] == honest.runs()
    revoke(node.certificates, BANKS[0], "laptop stolen")
    _eventually(lambda: bool(_records(node, AuditKind.REVOCATION_LIST_READ)), "the list is not read again")
    with pytest.raises(RemoteError, match="the certificate is revoked"):
        thief.runs()
    assert f"{BANKS[0]} the certificate is revoked" in _records(node, AuditKind.CERTIFICATE_REFUSED)
    assert honest.runs() == []
    thief.close()
    honest.close()


def test_a_call_under_way_ends_when_its_certificate_is_revoked(node: Node) -> None:
    run_id = node.open()
    sessions = {}

    def enter(bank: str) -> None:
        sessions[bank] = node.session(bank, run_id)
        sessions[bank].join(FINGERPRINT)
        sessions[bank].exchange_keys()

    in_parallel(BANKS, enter)
    failures: list[Exception] = []

    def wait_in_vain() -> None:
        try:
            sessions[BANKS[0]].secure_sum("bins/0/0", np.arange(3))
        except Exception as error:
            failures.append(error)

    waiting = threading.Thread(target=wait_in_vain)
    waiting.start()
    _eventually(
        lambda: any(BANKS[0] in s.finished for s in node.server.coordinator._runs[run_id].steps.values()), "no upload"
    )
    revoke(node.certificates, BANKS[0], "laptop stolen")
    waiting.join(60)
    assert failures and "revoked" in str(failures[0])
    assert _records(node, AuditKind.CALL_ENDED)


def test_a_certificate_that_runs_out_while_the_connection_lives_is_refused(node: Node) -> None:
    client = node.client(BANKS[0], 0.3)
    assert client.runs() == []
    node.server.access._now = lambda: NOW + dt.timedelta(days=500)
    with pytest.raises(RemoteError, match="has run out"):
        client.runs()
    assert f"{BANKS[0]} the certificate has run out" in _records(node, AuditKind.CERTIFICATE_REFUSED)
    client.close()


def test_another_bank_s_certificate_and_another_role_are_refused_and_noted(node: Node) -> None:
    run_id = node.open()
    stranger = node.client("dune_bank", 0.3)
    with pytest.raises(RemoteError, match="only as itself"):
        stranger.join(
            JoinRequest(run_id=run_id, bank=BANKS[0], contract_fingerprint=FINGERPRINT, he_fingerprint=FINGERPRINT)
        )
    with open_channel(node.address, bank_files(node.certificates, BANKS[1])) as channel:
        from protocol import codec
        from protocol import crossbank_pb2_grpc as rpc

        with pytest.raises(grpc.RpcError, match="only an operator"):
            rpc.ConsortiumStub(channel).OpenRun(codec.settings_to_pb(node.settings()), timeout=20)
    noted = _records(node, AuditKind.ACTION_REFUSED)
    assert "dune_bank a bank can act only as itself" in noted
    assert f"{BANKS[1]} only an operator may do this" in noted
    stranger.close()


def test_a_refused_payload_is_noted_with_its_run(node: Node) -> None:
    node.server.coordinator._on_refusal("run-1", BANKS[0], "step bins/0/0, chunk 0: no ciphertext")
    assert f"{BANKS[0]} step bins/0/0, chunk 0: no ciphertext" in _records(node, AuditKind.PAYLOAD_REFUSED)


def test_banks_refuse_a_peer_that_is_revoked_and_a_list_that_is_forged_missing_or_old(tmp_path: Path) -> None:
    make_certificates(tmp_path, BANKS[:2])
    make_certificates(tmp_path / "forger", [])
    ours, peer = (Identity(bank_files(tmp_path, bank), bank) for bank in BANKS[:2])

    def check(crl: bytes, now: dt.datetime = NOW) -> None:
        ours.verify(BANKS[1], peer.certificate_pem, b"message", peer.sign(b"message"), now, crl)

    check((tmp_path / "crl.pem").read_bytes())
    with pytest.raises(ProtocolViolation, match="not signed by the bank"):
        ours.verify(
            BANKS[1], peer.certificate_pem, b"other", peer.sign(b"message"), NOW, (tmp_path / "crl.pem").read_bytes()
        )
    with pytest.raises(ProtocolViolation, match="not signed by the consortium's CA"):
        check((tmp_path / "forger" / "crl.pem").read_bytes())
    with pytest.raises(ProtocolViolation, match="relays no revocation list"):
        check(b"")
    with pytest.raises(ProtocolViolation, match="has run out"):
        check((tmp_path / "crl.pem").read_bytes(), NOW + dt.timedelta(days=91))
    revoke(tmp_path, BANKS[1], "gone")
    with pytest.raises(ProtocolViolation, match=f"bank {BANKS[1]}: the certificate is revoked"):
        check((tmp_path / "crl.pem").read_bytes())


def test_the_node_does_not_start_without_a_list_of_its_ca_and_keeps_the_last_good_one(tmp_path: Path) -> None:
    from aggregator.rpc.access import RevocationList

    make_certificates(tmp_path, BANKS[:1])
    make_certificates(tmp_path / "forger", [])
    held = RevocationList(tmp_path / "crl.pem", tmp_path / "ca.pem")
    revoke(tmp_path, BANKS[0], "gone")
    assert held.read() and held.serials == {c.serial for c in issued_certificates(tmp_path) if c.revoked}
    shutil.copy(tmp_path / "forger" / "crl.pem", tmp_path / "crl.pem")
    with pytest.raises(ConfigError, match="not signed by the consortium's CA"):
        held.read()
    assert held.serials
    (tmp_path / "crl.pem").unlink()
    with pytest.raises(ConfigError, match=r"crl\.pem can't be read.*aggregator ca crl"):
        RevocationList(tmp_path / "crl.pem", tmp_path / "ca.pem")


# -- enrolment, by the commands ------------------------------------------------------------------------------


def _run(*arguments: object, ok: bool = True) -> str:
    done = subprocess.run([sys.executable, "-m", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == ok, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def test_enrolment_renewal_and_revocation_by_the_commands(tmp_path: Path) -> None:
    ca, home = tmp_path / "ca", tmp_path / "north"
    home.mkdir()
    secret = tmp_path / "passphrase"
    secret.write_text("correct horse\n")
    secret.chmod(0o600)
    _run("aggregator", "ca", "init", ca, "--passphrase-file", secret)
    assert b"ENCRYPTED" in (ca / "ca.key").read_bytes()
    shutil.copy(ca / "ca.pem", home)
    config = home / "bank.yaml"
    config.write_text(
        "bank_id: north_bank\nevents: events\nwork_dir: work\n"
        "aggregator: {ca: ca.pem, certificate: bank.pem, key: bank.key, key_passphrase_file: ../passphrase}\n"
    )
    request = home / "north.csr"
    shown = _run(
        "bank_node", "enroll", "--key", home / "bank.key", "--bank", "north_bank", "--out", request,
        "--passphrase-file", secret,
    )  # fmt: skip
    assert b"ENCRYPTED" in (home / "bank.key").read_bytes()
    fingerprint = shown.split("fingerprint")[1].strip()
    assert fingerprint == request_fingerprint(request.read_bytes())

    approve = ("aggregator", "ca", "approve", ca, request, "--bank", "north_bank", "--out", home / "new.pem")
    wrong = _run(*approve, "--fingerprint", "0000 " * 8, "--passphrase-file", secret, ok=False)
    assert "does not match" in wrong and not (home / "new.pem").exists()
    assert "is encrypted" in _run(*approve, "--fingerprint", fingerprint, ok=False)
    _run(*approve, "--fingerprint", fingerprint, "--passphrase-file", secret)
    _run("bank_node", "accept", home / "new.pem", "--config", config)
    assert (home / "bank.pem").read_bytes() == (home / "new.pem").read_bytes()

    renewal = home / "renewal.json"
    _run("bank_node", "renew", "--config", config, "--key", home / "next.key", "--out", renewal)
    renew = ("aggregator", "ca", "renew", ca, renewal, "--out", home / "next.pem", "--passphrase-file", secret)
    _run(*renew)
    document = json.loads(renewal.read_text())
    (home / "bad.json").write_text(json.dumps(document | {"signature": "AAAA"}))
    assert "not signed by" in _run(
        "aggregator", "ca", "renew", ca, home / "bad.json", "--passphrase-file", secret, ok=False
    )
    _run("aggregator", "ca", "revoke", ca, "north_bank", "--reason", "test", "--passphrase-file", secret)
    assert "is revoked" in _run(*renew, ok=False)
    listed = issued_certificates(ca)
    assert [bool(c.revoked) for c in listed if c.identity == "north_bank"] == [True, True]
    assert "no certificate in force" in _run(
        "aggregator", "ca", "revoke", ca, "north_bank", "--reason", "x", "--passphrase-file", secret, ok=False
    )


def test_the_ca_s_commands_replace_nothing_silently(tmp_path: Path) -> None:
    ca = tmp_path / "ca"
    _run("aggregator", "ca", "init", ca, "--host", "node.example.org")
    before = {path.name: path.read_bytes() for path in ca.iterdir()}
    told = _run("aggregator", "ca", "init", ca, ok=False)
    assert "nothing was changed" in told and "aggregator ca node" in told
    assert {path.name: path.read_bytes() for path in ca.iterdir()} == before
    assert "node.example.org" in _run("aggregator", "ca", "node", ca)
    assert (ca / "aggregator.pem").read_bytes() != before["aggregator.pem"]
    assert "before for node.example.org" in _run("aggregator", "ca", "node", ca, "--host", "other.example.org")
    (ca / "aggregator.pem").unlink()
    assert "--host" in _run("aggregator", "ca", "node", ca, ok=False)
    _run("aggregator", "ca", "operator", ca)
    operator = (ca / "operator.pem").read_bytes()
    assert "nothing was changed" in _run("aggregator", "ca", "operator", ca, ok=False)
    assert (ca / "operator.pem").read_bytes() == operator
    _run("aggregator", "ca", "operator", ca, "--again")
    assert (ca / "operator.pem").read_bytes() != operator


def test_a_request_is_signed_for_the_id_that_it_asks_for_only(tmp_path: Path) -> None:
    create_ca(tmp_path)
    request = tmp_path / "north.csr"
    request.write_bytes(make_request(tmp_path / "north.key", "north_bank"))
    spoken = request_fingerprint(request.read_bytes())
    approve = ("aggregator", "ca", "approve", tmp_path, request, "--fingerprint", spoken, "--out", tmp_path / "n.pem")
    assert "asks for the id north_bank, not south_bank" in _run(*approve, "--bank", "south_bank", ok=False)
    assert not (tmp_path / "n.pem").exists()
    _run(*approve, "--bank", "north_bank")


def test_accept_says_that_the_ca_s_certificate_is_missing(tmp_path: Path) -> None:
    from bank_node.transport.identity import install_certificate

    create_ca(tmp_path / "ca")
    pem = sign_request(tmp_path / "ca", make_request(tmp_path / "a.key", "a"), "a", "bank")
    files = TlsFiles(ca=tmp_path / "ca.pem", certificate=tmp_path / "a.pem", key=tmp_path / "a.key")
    with pytest.raises(ConfigError, match=r"ca\.pem can't be read: No such file.*put the operator's ca\.pem there"):
        install_certificate(pem, files, "a")
    (tmp_path / "ca.pem").write_bytes((tmp_path / "ca" / "ca.pem").read_bytes())
    install_certificate(pem, files, "a")


def test_the_node_takes_a_new_certificate_without_a_restart(tmp_path: Path) -> None:
    from aggregator.pki.ca import issue_server_certificate

    certificates = tmp_path / "certificates"
    make_certificates(certificates, BANKS[:1])
    node = AggregatorProcess(tmp_path / "node", certificates)
    node.start()
    try:

        def shown() -> int:
            host, _, port = node.address.rpartition(":")
            context = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
            files = bank_files(certificates, BANKS[0])
            context.load_cert_chain(files.certificate, files.key)
            with (
                socket.create_connection((host, int(port))) as raw,
                context.wrap_socket(raw, server_hostname=host) as made,
            ):
                found = made.getpeercert()
                assert found is not None
                return int(str(found["serialNumber"]), 16)

        first = shown()
        old = (certificates / "aggregator.pem").read_bytes()
        # What does not belong together is not taken up; the node goes on.
        make_certificates(tmp_path / "forger", [])
        shutil.copy(tmp_path / "forger" / "aggregator.pem", certificates / "aggregator.pem")
        assert shown() == first
        (certificates / "aggregator.pem").write_bytes(old)
        issue_server_certificate(certificates, ("localhost", "127.0.0.1"))
        second = shown()
        assert second != first
        log = _audit(tmp_path / "node" / "aggregator.db")
        told = [r.detail for r in log.records() if r.kind == AuditKind.NODE_CERTIFICATE]
        assert f"serial {second:x}" in told[-1] and any(text.startswith("not taken up") for text in told)
    finally:
        node.stop()


@pytest.mark.parametrize(
    ("hosts", "shift_hours", "days", "told"),
    [
        (("node.example.org",), 0, 397, "not for this host name"),
        (("127.0.0.1",), 2, 397, "not valid yet by this machine's clock"),
        (("127.0.0.1",), 0, -1, "has run out by this machine's clock"),
    ],
)
def test_a_caller_is_told_what_is_wrong_with_the_node_s_certificate(
    node: Node, tmp_path: Path, hosts: tuple[str, ...], shift_hours: int, days: int, told: str
) -> None:
    import types

    from aggregator.pki import ca as pki

    request = make_key_and_request(node.certificates / "aggregator.key", "aggregator", "aggregator")
    shift = dt.timedelta(hours=shift_hours)

    class Later(dt.datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> dt.datetime:  # type: ignore[override]
            return dt.datetime.now(tz) + shift

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pki, "dt", types.SimpleNamespace(datetime=Later, timedelta=dt.timedelta, UTC=dt.UTC))
        pem = sign_request(node.certificates, request, "aggregator", "aggregator", hosts, days=days)
    (node.certificates / "aggregator.pem").write_bytes(pem)
    client = node.client(BANKS[0], 0.3)
    with pytest.raises(AggregatorUnreachable, match=told):
        client.runs()
    client.close()
    trusting = TlsFiles(
        ca=tmp_path / "other" / "ca.pem",
        certificate=node.certificates / f"{BANKS[0]}.pem",
        key=node.certificates / f"{BANKS[0]}.key",
    )
    make_certificates(tmp_path / "other", [])
    client = _client(node.address, trusting, BANKS[0])
    with pytest.raises(AggregatorUnreachable, match="CA"):
        client.runs()
    client.close()


def test_a_caller_whose_own_certificate_is_not_taken_is_told_so(node: Node, tmp_path: Path) -> None:
    key, pem = tmp_path / "late.key", tmp_path / "late.pem"
    pem.write_bytes(sign_request(node.certificates, make_request(key, BANKS[0]), BANKS[0], "bank", days=-1))
    client = _client(node.address, TlsFiles(ca=node.certificates / "ca.pem", certificate=pem, key=key), BANKS[0])
    with pytest.raises(AggregatorUnreachable, match="does not take our certificate"):
        client.runs()
    client.close()


def test_a_certificate_for_another_key_or_bank_is_not_installed(tmp_path: Path) -> None:
    from bank_node.transport.identity import install_certificate

    create_ca(tmp_path)
    make_certificates(tmp_path / "other", ["x"])
    request = make_request(tmp_path / "a.key", "a")
    files = TlsFiles(ca=tmp_path / "ca.pem", certificate=tmp_path / "a.pem", key=tmp_path / "a.key")
    foreign = make_key_and_request(tmp_path / "b.key", "a", "bank")
    for pem, message in (
        (sign_request(tmp_path, foreign, "a", "bank"), "for another key"),
        (sign_request(tmp_path, request, "b", "bank"), "is not bank a's"),
        ((tmp_path / "other" / "x.pem").read_bytes(), "not one of the CA"),
        (b"junk", "not one of the CA"),
    ):
        with pytest.raises(ConfigError, match=message):
            install_certificate(pem, files, "a")
    assert not files.certificate.exists()
    install_certificate(sign_request(tmp_path, request, "a", "bank"), files, "a")


def test_a_key_that_others_can_read_or_whose_passphrase_is_wrong_is_refused(tmp_path: Path) -> None:
    make_certificates(tmp_path, ["a"])
    key = tmp_path / "a.key"
    key.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        Identity(bank_files(tmp_path, "a"), "a")
    secret = tmp_path / "secret"
    secret.write_text("one")
    secret.chmod(0o600)
    make_request(tmp_path / "locked.key", "a", secret)
    secret.write_text("two")
    with pytest.raises(ConfigError, match="passphrase is wrong"):
        make_request(tmp_path / "locked.key", "a", secret)
    secret.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        make_request(tmp_path / "locked.key", "a", secret)


def test_a_certificate_that_runs_out_soon_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_certificates(tmp_path, ["a"])
    Identity(bank_files(tmp_path, "a"), "a")
    assert not caplog.records
    (tmp_path / "a.pem").write_bytes(sign_request(tmp_path, make_request(tmp_path / "a.key", "a"), "a", "bank", days=9))
    Identity(bank_files(tmp_path, "a"), "a")
    assert "runs out in 8 days" in caplog.text


# -- the audit log itself -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        ("UPDATE audit SET detail = 'nothing' WHERE seq = 1", "record 1 was changed"),
        ("DELETE FROM audit WHERE seq = 1", "record 1 is missing"),
        ("UPDATE audit SET seq = seq - 1 WHERE seq > 1", "record 1"),
    ],
)
def test_a_changed_or_removed_record_is_found(tmp_path: Path, change: str, finding: str) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'a.db'}")
    log = AuditLog(engine)
    for number in range(4):
        log.record(AuditKind.ACTION_REFUSED, identity=f"bank_{number}", detail="x")
    assert log.verify() == (4, "")
    with engine.begin() as connection:
        if "seq - 1" in change:
            connection.execute(text("DELETE FROM audit WHERE seq = 1"))
        connection.execute(text(change))
    whole, wrong = log.verify()
    assert whole == 1 and finding in wrong


def test_a_flood_is_counted_not_kept(tmp_path: Path) -> None:
    time_now = [60.0]
    log = AuditLog(create_engine(f"sqlite:///{tmp_path / 'a.db'}"), now=lambda: time_now[0])
    for _ in range(1000):
        log.record(AuditKind.ACTION_REFUSED, peer="ipv4:10.0.0.1:1234", detail="x")
    log.record(AuditKind.ACTION_REFUSED, peer="ipv4:10.0.0.2:1234", detail="another peer")
    assert len(log.records()) == 31
    time_now[0] = 120.0
    log.record(AuditKind.ACTION_REFUSED, peer="ipv4:10.0.0.1:1234", detail="x")
    assert log.records()[-1].suppressed == 970
    assert log.verify() == (32, "")


def test_the_words_of_grpc_s_log_are_understood() -> None:
    line = "I1 x.cc:1] Handshake failed with error SSL_ERROR_SSL: error:1:SSL::PEER_DID_NOT_RETURN_A_CERTIFICATE: x"
    assert (handshake_failure(line) or "").startswith("no client certificate (")
    assert handshake_failure("I1 anything else") is None
    assert handshake_failure("Handshake failed with error SOMETHING_NEW") == "SOMETHING_NEW"


def test_an_old_list_can_be_signed_anew(tmp_path: Path) -> None:
    make_certificates(tmp_path, ["a"])
    before = (tmp_path / "crl.pem").read_bytes()
    write_crl(tmp_path, days=5)
    assert (tmp_path / "crl.pem").read_bytes() != before
