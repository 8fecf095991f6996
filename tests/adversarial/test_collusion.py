"""What colluders see: a bank with the HE key and all of the aggregator's traffic, and n - 2 banks with their masks."""

import sqlite3
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bank_node.secure_aggregation.encryption import ChunkCipher
from bank_node.secure_aggregation.keys import RunSecrets
from protocol.field import MODULUS, add, encode_signed, subtract
from protocol.layout import CHUNK_SLOTS, PAYLOAD_SLOTS
from protocol.masks import MaskStream, SecretBytes, roster_digest, step_name
from tests.conftest import BANKS, FINGERPRINT, Node, in_parallel

CELLS = 64


def chi_square(elements: np.ndarray) -> float:
    """Against the uniform distribution on Z_t: CELLS - 1 degrees of freedom (mean 63, standard deviation 11.2)."""
    observed = np.bincount((elements // np.uint64(MODULUS // CELLS + 1)).astype(np.int64), minlength=CELLS)
    expected = elements.size / CELLS
    return float(((observed - expected) ** 2 / expected).sum())


def _uploads(node: Node, monkeypatch: pytest.MonkeyPatch, vectors: dict[str, np.ndarray]) -> tuple[str, dict[str, Any]]:
    """Run one secure sum over real gRPC; return the run and every ciphertext that reached the aggregator, by bank."""
    from aggregator.runs.steps import StepSum

    caught: dict[str, list[bytes]] = defaultdict(list)
    add_chunks = StepSum.add

    def tapped(self: StepSum, bank: str, chunks: Any) -> None:
        caught[bank].extend(chunk.ciphertext for chunk in chunks)
        add_chunks(self, bank, chunks)

    monkeypatch.setattr(StepSum, "add", tapped)
    run_id = node.open()

    def one(bank: str) -> np.ndarray:
        session = node.session(bank, run_id)
        session.join(FINGERPRINT)
        session.exchange_keys()
        return session.secure_sum("bins/0/0", vectors[bank])

    totals = in_parallel(BANKS, one)
    assert all(np.array_equal(total, sum(vectors.values())) for total in totals.values())
    return run_id, caught


def test_a_bank_that_colludes_with_the_aggregator_decrypts_noise(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    vectors = {bank: rng.integers(-1000, 1000, 4 * PAYLOAD_SLOTS) for bank in BANKS}
    run_id, caught = _uploads(node, monkeypatch, vectors)
    colluder, victim = BANKS[2], BANKS[0]
    secrets = RunSecrets.load_or_make(node.folder / colluder / run_id / "secrets.json")
    assert secrets.he_key is not None
    cipher = ChunkCipher(secrets.he_key)
    seen = np.concatenate([cipher.decrypt(body) for body in caught[victim]])
    # p = 1e-6 of a true uniform sample being rejected: 63 + 5.5 * 11.2.
    assert chi_square(seen) < 125
    # The colluder can take its own mask off; what the other honest bank shares with the victim still hides it.
    everything = {bank: np.stack([cipher.decrypt(body) for body in caught[bank]]) for bank in BANKS}
    name = step_name(run_id, "bins/0/0", 0, roster_digest(BANKS))
    session = next(s for s in node.sessions if s.bank == colluder)
    seeds = session._held.peers.seeds
    own = {victim: seeds[victim]}
    shared = MaskStream(colluder, own, name).apply(np.zeros_like(everything[victim]))
    assert chi_square(add(everything[victim], shared).reshape(-1)) < 125
    # And the sum of the honest banks, which the total tells anyway, is all that the honest masks leave over.
    honest = add(everything[BANKS[0]], everything[BANKS[1]])
    without = MaskStream(colluder, {b: seeds[b] for b in BANKS[:2]}, name).apply(np.zeros_like(honest))
    left = add(honest, without)[:, :PAYLOAD_SLOTS].reshape(-1)
    assert np.array_equal(left, encode_signed(vectors[BANKS[0]] + vectors[BANKS[1]]))


def test_the_same_look_without_masks_would_show_the_victim(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """The chi-square test above can fail: with masks left out it rejects at once."""
    monkeypatch.setattr(MaskStream, "apply", lambda self, chunks: chunks)
    vectors = {bank: np.arange(PAYLOAD_SLOTS, dtype=np.int64) for bank in BANKS}
    run_id, caught = _uploads(node, monkeypatch, vectors)
    secrets = RunSecrets.load_or_make(node.folder / BANKS[2] / run_id / "secrets.json")
    assert secrets.he_key is not None
    seen = ChunkCipher(secrets.he_key).decrypt(caught[BANKS[0]][0])
    assert chi_square(seen) > 1000
    assert np.array_equal(seen[:PAYLOAD_SLOTS], np.arange(PAYLOAD_SLOTS, dtype=np.uint64))


def test_a_leak_free_upload_differs_each_time_it_is_made() -> None:
    """Fresh encryption randomness: a repeated upload can't be matched to the first by its bytes."""
    from bank_node.secure_aggregation.keys import make_he_key

    cipher, chunk = ChunkCipher(make_he_key()), np.zeros(CHUNK_SLOTS, dtype=np.uint64)
    assert cipher.encrypt(chunk) != cipher.encrypt(chunk)


@pytest.mark.parametrize("banks", range(3, 14))
def test_all_but_two_banks_together_learn_only_the_sum_of_the_two(banks: int) -> None:
    """n - 2 colluders take off every mask they know: each honest vector stays hidden by the one they do not know."""
    rng = np.random.default_rng(banks)
    names = [f"bank_{i:02d}" for i in range(banks)]
    pairs = {frozenset((a, b)): SecretBytes(rng.bytes(32)) for a in names for b in names if a < b}
    name = step_name("run-1", "train/3/2", 0, roster_digest(names))
    zeros = np.zeros((1, CHUNK_SLOTS), dtype=np.uint64)

    def masks(bank: str, peers: list[str]) -> np.ndarray:
        return MaskStream(bank, {p: pairs[frozenset((bank, p))] for p in peers}, name).apply(zeros)

    secret = {bank: rng.integers(0, 1000, (1, CHUNK_SLOTS), dtype=np.uint64) for bank in names}
    sent = {bank: add(secret[bank], masks(bank, [p for p in names if p != bank])) for bank in names}
    honest = rng.choice(names, 2, replace=False).tolist()
    colluders = [bank for bank in names if bank not in honest]
    seen = {bank: subtract(sent[bank], masks(bank, colluders)) for bank in honest}
    # One unknown mask stays on each honest vector: it looks uniform ...
    assert all(chi_square(seen[bank].reshape(-1)) < 125 for bank in honest)
    # ... any other vector would fit it just as well, with another value of the mask nobody else knows ...
    other = rng.integers(0, 1000, (1, CHUNK_SLOTS), dtype=np.uint64)
    assert np.array_equal(add(other, subtract(seen[honest[0]], other)), seen[honest[0]])
    # ... and only the two together lose it.
    assert np.array_equal(add(seen[honest[0]], seen[honest[1]]), add(secret[honest[0]], secret[honest[1]]))


def test_the_aggregator_s_store_holds_no_secret(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = {bank: np.arange(10, dtype=np.int64) for bank in BANKS}
    run_id, _ = _uploads(node, monkeypatch, vectors)
    secrets = RunSecrets.load_or_make(node.folder / BANKS[0] / run_id / "secrets.json")
    assert secrets.root is not None and secrets.he_key is not None
    connection = sqlite3.connect(node.folder / "aggregator.db")
    dump = "\n".join(connection.iterdump()).lower()
    kept = b"".join(path.read_bytes() for path in Path(node.folder / "sums").rglob("*.sums"))
    for secret in (secrets.root.reveal(), secrets.x25519.private_bytes_raw(), secrets.he_key.reveal()[200:264]):
        assert secret.hex() not in dump and secret not in kept
