"""Secure sums over real gRPC, mutual TLS and TenSEAL: exactness, repeats, refusals, deadlines."""

import numpy as np
import pytest

from protocol.errors import AggregatorUnreachable, LocalError, RemoteError, RunAborted, SubmissionRefused
from protocol.he_parameters import HE_FINGERPRINT
from protocol.masks import roster_digest
from protocol.messages import Chunk, JoinRequest, StepHeader
from protocol.run_state import Phase
from tests.conftest import BANKS, FINGERPRINT, Node, in_parallel


def _enter(node: Node, bank: str, run_id: str):
    session = node.session(bank, run_id)
    session.join(FINGERPRINT)
    session.exchange_keys()
    return session


both_ways = pytest.mark.parametrize("node", [0, 2], indirect=True, ids=["in the node", "in two processes"])


@both_ways
def test_sum_is_exact_at_every_bank_for_several_chunks(node: Node) -> None:
    run_id = node.open()
    rng = np.random.default_rng(1)
    limit = 2**55
    vectors = {bank: rng.integers(-limit, limit, 9000) for bank in BANKS}

    def one(bank: str):
        session = _enter(node, bank, run_id)
        return session.secure_sum("bins/0/0", vectors[bank]), session.secure_sum("bins/0/1", vectors[bank][:1])

    for first, second in in_parallel(BANKS, one).values():
        assert np.array_equal(first, sum(vectors.values()))
        assert second.tolist() == [sum(int(v[0]) for v in vectors.values())]


@both_ways
def test_a_bank_that_starts_again_repeats_its_steps_and_gets_the_same_sums(node: Node) -> None:
    run_id = node.open()

    def one(bank: str):
        first = _enter(node, bank, run_id).secure_sum("bins/0/0", np.arange(5))
        again = _enter(node, bank, run_id)
        return first, again.secure_sum("bins/0/0", np.arange(5)), again.secure_sum("bins/0/1", np.ones(3, np.int64))

    for first, again, later in in_parallel(BANKS, one).values():
        assert first.tolist() == again.tolist() == [0, 3, 6, 9, 12]
        assert later.tolist() == [3, 3, 3]


def test_other_numbers_for_a_step_already_sent_are_refused_at_the_bank(node: Node) -> None:
    run_id = node.open()

    def one(bank: str):
        session = _enter(node, bank, run_id)
        session.secure_sum("bins/0/0", np.arange(5))
        with pytest.raises(LocalError, match=r"step bins/0/0: this bank has already sent other numbers"):
            _enter(node, bank, run_id).secure_sum("bins/0/0", np.arange(5) + 1)

    in_parallel(BANKS, one)


def test_banks_that_announce_different_lengths_are_refused_with_both_named(node: Node) -> None:
    run_id = node.open()

    sessions = in_parallel(BANKS, lambda bank: _enter(node, bank, run_id))

    def one(bank: str) -> str:
        session = sessions[bank]
        try:
            session.secure_sum("bins/0/0", np.zeros(5 + (bank == BANKS[0]), np.int64))
        except SubmissionRefused as error:
            session.client.abort(run_id, "lengths differ")
            return str(error)
        except RunAborted as error:
            return str(error)
        return "no error"

    texts = " ".join(in_parallel(BANKS, one).values())
    assert "announces" in texts and "bins/0/0" in texts and "no error" not in texts


def test_a_bank_that_stays_silent_ends_the_run_at_the_deadline_and_is_named(node: Node) -> None:
    run_id = node.open(step_seconds=1, pause_seconds=1)

    def one(bank: str) -> str:
        session = _enter(node, bank, run_id)
        if bank == BANKS[2]:
            return ""
        with pytest.raises(RunAborted) as caught:
            session.secure_sum("bins/0/0", np.zeros(3, np.int64))
        return str(caught.value)

    texts = in_parallel(BANKS, one)
    assert f"step bins/0/0: no answer within 1 s, nor in 1 s of waiting: {BANKS[2]}" in texts[BANKS[0]]


@both_ways
def test_a_payload_that_is_no_ciphertext_is_refused_noted_and_changes_nothing(node: Node) -> None:
    run_id = node.open()
    sessions = in_parallel(BANKS, lambda bank: _enter(node, bank, run_id))
    bad = sessions[BANKS[0]].client
    header = StepHeader(
        run_id=run_id,
        bank=BANKS[0],
        step="bins/0/0",
        attempt=0,
        chunks=1,
        length=4,
        he_fingerprint=HE_FINGERPRINT,
        roster_digest=roster_digest(BANKS),
        state=bytes(32),
        signature=bytes(64),
    )
    noise = np.random.default_rng(0).bytes(88_000)
    for body in (noise, bytes(70_000)):
        with pytest.raises(SubmissionRefused, match=r"chunk 0: a payload is not a ciphertext|must hold 4096 slots"):
            bad.secure_sum(header, lambda body=body: iter([Chunk(index=0, ciphertext=body)]), 10)
    sums = in_parallel(BANKS, lambda bank: sessions[bank].secure_sum("bins/0/0", np.arange(4)))
    assert all(total.tolist() == [0, 3, 6, 9] for total in sums.values())
    with node.operator() as operator:
        assert any("refused in step bins/0/0, chunk 0" in e.text for e in operator.get_run(run_id).events)


def test_a_bank_can_act_only_as_itself_and_only_if_invited(node: Node) -> None:
    run_id = node.open()
    stranger = node.client("dune_bank")
    request = JoinRequest(run_id=run_id, bank=BANKS[0], contract_fingerprint=FINGERPRINT, he_fingerprint=HE_FINGERPRINT)
    with pytest.raises(RemoteError, match="only as itself"):
        stranger.join(request)
    with pytest.raises(SubmissionRefused, match="not on the roster"):
        stranger.join(
            JoinRequest(
                run_id=run_id, bank="dune_bank", contract_fingerprint=FINGERPRINT, he_fingerprint=HE_FINGERPRINT
            )
        )
    assert stranger.runs() == []
    stranger.close()


def test_another_data_contract_is_refused(node: Node) -> None:
    run_id = node.open()
    session = node.session(BANKS[0], run_id)
    with pytest.raises(LocalError, match="install the consortium's contract"):
        session.join("cd" * 32)
    with pytest.raises(SubmissionRefused, match="data contract"):
        session.client.join(
            JoinRequest(run_id=run_id, bank=BANKS[0], contract_fingerprint="cd" * 32, he_fingerprint=HE_FINGERPRINT)
        )


def test_disagreeing_digests_abort_the_run(node: Node) -> None:
    run_id = node.open()

    sessions = in_parallel(BANKS, lambda bank: _enter(node, bank, run_id))

    def one(bank: str) -> str:
        with pytest.raises(RunAborted) as caught:
            sessions[bank].report(Phase.BINNING, ("1" if bank == BANKS[1] else "2") * 64)
        return str(caught.value)

    assert all("disagree on the result of BINNING" in text for text in in_parallel(BANKS, one).values())


def test_keys_are_wiped_when_the_run_ends(node: Node) -> None:
    run_id = node.open()
    sessions = in_parallel(BANKS, lambda bank: _enter(node, bank, run_id))
    secret = node.folder / BANKS[1] / run_id / "secrets.json"
    assert secret.stat().st_mode & 0o777 == 0o600
    sessions[BANKS[1]].end()
    assert not secret.exists()


def test_an_unreachable_aggregator_is_a_clear_error(node: Node) -> None:
    node.server.stop()
    client = node.client(BANKS[0], patience_seconds=0.5)
    with pytest.raises(AggregatorUnreachable, match=r"127\.0\.0\.1:\d+"):
        client.runs()
    client.close()
