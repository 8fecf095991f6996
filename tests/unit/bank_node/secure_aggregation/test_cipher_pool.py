"""Chunks come back in order whatever number of helpers works, and helpers end, with an error that says so."""

import contextlib
import os
import signal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.aggregation.ciphertext_sum import ChunkAccumulator, PublicContext
from bank_node.secure_aggregation import encryption
from bank_node.secure_aggregation.cipher_pool import CipherPool
from bank_node.secure_aggregation.encryption import ChunkCipher
from bank_node.secure_aggregation.keys import make_he_key, public_part
from protocol.errors import LocalError, ProtocolViolation
from protocol.field import MODULUS
from protocol.layout import CHUNK_SLOTS

KEY = make_he_key()
CHUNKS = np.random.default_rng(0).integers(0, MODULUS, (9, CHUNK_SLOTS), dtype=np.uint64)


@pytest.mark.parametrize("processes", [0, 1, 3])
def test_encrypting_and_decrypting_gives_the_chunks_in_order(processes: int) -> None:
    pool = CipherPool(KEY, processes)
    try:
        for _ in range(2):
            bodies = list(pool.encrypt(iter(CHUNKS)))
            assert np.array_equal(pool.decrypt(bodies), CHUNKS)
        here = ChunkCipher(KEY)
        assert np.array_equal(np.stack([here.decrypt(body) for body in bodies]), CHUNKS)
        assert len(set(bodies)) == len(bodies)
    finally:
        pool.close()


def test_a_seeded_ciphertext_is_what_tenseal_reads_and_half_as_long_as_its_sum() -> None:
    body = ChunkCipher(KEY).encrypt(CHUNKS[0])
    vector = PublicContext(public_part(KEY)).parse(body)
    assert 40_000 < len(body) < 50_000 < 85_000 < len(vector.serialize())


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.sampled_from([0, 1, 4095, 4096]), st.integers(0, 2**32))
def test_ciphertexts_that_tenseal_adds_are_the_sum_of_the_chunks(banks: int, filled: int, seed: int) -> None:
    chunks = np.zeros((banks, CHUNK_SLOTS), dtype=np.uint64)
    chunks[:, :filled] = np.random.default_rng(seed).integers(0, MODULUS, (banks, filled), dtype=np.uint64)
    cipher, context, total = ChunkCipher(KEY), PublicContext(public_part(KEY)), ChunkAccumulator()
    for bank, chunk in enumerate(chunks):
        total.add(str(bank), context.parse(cipher.encrypt(chunk)))
    expected = [sum(map(int, column)) % MODULUS for column in chunks.T]
    assert cipher.decrypt(total.serialize()).tolist() == expected


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 46_000), st.binary(max_size=12), st.integers(0, 3))
def test_damaged_ciphertexts_are_refused_or_another_chunk(place: int, junk: bytes, cut: int) -> None:
    cipher = ChunkCipher(KEY)
    body = cipher.encrypt(CHUNKS[0])
    with contextlib.suppress(ProtocolViolation):
        assert cipher.decrypt(body[:place] + junk + body[place + cut :]).shape == (CHUNK_SLOTS,)
    assert np.array_equal(cipher.decrypt(body), CHUNKS[0])


def test_a_release_that_saves_plaintexts_in_another_way_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    cipher = ChunkCipher(KEY)
    body = cipher.encrypt(CHUNKS[0])
    monkeypatch.setattr(encryption, "_VERSION", (4, 9))
    with pytest.raises(LocalError, match="install the pinned one"):
        cipher.decrypt(body)


def test_a_caller_that_stops_early_leaves_nothing_behind() -> None:
    pool = CipherPool(KEY, 2)
    try:
        stream = pool.encrypt(iter(CHUNKS))
        next(stream)
        stream.close()
        assert np.array_equal(pool.decrypt(list(pool.encrypt(iter(CHUNKS[:3])))), CHUNKS[:3])
    finally:
        pool.close()


def test_what_is_no_ciphertext_is_refused_and_the_helper_goes_on() -> None:
    pool = CipherPool(KEY, 1)
    try:
        good = list(pool.encrypt(iter(CHUNKS[:2])))
        with pytest.raises(ProtocolViolation, match="not a ciphertext of the run's parameters"):
            pool.decrypt([good[0], b"something else", good[1]])
        assert np.array_equal(pool.decrypt(good), CHUNKS[:2])
    finally:
        pool.close()


def test_a_killed_helper_is_a_clear_error_and_close_ends_the_others() -> None:
    pool = CipherPool(KEY, 2)
    processes = [helper._process for helper in pool._helpers]
    os.kill(processes[0].pid, signal.SIGKILL)
    with pytest.raises(LocalError, match="helper process"):
        list(pool.encrypt(iter(CHUNKS)))
    pool.close()
    assert all(process.poll() is not None for process in processes)
