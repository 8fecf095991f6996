"""An aggregator that lies about sums, statements, keys or rosters: each lie is found within one step, and not used.

The aggregator is a real server with its answers falsified; the banks are real sessions over gRPC, TLS and TenSEAL.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import tenseal as ts

import bank_node.secure_aggregation.run_watch as run_watch
from aggregator.persistence.sum_files import FinishedSum
from aggregator.runs.coordinator import Coordinator
from aggregator.runs.steps import StepSum
from bank_node.secure_aggregation.ledger import read_records
from bank_node.secure_aggregation.mac import CheckKeys
from protocol.errors import Equivocation, ProtocolViolation, RunAborted, TamperedSum
from protocol.field import HALF
from protocol.layout import CHUNK_SLOTS, PAYLOAD_SLOTS
from protocol.messages import RunView, Statement
from tests.conftest import BANKS, FINGERPRINT, Node, in_parallel

LENGTH = PAYLOAD_SLOTS + 10  # two chunks, so that chunks can be swapped


@dataclass
class Evil:
    """What a tampering aggregator has at hand."""

    rng: np.random.Generator
    context: Any = None
    uploads: dict[tuple[str, str], dict[int, bytes]] = field(default_factory=lambda: defaultdict(dict))
    answers: dict[str, FinishedSum] = field(default_factory=dict)

    def parse(self, body: bytes) -> Any:
        return ts.bfv_vector_from(self.context, body)

    def total(self, step: str, index: int, banks: list[str]) -> bytes:
        parts = [self.parse(self.uploads[step, bank][index]) for bank in banks]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return bytes(total.serialize())

    def pick(self) -> str:
        return str(self.rng.choice(BANKS))

    def with_chunk(self, answer: FinishedSum, index: int, body: bytes) -> FinishedSum:
        chunks = list(answer.chunks)
        chunks[index] = body
        return dataclasses.replace(answer, chunks=tuple(chunks))

    def any_chunk(self) -> int:
        return int(self.rng.integers(0, 2))


def _drop(evil: Evil, step: str, bank: str, answer: FinishedSum) -> FinishedSum:
    lost, index = evil.pick(), evil.any_chunk()
    return evil.with_chunk(answer, index, evil.total(step, index, [b for b in BANKS if b != lost]))


def _repeat(evil: Evil, step: str, bank: str, answer: FinishedSum) -> FinishedSum:
    index = evil.any_chunk()
    return evil.with_chunk(answer, index, evil.total(step, index, [*BANKS, evil.pick()]))


def _scale(evil: Evil, step: str, bank: str, answer: FinishedSum) -> FinishedSum:
    index, factor = evil.any_chunk(), int(evil.rng.integers(2, 50))
    # Adding the sum to itself is multiplication by a constant, without the noise of a product.
    scaled = evil.parse(answer.chunks[index])
    for _ in range(factor - 1):
        scaled = scaled + evil.parse(answer.chunks[index])
    return evil.with_chunk(answer, index, bytes(scaled.serialize()))


def _swap(evil: Evil, step: str, bank: str, answer: FinishedSum) -> FinishedSum:
    return dataclasses.replace(answer, chunks=answer.chunks[::-1])


def _replay(evil: Evil, step: str, bank: str, answer: FinishedSum) -> FinishedSum:
    old = evil.answers["bins/0/0"]
    if evil.rng.random() < 0.5:
        return old  # with its statements
    index = evil.any_chunk()
    return evil.with_chunk(answer, index, old.chunks[index])


def _add_its_own(evil: Evil, step: str, bank: str, answer: FinishedSum) -> FinishedSum:
    """The aggregator has no key to encrypt with, but a public context lets it add numbers of its choice."""
    index, shift = evil.any_chunk(), [0] * CHUNK_SLOTS
    for slot in evil.rng.integers(0, CHUNK_SLOTS, int(evil.rng.integers(1, 4))):
        shift[int(slot)] = int(evil.rng.integers(1, HALF))
    return evil.with_chunk(answer, index, bytes((evil.parse(answer.chunks[index]) + shift).serialize()))


def _truncate(evil: Evil, step: str, bank: str, answer: FinishedSum) -> FinishedSum:
    if evil.rng.random() < 0.5:
        return dataclasses.replace(answer, chunks=answer.chunks[:1])
    body = answer.chunks[0]
    return evil.with_chunk(answer, 0, body[: int(evil.rng.integers(65536, len(body)))])


def _answer_differently(evil: Evil, step: str, bank: str, answer: FinishedSum) -> FinishedSum:
    """One bank is told the truth, the others something else."""
    return answer if bank == BANKS[0] else _add_its_own(evil, step, bank, answer)


def _forge_a_statement(evil: Evil, step: str, bank: str, answer: FinishedSum) -> FinishedSum:
    statements = list(answer.head.statements)
    place = int(evil.rng.integers(0, len(statements)))
    kind = evil.rng.choice(["state", "signature", "bank", "missing", "old", "twice"])
    known = statements[place]
    if kind == "state":
        statements[place] = Statement(bank=known.bank, state=evil.rng.bytes(32), signature=known.signature)
    elif kind == "signature":
        statements[place] = Statement(bank=known.bank, state=known.state, signature=evil.rng.bytes(64))
    elif kind == "bank":
        statements[place] = Statement(bank="dune_bank", state=known.state, signature=known.signature)
    elif kind == "missing":
        del statements[place]
    elif kind == "old":
        statements[place] = evil.answers["bins/0/0"].head.statements[place]
    else:
        statements[place] = statements[place - 1]
    head = dataclasses.replace(answer.head, statements=tuple(statements))
    return dataclasses.replace(answer, head=head)


ATTACKS: dict[str, Callable[[Evil, str, str, FinishedSum], FinishedSum]] = {
    "drops one bank": _drop,
    "repeats one bank": _repeat,
    "scales by a constant": _scale,
    "swaps two chunks": _swap,
    "replays an earlier step": _replay,
    "adds something of its own": _add_its_own,
    "truncates": _truncate,
    "answers banks differently": _answer_differently,
    "forges a statement": _forge_a_statement,
}


@pytest.fixture
def evil(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Evil:
    """Taps uploads and answers of every aggregator in this process; `attack` falsifies the second step."""
    made = Evil(rng=np.random.default_rng(0))
    add, wait = StepSum.add, Coordinator.wait_for_sum
    monkeypatch.setattr(run_watch, "_LONGEST_PAUSE", 0.05)

    def tapped(self: StepSum, bank: str, chunks: Any) -> None:
        made.context = self._context._context if self._context else made.context
        for chunk in chunks:
            made.uploads[self.header.step, bank][chunk.index] = chunk.ciphertext
        add(self, bank, chunks)

    def falsified(self: Coordinator, header: Any, step: StepSum, seconds: float) -> FinishedSum | None:
        answer = wait(self, header, step, seconds)
        if answer is None:
            return None
        made.answers[header.step] = answer
        attack = getattr(made, "attack", None)
        if attack is None or header.step == "bins/0/0":
            return answer
        return attack(made, header.step, header.bank, answer)

    monkeypatch.setattr(StepSum, "add", tapped)
    monkeypatch.setattr(Coordinator, "wait_for_sum", falsified)
    return made


def _trial(node: Node, evil: Evil, attack: Callable[..., FinishedSum], seed: int) -> dict[str, Exception | np.ndarray]:
    """One run: a true step, then a falsified one; what each bank ends with, an error or a sum."""
    evil.rng, evil.uploads, evil.answers = np.random.default_rng(seed), defaultdict(dict), {}
    evil.attack = attack  # type: ignore[attr-defined]
    run_id = node.open()
    vectors = {bank: evil.rng.integers(-1000, 1000, LENGTH) for bank in BANKS}

    def one(bank: str) -> Exception | np.ndarray:
        session = node.session(bank, run_id)
        session.join(FINGERPRINT)
        session.exchange_keys()
        assert np.array_equal(session.secure_sum("bins/0/0", vectors[bank]), sum(vectors.values()))
        try:
            return session.secure_sum("bins/0/1", 2 * vectors[bank])
        except (ProtocolViolation, RunAborted) as error:
            assert not (node.folder / bank / run_id / "secrets.json").exists()
            if isinstance(error, ProtocolViolation):
                kinds = [r["kind"] for r in read_records(node.folder / bank / run_id / "ledger.jsonl")]
                assert "failure" in kinds
            return error
        finally:
            session.client.close()

    found = in_parallel(BANKS, one)
    node.sessions.clear()
    assert node.server.coordinator.run(run_id).phase == "ABORTED"
    truth = 2 * sum(vectors.values())
    for bank, result in found.items():
        if isinstance(result, np.ndarray):
            assert attack is _answer_differently and bank == BANKS[0] and np.array_equal(result, truth)
    assert any(isinstance(result, ProtocolViolation) for result in found.values())
    return found


@pytest.mark.parametrize("attack", list(ATTACKS))
def test_a_lie_is_found_within_one_step_and_never_used(node: Node, evil: Evil, attack: str) -> None:
    for seed in range(4):
        _trial(node, evil, ATTACKS[attack], seed)


@pytest.mark.slow
@pytest.mark.parametrize("attack", list(ATTACKS))
def test_a_hundred_lies_of_each_kind(node: Node, evil: Evil, attack: str) -> None:
    found = 0
    for seed in range(1000, 1100):
        found += any(isinstance(e, ProtocolViolation) for e in _trial(node, evil, ATTACKS[attack], seed).values())
    assert found == 100
    print(f"{attack}: {found} of 100 found")


def test_errors_name_run_step_and_chunk(node: Node, evil: Evil) -> None:
    found = _trial(node, evil, ATTACKS["scales by a constant"], 7)
    texts = [str(error) for error in found.values() if isinstance(error, TamperedSum)]
    assert texts and all("step bins/0/1, chunk" in text and "run run-" in text for text in texts)


def test_without_the_checks_a_scaled_sum_would_be_used(node: Node, evil: Evil, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests above can fail: without MAC and witness, the falsified numbers come back as a sum."""
    monkeypatch.setattr(CheckKeys, "verify", lambda *_: None)
    evil.attack = lambda evil, step, bank, answer: _double(evil, answer)  # type: ignore[attr-defined]
    run_id = node.open()

    def one(bank: str) -> np.ndarray:
        session = node.session(bank, run_id)
        session.join(FINGERPRINT)
        session.exchange_keys()
        session.secure_sum("bins/0/0", np.arange(LENGTH))
        return session.secure_sum("bins/0/1", np.arange(LENGTH))

    for total in in_parallel(BANKS, one).values():
        assert np.array_equal(total, 6 * np.arange(LENGTH))


def _double(evil: Evil, answer: FinishedSum) -> FinishedSum:
    doubled = tuple(bytes((evil.parse(b) + evil.parse(b)).serialize()) for b in answer.chunks)
    return dataclasses.replace(answer, chunks=doubled)


def test_banks_that_hold_different_things_to_be_true_find_out_at_the_next_step(node: Node, evil: Evil) -> None:
    """Had a bank been told another sum than the others, its next statement would show it."""
    run_id = node.open()

    def one(bank: str) -> Exception:
        session = node.session(bank, run_id)
        session.join(FINGERPRINT)
        session.exchange_keys()
        session.secure_sum("bins/0/0", np.arange(5))
        if bank == BANKS[1]:
            session._held.chain.sum_taken("bins/0/0", 0, b"", b"something else")
        with pytest.raises((Equivocation, RunAborted)) as caught:
            session.secure_sum("bins/0/1", np.arange(5))
        return caught.value

    found = in_parallel(BANKS, one)
    assert any(isinstance(error, Equivocation) for error in found.values())
    evidence = [
        record
        for bank in BANKS
        for record in read_records(node.folder / bank / run_id / "ledger.jsonl")
        if record["kind"] == "evidence"
    ]
    assert evidence and all(len(record["statements"]) == 3 for record in evidence)


@pytest.mark.parametrize(
    ("lie", "message"),
    [
        ("larger", "can only shrink"),
        ("other", "another roster for attempt"),
        ("same", "can only shrink"),
        ("tiny", "too few"),
    ],
)
def test_a_roster_that_does_not_only_shrink_is_refused(
    node: Node, evil: Evil, monkeypatch: pytest.MonkeyPatch, lie: str, message: str
) -> None:
    """The difference attack: two sums of one step over two rosters would show the bank by which they differ."""
    banks = [*BANKS, "dune_bank", "elm_bank"]
    run_id = node.open(banks)

    def one(bank: str) -> Any:
        session = node.session(bank, run_id)
        session.join(FINGERPRINT)
        session.exchange_keys()
        return session

    sessions = in_parallel(banks, one)
    victim = sessions[BANKS[0]]
    truth = victim.client.run

    def told(run: str) -> RunView:
        view = truth(run)
        members = tuple(b for b in banks if b != "elm_bank")
        first = dataclasses.replace(view, attempt=1, members=members)
        lies = {
            "larger": dataclasses.replace(view, attempt=2, members=tuple(banks)),
            "other": dataclasses.replace(view, attempt=1, members=tuple(b for b in banks if b != "dune_bank")),
            "same": dataclasses.replace(view, attempt=2, members=members),
            "tiny": dataclasses.replace(view, attempt=2, members=tuple(BANKS[:2])),
        }
        return lies[lie] if victim._roster.attempt else first

    monkeypatch.setattr(victim.client, "run", told)
    victim.adopt_roster()
    with pytest.raises(ProtocolViolation, match=message):
        victim.adopt_roster()
    assert not (node.folder / BANKS[0] / run_id / "secrets.json").exists()


def test_a_swapped_public_context_or_key_ends_the_run(node: Node, evil: Evil, monkeypatch: pytest.MonkeyPatch) -> None:
    from bank_node.secure_aggregation.keys import make_he_key, public_part

    keys = Coordinator.keys
    run_id = node.open()
    other = public_part(make_he_key())

    def swapped(self: Coordinator, run: str, bank: str) -> Any:
        announced, bundle = keys(self, run, bank)
        if bundle is not None and bank != BANKS[0]:
            sealed = dataclasses.replace(bundle.sealed[0], box=bytes(len(bundle.sealed[0].box)))
            bundle = dataclasses.replace(bundle, public_context=other, sealed=(sealed, *bundle.sealed[1:]))
        return announced, bundle

    monkeypatch.setattr(Coordinator, "keys", swapped)

    def one(bank: str) -> Exception:
        session = node.session(bank, run_id)
        session.join(FINGERPRINT)
        with pytest.raises((ProtocolViolation, RunAborted)) as caught:
            session.exchange_keys()
        return caught.value

    found = in_parallel(BANKS, one)
    assert any("not signed by the bank's certified key" in str(error) for error in found.values())


def test_different_settings_told_to_different_banks_end_the_run_before_any_sum(
    node: Node, evil: Evil, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = node.open()

    def one(bank: str) -> Exception:
        session = node.session(bank, run_id)
        if bank == BANKS[2]:
            truth = session.client.run

            def told(run: str) -> RunView:
                view = truth(run)
                settings = dataclasses.replace(view.settings, parameters_json='{"params":{"eta":1}}')
                return dataclasses.replace(view, settings=settings)

            session.client.run = told
        session.join(FINGERPRINT)
        with pytest.raises((ProtocolViolation, RunAborted)) as caught:
            session.exchange_keys()
        return caught.value

    found = in_parallel(BANKS, one)
    assert any("disagree on the result of KEYING" in str(error) for error in found.values())


def test_a_phase_that_goes_on_without_a_bank_s_report_is_refused(
    node: Node, evil: Evil, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports = Coordinator.reports
    monkeypatch.setattr(Coordinator, "reports", lambda self, run, bank, phase: reports(self, run, bank, phase)[1:])
    run_id = node.open()

    def one(bank: str) -> Exception:
        session = node.session(bank, run_id)
        session.join(FINGERPRINT)
        with pytest.raises((ProtocolViolation, RunAborted)) as caught:
            session.exchange_keys()
        return caught.value

    found = in_parallel(BANKS, one)
    assert any("went on without a report of alder_bank" in str(error) for error in found.values())
