"""Mutated messages at the codec and at a served aggregator: refused or harmless, never a crash, a hang or a change."""

import random
import resource
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.message import DecodeError, Message

import aggregator.rpc.access as access
from protocol import codec
from protocol import crossbank_pb2 as pb
from protocol.channel import open_channel
from protocol.errors import ProtocolViolation
from protocol.limits import MAX_CALL_SECONDS, MIN_CIPHERTEXT_BYTES
from protocol.masks import roster_digest
from simulator.harness.processes import bank_files
from tests.conftest import BANKS, FINGERPRINT, Node

HEX = "0a" * 32


def _valid(run_id: str) -> list[tuple[str, Message, Callable[[Any], Any]]]:
    """A valid message for each decoder, with the method that takes it ("" for those that only come back)."""
    header = pb.StepHeader(
        run_id=run_id, bank=BANKS[0], step="bins/0/0", attempt=0, chunks=2, length=5000, he_fingerprint=FINGERPRINT,
        roster_digest=roster_digest(BANKS), state=bytes(32), signature=bytes(64),
    )  # fmt: skip
    report = pb.PhaseReport(
        run_id=run_id, bank=BANKS[0], phase="BINNING", digest=HEX, accept=True, attempt=0,
        roster_digest=roster_digest(BANKS), state=bytes(32), signature=bytes(64),
    )  # fmt: skip
    settings = pb.RunSettings(
        title="t", roster=BANKS, contract_fingerprint=HEX, parameters_json='{"params": {"n_estimators": 3}}', rounds=3,
        enrol_seconds=5,
        step_seconds=5, minimum_roster=3, pause_seconds=5,
    )  # fmt: skip
    announcement = pb.KeyAnnouncement(
        run_id=run_id, bank=BANKS[0], x25519_public=bytes(32), ed25519_public=bytes(32), certificate_pem=b"c",
        signature=b"s",
    )  # fmt: skip
    bundle = pb.KeyBundle(
        run_id=run_id, bank=BANKS[0], public_context=b"p" * 99, sealed_context=b"q", signature=b"s",
        sealed=[pb.SealedKey(recipient=BANKS[1], box=b"b")],
    )  # fmt: skip
    join = pb.JoinRequest(run_id=run_id, bank=BANKS[0], contract_fingerprint=HEX, he_fingerprint=HEX)
    view = pb.RunView(run_id=run_id, phase="TRAINING", settings=settings, members=BANKS[:2], attempt=1)
    head = pb.SumHead(attempt=1, statements=[pb.Statement(bank="a", state=bytes(32), signature=bytes(64))])
    batch = pb.ChunkBatch(chunks=[pb.Chunk(index=1, ciphertext=bytes(MIN_CIPHERTEXT_BYTES))])
    return [
        ("OpenRun", settings, codec.settings_from_pb),
        ("Join", join, codec.join_from_pb),
        ("AnnounceKey", announcement, codec.announcement_from_pb),
        ("PublishBundle", bundle, codec.bundle_from_pb),
        ("Report", report, codec.report_from_pb),
        ("AwaitSum", header, codec.header_from_pb),
        ("", view, codec.view_from_pb),
        ("", head, codec.head_from_pb),
        ("", batch, codec.batch_from_pb),
        ("GetRun", pb.RunRef(run_id=run_id, bank=BANKS[0]), lambda message: None),
        ("GetKeys", pb.RunRef(run_id=run_id, bank=BANKS[0]), lambda message: None),
        ("GetReports", pb.ReportsRef(run_id=run_id, bank=BANKS[0], phase="KEYING"), lambda message: None),
        ("ListRuns", pb.ListRunsRequest(most=3), lambda message: None),
    ]


def _mutations(message: Message, chance: random.Random) -> Iterator[bytes]:
    """Endless mutations of a valid message's bytes: flips, cuts, repeats, inflated lengths, huge numbers, noise."""
    body = message.SerializeToString()
    while True:
        data = bytearray(body)
        for _ in range(chance.choice([1, 1, 2, 5])):
            place = chance.randrange(len(data) + 1)
            kind = chance.randrange(8)
            if kind == 0 and data:
                data[min(place, len(data) - 1)] ^= 1 << chance.randrange(8)
            elif kind == 1:
                del data[place:]
            elif kind == 2:
                data[place:place] = data[place : place + chance.randrange(1, 60)]
            elif kind == 3:
                data[place:place] = b"\xff" * chance.randrange(1, 12) + b"\x7f"
            elif kind == 4:
                data[place:place] = chance.randbytes(chance.randrange(1, 40))
            elif kind == 5 and data:
                data[min(place, len(data) - 1)] = chance.choice([0, 1, 0x7F, 0x80, 0xFF])
            elif kind == 6:
                data += bytes([8 * chance.randrange(1, 20) + chance.randrange(6)]) + chance.randbytes(3)
            else:
                del data[place : place + chance.randrange(1, 9)]
        yield bytes(data)


def _fuzz_the_codec(count: int, seed: int) -> Counter[str]:
    chance, seen = random.Random(seed), Counter[str]()
    kinds = [(message, decode, _mutations(message, chance)) for _, message, decode in _valid("run-1")]
    for number in range(count):
        message, decode, mutations = kinds[number % len(kinds)]
        try:
            parsed = type(message).FromString(next(mutations))
        except DecodeError:
            seen["not protobuf"] += 1
            continue
        try:
            value = decode(parsed)
        except ProtocolViolation:
            seen["refused"] += 1
            continue
        seen["valid"] += 1
        if isinstance(value, list):
            value = value[0]
        if value is not None and hasattr(codec, _encoder(decode)) and not isinstance(value, list):
            again = getattr(codec, _encoder(decode))(value)
            assert decode(type(again).FromString(again.SerializeToString())) == value
    return seen


def _encoder(decode: Callable[[Any], Any]) -> str:
    name = getattr(decode, "__name__", "")
    return name.replace("_from_pb", "_to_pb") if name.endswith("_from_pb") else "none"


def test_mutated_messages_at_the_codec() -> None:
    seen = _fuzz_the_codec(4_000, seed=1)
    assert min(seen["not protobuf"], seen["refused"], seen["valid"]) > 100, seen


@pytest.mark.slow
def test_seventy_thousand_mutated_messages_at_the_codec() -> None:
    assert sum(_fuzz_the_codec(70_000, seed=2).values()) == 70_000


def _fuzz_the_server(node: Node, monkeypatch: pytest.MonkeyPatch, count: int, seed: int) -> Counter[str]:
    monkeypatch.setattr(access, "CALLS_PER_SECOND", 10**9)
    monkeypatch.setattr(access, "CALL_BURST", 10**9)
    run_id = node.open()
    coordinator = node.server.coordinator
    sessions = [node.session(bank, run_id) for bank in BANKS]
    for session in sessions:
        session.join(FINGERPRINT)
    before = coordinator.run(run_id)
    chance, seen = random.Random(seed), Counter[str]()
    kinds = [(m, message, _mutations(message, chance)) for m, message, _ in _valid(run_id) if m]
    upload = pb.SumUpload(header=_valid(run_id)[5][1])
    kinds.append(("SecureSum", upload, _mutations(upload, chance)))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with open_channel(node.address, bank_files(node.certificates, BANKS[0])) as channel:
        for number in range(count):
            method, _, mutations = kinds[number % len(kinds)]
            path, body = f"/crossbank.v1.Consortium/{method}", next(mutations)
            try:
                if method == "SecureSum":
                    list(channel.stream_stream(path)(iter([body, next(mutations)]), timeout=60))
                elif method == "AwaitSum":
                    list(channel.unary_stream(path)(body, timeout=60))
                else:
                    channel.unary_unary(path)(body, timeout=60)
                seen["answered"] += 1
            except grpc.RpcError as error:
                code, text = error.code(), str(error.details())
                seen[code.name] += 1
                bad = (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)
                assert code not in bad, (method, text, body.hex())
    after = coordinator.run(run_id)
    assert (after.phase, after.joined, after.reported, after.members, after.step, after.attempt) == (
        before.phase,
        before.joined,
        before.reported,
        before.members,
        before.step,
        before.attempt,
    )
    assert len(coordinator.runs()) == 1 and not coordinator._runs[run_id].steps
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 300_000  # kB
    assert node.server.audit.verify()[1] == ""
    assert node.client(BANKS[1]).run(run_id).phase == before.phase
    return seen


def test_mutated_messages_at_a_served_aggregator(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = _fuzz_the_server(node, monkeypatch, 1_500, seed=3)
    assert seen["answered"] and seen["FAILED_PRECONDITION"] and seen["INVALID_ARGUMENT"], seen


@pytest.mark.slow
def test_thirty_thousand_mutated_messages_at_a_served_aggregator(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sum(_fuzz_the_server(node, monkeypatch, 30_000, seed=4).values()) == 30_000


# -- caps ---------------------------------------------------------------------------------------------------------


def _list_runs(node: Node, channel: grpc.Channel, timeout: float | None) -> Any:
    return channel.unary_unary("/crossbank.v1.Consortium/ListRuns")(b"", timeout=timeout)


@pytest.mark.parametrize("timeout", [None, MAX_CALL_SECONDS + 60.0])
def test_a_call_without_a_deadline_or_with_too_long_a_one_is_refused(node: Node, timeout: float | None) -> None:
    with open_channel(node.address, bank_files(node.certificates, BANKS[0])) as channel:
        with pytest.raises(grpc.RpcError, match="needs a deadline"):
            _list_runs(node, channel, timeout)
        _list_runs(node, channel, 60)


def test_a_certificate_that_calls_too_often_is_put_off_and_others_are_not(node: Node) -> None:
    clock = [0.0]
    node.server.access._clock = lambda: clock[0]
    with (
        open_channel(node.address, bank_files(node.certificates, BANKS[0])) as greedy,
        open_channel(node.address, bank_files(node.certificates, BANKS[1])) as other,
    ):
        for _ in range(access.CALL_BURST):
            _list_runs(node, greedy, 60)
        with pytest.raises(grpc.RpcError, match="calls a second") as caught:
            _list_runs(node, greedy, 60)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        _list_runs(node, other, 60)
        clock[0] += 1.0
        _list_runs(node, greedy, 60)


def test_a_certificate_may_have_only_so_many_calls_under_way(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "MAX_CALLS_PER_IDENTITY", 0)
    with open_channel(node.address, bank_files(node.certificates, BANKS[0])) as channel:
        with pytest.raises(grpc.RpcError, match="calls at once") as caught:
            _list_runs(node, channel, 60)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        monkeypatch.setattr(access, "MAX_CALLS_PER_IDENTITY", 1)
        for _ in range(20):  # each call ended frees its place
            _list_runs(node, channel, 60)
