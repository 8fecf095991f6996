"""Every byte a bank sends in a whole run, caught at the server before it is decoded, and looked at.

Each message must be of a declared kind; every ciphertext must parse as one and look like noise; no message may hold
a row's bytes, a plaintext vector, a secret key or the model.
"""

import hashlib
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import pytest
import tenseal as ts

from aggregator.aggregation.ciphertext_sum import PublicContext
from bank_node.boosting import BoostingParameters
from bank_node.secure_aggregation.keys import make_he_key, public_part
from protocol import crossbank_pb2 as pb
from protocol.errors import ProtocolViolation
from simulator.harness import training
from simulator.harness.tables import SimulatedTable
from tests.simulation.tables import small_table


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bytes]]:
    """(method, bytes) of every message any client sends to a server of this process."""
    caught: list[tuple[str, bytes]] = []

    class Tap(grpc.ServerInterceptor):
        def intercept_service(self, continuation: Any, details: Any) -> Any:
            handler = continuation(details)
            method, decode = details.method.rpartition("/")[2], handler.request_deserializer

            def tapped(body: bytes) -> Any:
                caught.append((method, body))
                return decode(body)

            return handler._replace(request_deserializer=tapped)

    server = grpc.server
    monkeypatch.setattr(
        grpc, "server", lambda *a, **k: server(*a, **(k | {"interceptors": [Tap(), *k["interceptors"]]}))
    )
    return caught


def test_only_ciphertexts_keys_signatures_and_declared_metadata_leave(
    sent: list[tuple[str, bytes]], tmp_path: Path
) -> None:
    table: SimulatedTable = small_table(banks=3, rows=900, features=4)
    params = BoostingParameters.from_mapping({"n_estimators": 2, "max_depth": 3, "max_bin": 16})
    report = training.train_consortium(table, params, tmp_path, mode="threads", compare=False)

    methods = Counter(method for method, _ in sent)
    assert set(methods) == {
        "OpenRun",
        "GetRun",
        "Join",
        "AnnounceKey",
        "GetKeys",
        "PublishBundle",
        "SumAtOnce",
        "Report",
        "GetReports",
    }
    bundles = [pb.KeyBundle.FromString(body) for method, body in sent if method == "PublishBundle"]
    context = PublicContext(bundles[0].public_context)
    assert not ts.context_from(bundles[0].public_context).has_secret_key()

    ciphertexts = [
        chunk.ciphertext
        for method, body in sent
        if method == "SumAtOnce"
        for chunk in pb.WholeUpload.FromString(body).batch.chunks
    ]
    assert sum(map(len, ciphertexts)) == sum(report["bytes_sent_per_bank"].values()) > 0
    assert len({hashlib.sha256(body).digest() for body in ciphertexts}) == len(ciphertexts)
    for body in ciphertexts:
        context.parse(body)
        # The last 36 kB of a fresh ciphertext are incompressible noise.
        assert len(zlib.compress(body[-36_000:], 9)) > 35_500

    # What is not a ciphertext is small, and of a kind whose every field is declared metadata.
    for method, body in sent:
        size = len(body)
        if method == "SumAtOnce":
            size = len(pb.WholeUpload.FromString(body).header.SerializeToString())
        most = {"PublishBundle": 160_000, "AnnounceKey": 4_000}.get(method, 3_000)
        assert size < most, (method, size)

    everything = b"".join(body for _, body in sent)
    model = (tmp_path / "model.json").read_bytes()
    for rows in table.train.values():
        for row in rows.columns[:200]:
            assert row.tobytes() not in everything
    for start in range(0, len(model) - 64, 997):
        assert model[start : start + 64] not in everything


def test_the_tap_would_catch_a_leak(sent: list[tuple[str, bytes]], tmp_path: Path, monkeypatch: Any) -> None:
    """The same test must fail when a bank sends a row in a free-text field."""
    from bank_node.secure_aggregation.session import RunSession

    table = small_table(banks=2, rows=300, features=3)
    row = next(iter(table.train.values())).columns[0]
    original = RunSession.report

    def leaking(self: RunSession, *arguments: Any, **named: Any) -> None:
        original(self, *arguments, **(named | {"detail": row.tobytes().hex()}))

    monkeypatch.setattr(RunSession, "report", leaking)
    params = BoostingParameters.from_mapping({"n_estimators": 1, "max_depth": 2, "max_bin": 8})
    training.train_consortium(table, params, tmp_path, mode="threads", compare=False)
    assert row.tobytes().hex().encode() in b"".join(body for _, body in sent)


def test_the_aggregator_refuses_a_context_with_a_secret_key_or_other_parameters() -> None:
    secret = make_he_key()
    PublicContext(public_part(secret))
    with pytest.raises(ProtocolViolation, match="holds a secret key"):
        PublicContext(secret.reveal())
    other = ts.context(ts.SCHEME_TYPE.BFV, 4096, plain_modulus=1032193, encryption_type=ts.ENCRYPTION_TYPE.SYMMETRIC)
    with pytest.raises(ProtocolViolation, match="parameters are not the protocol's"):
        PublicContext(
            other.serialize(save_secret_key=False, save_public_key=False, save_galois_keys=False, save_relin_keys=False)
        )
    for junk in (b"", b"x" * 91, bytes(91)):
        with pytest.raises(ProtocolViolation):
            PublicContext(junk)


def test_a_ciphertext_of_other_parameters_is_refused() -> None:
    context = PublicContext(public_part(make_he_key()))
    other = ts.context(ts.SCHEME_TYPE.BFV, 8192, plain_modulus=1032193, encryption_type=ts.ENCRYPTION_TYPE.SYMMETRIC)
    body = ts.bfv_vector(other, [1] * 4096).serialize()
    with pytest.raises(ProtocolViolation, match="not a ciphertext of the run's parameters"):
        context.parse(body)
