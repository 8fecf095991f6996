"""A secure sum of one bank with itself, no network: what comes back must be what left, or nothing of it is used."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bank_node.secure_aggregation.agreed_state import AgreedState, Peers, Roster
from bank_node.secure_aggregation.keys import RunSecrets
from bank_node.secure_aggregation.ledger import Ledger, read_records
from bank_node.secure_aggregation.secure_sum import Ask, secure_sum
from bank_node.secure_aggregation.sum_costs import SumCosts, Work
from protocol.errors import Equivocation, FieldOverflow, LocalError, ProtocolViolation, TamperedSum
from protocol.field import HALF
from protocol.layout import PAYLOAD_SLOTS
from protocol.messages import Chunk, Statement, StepHeader, SumHead

Chunks = Callable[[], Iterator[Chunk]]
Answer = tuple[SumHead, list[bytes]]


@pytest.fixture
def agreed(tmp_path: Path) -> Iterator[AgreedState]:
    secrets = RunSecrets.load_or_make(tmp_path / "secrets.json")
    secrets.make_shared()
    peers = Peers(run_keys={"one": secrets.ed25519.public_key()}, seeds={})
    made = AgreedState.begin("run", "one", Roster(attempt=0, members=("one",)), peers, secrets, b"start", 0)
    yield made
    made.cipher.close()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    made = Ledger(tmp_path / "ledger.jsonl")
    made.note("roster", durable=True, attempt=0, members=["one"])
    yield made
    made.close()


def echo(header: StepHeader, chunks: Chunks) -> Answer:
    """With one bank, its ciphertexts are the sum."""
    statement = Statement(bank=header.bank, state=header.state, signature=header.signature)
    head = SumHead(pending=False, attempt=header.attempt, statements=(statement,))
    return head, [chunk.ciphertext for chunk in chunks()]


def summed(agreed: AgreedState, ledger: Ledger, vector: object, ask: Ask = echo, **more: object) -> np.ndarray:
    step, bound, costs = more.get("step", "bins/0/0"), more.get("bound"), more.get("costs", SumCosts())
    return secure_sum(agreed, step, np.asarray(vector), bound=bound, ledger=ledger, ask=ask, costs=costs)


def test_it_gives_back_the_numbers_and_moves_the_chain(agreed: AgreedState, ledger: Ledger) -> None:
    vector = np.random.default_rng(1).integers(-HALF, HALF, 2 * PAYLOAD_SLOTS + 3)
    before = agreed.chain.value
    assert np.array_equal(summed(agreed, ledger, vector), vector)
    assert agreed.chain.value != before
    record = read_records(ledger.path)[-1]
    assert (record["kind"], record["chunks"], record["length"]) == ("sum", 3, vector.size)
    assert (record["before"], record["after"]) == (before.hex(), agreed.chain.value.hex())


def _swapped(answer: Answer) -> Answer:
    return answer[0], answer[1][::-1]


def _earlier(answer: Answer) -> Answer:
    return replace(answer[0], attempt=1), answer[1]


def _another_state(answer: Answer) -> Answer:
    told = replace(answer[0].statements[0], state=bytes(32))
    return replace(answer[0], statements=(told,)), answer[1]


def _not_signed(answer: Answer) -> Answer:
    told = replace(answer[0].statements[0], signature=Ed25519PrivateKey.generate().sign(b""))
    return replace(answer[0], statements=(told,)), answer[1]


@pytest.mark.parametrize(
    ("spoil", "error", "words"),
    [
        (_swapped, TamperedSum, "chunk 0"),
        (_earlier, ProtocolViolation, "unknown attempt 1"),
        (_another_state, ProtocolViolation, "not signed"),
        (_not_signed, ProtocolViolation, "not signed"),
    ],
)
def test_what_does_not_check_out_is_used_by_nobody(
    agreed: AgreedState,
    ledger: Ledger,
    spoil: Callable[[Answer], Answer],
    error: type[ProtocolViolation],
    words: str,
) -> None:
    before = agreed.chain.value
    with pytest.raises(error, match=words):
        summed(agreed, ledger, np.arange(2 * PAYLOAD_SLOTS), lambda header, chunks: spoil(echo(header, chunks)))
    assert agreed.chain.value == before
    kinds = [record["kind"] for record in read_records(ledger.path)]
    assert "sum" not in kinds and ("evidence" in kinds) == (spoil in (_another_state, _not_signed))


def test_a_state_that_its_bank_did_sign_is_equivocation(agreed: AgreedState, ledger: Ledger) -> None:
    other = Ed25519PrivateKey.generate()
    both = replace(
        agreed,
        roster=Roster(attempt=0, members=("one", "two")),
        peers=Peers(run_keys=dict(agreed.peers.run_keys) | {"two": other.public_key()}, seeds=agreed.peers.seeds),
    )
    theirs = replace(both, bank="two", signing_key=other)
    theirs.chain.sum_taken("bins/0/0", 0, b"", b"something else")
    told = theirs.header("bins/0/1", chunks=1, length=1)

    def ask(header: StepHeader, chunks: Chunks) -> Answer:
        statements = tuple(Statement(bank=h.bank, state=h.state, signature=h.signature) for h in (header, told))
        return SumHead(pending=False, attempt=0, statements=statements), []

    both.chain.value = bytes(32)
    with pytest.raises(Equivocation, match="at bank one and at two"):
        summed(both, ledger, [1], ask, step="bins/0/1")


def test_we_are_bound_on_disk_before_the_first_ciphertext_leaves(agreed: AgreedState, ledger: Ledger) -> None:
    seen: list[str] = []

    def ask(header: StepHeader, chunks: Chunks) -> Answer:
        for _ in chunks():
            seen.append(read_records(ledger.path)[-1]["kind"])
            assert not ledger._unsettled
        return echo(header, chunks)

    summed(agreed, ledger, np.arange(5), ask)
    assert seen == ["answer"]
    with pytest.raises(LocalError, match="already sent other numbers"):
        summed(agreed, ledger, np.arange(6))


def test_a_number_beyond_the_bound_is_refused_before_anything_is_bound(agreed: AgreedState, ledger: Ledger) -> None:
    with pytest.raises(FieldOverflow):
        summed(agreed, ledger, [5], bound=4)
    assert [record["kind"] for record in read_records(ledger.path)] == ["roster"]


def test_costs_are_told_by_kind_and_waiting_is_none(agreed: AgreedState, ledger: Ledger) -> None:
    now = [0.0]

    def clock() -> float:
        now[0] += 1.0
        return now[0]

    def ask(header: StepHeader, chunks: Chunks) -> Answer:
        answer = echo(header, chunks)
        now[0] += 1000.0
        return answer

    costs = SumCosts(clock)
    summed(agreed, ledger, np.arange(PAYLOAD_SLOTS + 1), ask, costs=costs)
    # A second for each look at the clock: two chunks and the end of them, three blocks of checks and decryption.
    assert costs.seconds == {Work.ENCRYPTING: 3.0, Work.DECRYPTING: 1.0, Work.CHECKING: 3.0}
    assert costs.bytes_sent > 50_000


def test_nothing_secret_shows_in_a_repr(agreed: AgreedState, tmp_path: Path) -> None:
    secrets = RunSecrets.load_or_make(tmp_path / "secrets.json")
    assert secrets.root is not None
    for hidden in (secrets.root.reveal(), secrets.ed25519.private_bytes_raw()):
        assert repr(hidden) not in repr(agreed) and hidden.hex() not in repr(agreed)
    assert "signing_key" not in repr(agreed) and "seeds" not in repr(agreed)
