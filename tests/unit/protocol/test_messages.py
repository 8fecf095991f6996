"""Messages, their caps, the codec, the state machine."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import codec
from protocol import crossbank_pb2 as pb
from protocol.errors import ProtocolViolation
from protocol.limits import MAX_BANKS, MAX_CHUNKS_PER_STEP, MAX_CIPHERTEXT_BYTES, MIN_CIPHERTEXT_BYTES
from protocol.messages import (
    Chunk,
    JoinRequest,
    KeyAnnouncement,
    KeyBundle,
    PhaseReport,
    RunEvent,
    RunSettings,
    RunView,
    SealedKey,
    StepHeader,
)
from protocol.run_state import TERMINAL, TRANSITIONS, Phase, RunEventKind, next_phase

HEX = "0a" * 32
SETTINGS = RunSettings(
    title="t", roster=("a", "b"), contract_fingerprint=HEX, parameters_json="{}", rounds=3, minimum_roster=2
)
VIEW = RunView(
    run_id="r",
    phase="TRAINING",
    settings=SETTINGS,
    joined=("a",),
    reported=(),
    step="train/0/0",
    rounds_done=1,
    bytes_received=5,
    reason="",
    model_sha256="",
    metrics_json="",
    created_at=1.5,
    updated_at=2.5,
    events=(RunEvent(seq=0, at=1.5, bank="a", text="joined"),),
    members=("a",),
    attempt=1,
    waiting_for=("b",),
    paused_since=3.5,
)
HEADER = {
    "run_id": "r",
    "bank": "a",
    "step": "train/0/1",
    "attempt": 0,
    "chunks": 1,
    "length": 4,
    "he_fingerprint": HEX,
    "roster_digest": bytes(32),
    "state": bytes(32),
}
SEALED = (SealedKey(recipient="b", box=b"box"),)


@pytest.mark.parametrize(
    ("value", "encode", "decode"),
    [
        (SETTINGS, codec.settings_to_pb, codec.settings_from_pb),
        (VIEW, codec.view_to_pb, codec.view_from_pb),
        (
            JoinRequest(run_id="r", bank="a", contract_fingerprint=HEX, he_fingerprint=HEX),
            codec.join_to_pb,
            codec.join_from_pb,
        ),
        (
            KeyAnnouncement(
                run_id="r",
                bank="a",
                x25519_public=bytes(32),
                ed25519_public=bytes(32),
                certificate_pem=b"c",
                signature=b"s",
            ),
            codec.announcement_to_pb,
            codec.announcement_from_pb,
        ),
        (
            KeyBundle(run_id="r", bank="a", public_context=b"p", sealed_context=b"q", sealed=SEALED, signature=b"s"),
            codec.bundle_to_pb,
            codec.bundle_from_pb,
        ),
        (StepHeader(**HEADER), codec.header_to_pb, codec.header_from_pb),
        (Chunk(index=3, ciphertext=bytes(MIN_CIPHERTEXT_BYTES)), codec.chunk_to_pb, codec.chunk_from_pb),
        (
            PhaseReport(
                run_id="r",
                bank="a",
                phase="VOTING",
                digest=HEX,
                accept=False,
                detail="no",
                attempt=2,
                roster_digest=bytes(32),
                state=bytes(32),
                signature=bytes(64),
            ),
            codec.report_to_pb,
            codec.report_from_pb,
        ),
    ],
    ids=lambda v: type(v).__name__ if not callable(v) else "",
)
def test_the_codec_inverts_itself(value, encode, decode) -> None:
    encoded = encode(value)
    assert decode(type(encoded).FromString(encoded.SerializeToString())) == value


@pytest.mark.parametrize(
    "change",
    [
        {"step": "../etc"},
        {"step": "Train/0"},
        {"step": "a/" * 40},
        {"chunks": 0},
        {"chunks": MAX_CHUNKS_PER_STEP + 1},
        {"length": 0},
        {"attempt": -1},
        {"bank": "a/b"},
        {"bank": ""},
        {"run_id": "x" * 65},
        {"he_fingerprint": "zz"},
        {"attempt": 1000},
        {"roster_digest": b"short"},
        {"state": bytes(33)},
        {"signature": bytes(65)},
    ],
)
def test_a_header_out_of_bounds_is_refused(change) -> None:
    with pytest.raises(ProtocolViolation):
        StepHeader(**(HEADER | change))


@pytest.mark.parametrize("size", [0, 10, MIN_CIPHERTEXT_BYTES - 1, MAX_CIPHERTEXT_BYTES + 1])
def test_a_ciphertext_of_a_wrong_size_is_refused(size: int) -> None:
    with pytest.raises(ProtocolViolation, match="ciphertext"):
        Chunk(index=0, ciphertext=bytes(size))


@pytest.mark.parametrize("roster", [(), ("a", "a"), tuple(f"b{i}" for i in range(MAX_BANKS + 1)), ("a b",)])
def test_a_bad_roster_is_refused(roster) -> None:
    with pytest.raises(ProtocolViolation):
        RunSettings(title="t", roster=roster, contract_fingerprint=HEX, parameters_json="{}", rounds=1)


@pytest.mark.parametrize(("banks", "minimum"), [(2, 3), (3, 1), (3, 0), (3, 4), (1, 2)])
def test_a_minimum_roster_that_protects_nobody_is_refused(banks: int, minimum: int) -> None:
    with pytest.raises(ProtocolViolation):
        RunSettings(
            title="t",
            roster=tuple(f"b{i}" for i in range(banks)),
            contract_fingerprint=HEX,
            parameters_json="{}",
            rounds=1,
            minimum_roster=minimum,
        )


@given(st.binary(max_size=300))
def test_random_bytes_never_make_a_valid_header_or_an_unexpected_error(data: bytes) -> None:
    try:
        message = pb.StepHeader.FromString(data)
    except Exception as error:
        assert type(error).__name__ == "DecodeError"
        return
    with pytest.raises(ProtocolViolation):
        codec.header_from_pb(message)


def test_no_message_has_a_place_for_a_secret() -> None:
    fields = {f.name for m in pb.DESCRIPTOR.message_types_by_name.values() for f in m.fields}
    assert not {name for name in fields if "secret" in name or "private" in name or name in ("rows", "vector", "model")}


def test_absent_moves_are_errors_and_terminal_states_end() -> None:
    for phase in Phase:
        for event in RunEventKind:
            if (phase, event) in TRANSITIONS:
                assert phase not in TERMINAL
                assert next_phase(phase, event) is TRANSITIONS[phase, event]
            else:
                with pytest.raises(ProtocolViolation, match="can't take"):
                    next_phase(phase, event)


def test_the_straight_way_visits_every_state_in_order() -> None:
    way = [Phase.DRAFT]
    for event in [RunEventKind.OPENED, RunEventKind.ROSTER_COMPLETE, *[RunEventKind.PHASE_AGREED] * 5]:
        way.append(next_phase(way[-1], event))
    assert way == [p for p in Phase if p is not Phase.ABORTED]
    assert all(TRANSITIONS[p, RunEventKind.ABORT] is Phase.ABORTED for p in Phase if p not in TERMINAL)
