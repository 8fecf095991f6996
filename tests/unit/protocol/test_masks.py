"""Masks: they cancel, they hide, they are what the known-answer vectors say."""

import hmac
import json
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from hypothesis import given, settings
from hypothesis import strategies as st

from bank_node.secure_aggregation.inner_products import inner_products, inner_products_naive
from bank_node.secure_aggregation.mac import CheckKeys
from protocol.errors import ProtocolViolation, TamperedSum
from protocol.field import MODULUS, add
from protocol.he_parameters import HE_FINGERPRINT, HE_PARAMETERS
from protocol.layout import CHUNK_SLOTS, MAC_SLOT, PAYLOAD_SLOTS, WITNESS_SLOT
from protocol.masks import ElementStream, MaskStream, SecretBytes, pair_seed, roster_digest, step_name

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "masks.json").read_text())


def _seeds(banks: list[str], run: str = "run-1") -> dict[str, dict[str, SecretBytes]]:
    keys = {bank: X25519PrivateKey.from_private_bytes(bytes([i + 1] * 32)) for i, bank in enumerate(banks)}
    return {
        a: {b: pair_seed(keys[a], keys[b].public_key().public_bytes_raw(), run, a, b) for b in banks if b != a}
        for a in banks
    }


def _mask(bank: str, seeds: dict[str, SecretBytes], name: bytes, chunks: int = 1) -> np.ndarray:
    return MaskStream(bank, seeds, name).apply(np.zeros((chunks, CHUNK_SLOTS), dtype=np.uint64))


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 7), st.text("abc/0123456789", min_size=1, max_size=12), st.integers(0, 3), st.integers(1, 3))
def test_the_masks_of_a_roster_sum_to_zero(count: int, step: str, attempt: int, chunks: int) -> None:
    banks = [f"bank_{i}" for i in range(count)]
    name = step_name("run-1", step, attempt, roster_digest(banks))
    total = np.zeros((chunks, CHUNK_SLOTS), dtype=np.uint64)
    for bank, seeds in _seeds(banks).items():
        mask = _mask(bank, seeds, name, chunks)
        assert mask.max() < MODULUS and mask.any()
        total = add(total, mask)
    assert not total.any()


def test_every_part_of_a_step_s_name_changes_its_masks() -> None:
    seeds, roster = _seeds(["a", "b"])["a"], roster_digest(["a", "b"])
    names = [
        ("r", "s/0/0", 0, roster),
        ("q", "s/0/0", 0, roster),
        ("r", "s/0/1", 0, roster),
        ("r", "s/0/0", 1, roster),
        ("r", "s/0/0", 0, roster_digest(["a", "b", "c"])),
    ]
    masks = {_mask("a", seeds, step_name(*name)).tobytes() for name in names}
    assert len(masks) == len(names)


def test_masks_do_not_depend_on_how_many_chunks_are_made_at_a_time() -> None:
    seeds = _seeds(["a", "b", "c"])["b"]
    whole, stream = _mask("b", seeds, bytes(32), 5), MaskStream("b", seeds, bytes(32))
    zeros = np.zeros((5, CHUNK_SLOTS), dtype=np.uint64)
    assert np.array_equal(whole, np.concatenate([stream.apply(zeros[:2]), stream.apply(zeros[2:])]))


def _expand(secret: bytes, info: bytes) -> bytes:
    """HKDF-Expand to 32 bytes by RFC 5869, written out."""
    return hmac.new(secret, info + bytes([1]), "sha256").digest()


def _naive_elements(key: bytes, count: int) -> list[int]:
    stream = Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None).encryptor()
    found: list[int] = []
    while len(found) < count:
        word = int.from_bytes(stream.update(bytes(8)), "little") % 2**58
        if word < MODULUS:
            found.append(word)
    return found


def test_masks_and_checks_are_what_the_protocol_s_text_says() -> None:
    seeds, name = _seeds(["a", "b", "c"])["b"], step_name("r", "train/1/0", 0, roster_digest(["a", "b", "c"]))
    streams = {
        peer: _naive_elements(_expand(seeds[peer].reveal(), b"crossbank/1 mask\0" + name), CHUNK_SLOTS)
        for peer in ("a", "c")
    }
    naive = [(c - a) % MODULUS for a, c in zip(streams["a"], streams["c"], strict=True)]
    assert _mask("b", seeds, name)[0].tolist() == naive

    group = SecretBytes(bytes(range(32)))
    keys = _naive_elements(_expand(group.reveal(), b"crossbank/1 check\0" + name), PAYLOAD_SLOTS + 1)
    laid = np.zeros((1, CHUNK_SLOTS), dtype=np.uint64)
    laid[0, :PAYLOAD_SLOTS] = np.random.default_rng(3).integers(0, MODULUS, PAYLOAD_SLOTS, dtype=np.uint64)
    CheckKeys(group, name, 1).fill(laid)
    mac = sum(r * int(x) for r, x in zip(keys, laid[0, :PAYLOAD_SLOTS], strict=False)) % MODULUS
    assert [int(laid[0, MAC_SLOT]), int(laid[0, WITNESS_SLOT])] == [mac, keys[-1]]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(1, 5000))
def test_inner_products_are_exact(seed: int, rows: int, length: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = (rng.integers(0, MODULUS, (rows, length), dtype=np.uint64) for _ in range(2))
    a[0], b[0] = MODULUS - 1, MODULUS - 1
    assert inner_products(a, b) == inner_products_naive(a, b)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 6), st.integers(1, 3), st.integers(0, 2**32), st.sampled_from(["", "drop", "twice", "slot", "swap"])
)
def test_checks_hold_for_the_true_sum_and_for_nothing_else(banks: int, chunks: int, seed: int, wrong: str) -> None:
    rng, keys = np.random.default_rng(seed), CheckKeys(SecretBytes(bytes(32)), bytes(32), chunks)
    parts = []
    for _ in range(banks):
        laid = np.zeros((chunks, CHUNK_SLOTS), dtype=np.uint64)
        laid[:, :PAYLOAD_SLOTS] = rng.integers(0, MODULUS, (chunks, PAYLOAD_SLOTS), dtype=np.uint64)
        keys.fill(laid)
        parts.append(laid)
    if wrong == "drop":
        parts = parts[1:] or [np.zeros_like(parts[0])]
    if wrong == "twice":
        parts.append(parts[0])
    total = parts[0]
    for part in parts[1:]:
        total = add(total, part)
    total = total.copy()
    if wrong == "slot":
        total[chunks - 1, seed % CHUNK_SLOTS] = (int(total[chunks - 1, seed % CHUNK_SLOTS]) + 1) % MODULUS
    if wrong == "swap":
        total = total[::-1]
    if not wrong or (wrong == "swap" and chunks == 1):
        keys.verify(total, banks, "r", "s")
    else:
        with pytest.raises(TamperedSum, match="run r, step s, chunk"):
            keys.verify(total, banks, "r", "s")


def test_both_banks_derive_the_same_seed_and_other_runs_another() -> None:
    seeds, later = _seeds(["a", "b"]), _seeds(["a", "b"], "run-2")
    assert seeds["a"]["b"].reveal() == seeds["b"]["a"].reveal() != later["a"]["b"].reveal()


def test_mask_elements_are_uniform_by_chi_square() -> None:
    sample = ElementStream(bytes(range(32))).take(64_000)
    observed = np.bincount((sample // np.uint64(MODULUS // 64 + 1)).astype(np.int64), minlength=64)
    statistic = float(((observed - 1000.0) ** 2 / 1000.0).sum())
    # 63 degrees of freedom: mean 63, standard deviation 11.2; five deviations either way.
    assert 7 < statistic < 119


def test_a_low_order_peer_key_is_refused() -> None:
    with pytest.raises(ProtocolViolation, match="X25519 key is invalid"):
        pair_seed(X25519PrivateKey.generate(), bytes(32), "run-1", "a", "b")


def test_secrets_do_not_show_themselves() -> None:
    secret = SecretBytes(b"very secret")
    assert "secret, 11 bytes" in repr(secret) and "very" not in f"{secret} {secret!r}"


def test_known_answers() -> None:
    for case in VECTORS["pair_seeds"]:
        own = X25519PrivateKey.from_private_bytes(bytes.fromhex(case["own_private"]))
        seed = pair_seed(own, bytes.fromhex(case["peer_public"]), case["run"], case["bank_a"], case["bank_b"])
        assert seed.reveal().hex() == case["seed"]
    for case in VECTORS["masks"]:
        seeds = {peer: SecretBytes(bytes.fromhex(seed)) for peer, seed in case["seeds"].items()}
        name = step_name(case["run"], case["step"], case["attempt"], roster_digest([case["bank"], *seeds]))
        assert name.hex() == case["step_name"]
        mask = _mask(case["bank"], seeds, name, case["chunk"] + 1)[case["chunk"]]
        assert mask[:4].tolist() == case["first_elements"] and int(mask[-1]) == case["last_element"]
    for case in VECTORS["checks"]:
        laid = np.zeros((1, CHUNK_SLOTS), dtype=np.uint64)
        laid[0, : len(case["numbers"])] = case["numbers"]
        CheckKeys(SecretBytes(bytes.fromhex(case["group"])), bytes.fromhex(case["step_name"]), 1).fill(laid)
        assert (int(laid[0, MAC_SLOT]), int(laid[0, WITNESS_SLOT])) == (case["mac"], case["witness"])
    assert VECTORS["he_parameters"] == HE_PARAMETERS and VECTORS["he_fingerprint"] == HE_FINGERPRINT
