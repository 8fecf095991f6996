"""Masks: they cancel, they hide, they are what the known-answer vectors say."""

import json
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import ProtocolViolation
from protocol.field import MODULUS, add
from protocol.he_parameters import HE_FINGERPRINT, HE_PARAMETERS
from protocol.layout import CHUNK_SLOTS
from protocol.masks import SecretBytes, chunk_mask, pair_seed, uniform_elements

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "masks.json").read_text())


def _seeds(banks: list[str], run: str = "run-1") -> dict[str, dict[str, SecretBytes]]:
    keys = {bank: X25519PrivateKey.from_private_bytes(bytes([i + 1] * 32)) for i, bank in enumerate(banks)}
    return {
        a: {b: pair_seed(keys[a], keys[b].public_key().public_bytes_raw(), run, a, b) for b in banks if b != a}
        for a in banks
    }


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 7), st.text("abc/0123456789", min_size=1, max_size=12), st.integers(0, 3), st.integers(0, 99))
def test_the_masks_of_a_roster_sum_to_zero(count: int, step: str, attempt: int, chunk: int) -> None:
    banks = [f"bank_{i}" for i in range(count)]
    total = np.zeros(CHUNK_SLOTS, dtype=np.uint64)
    for bank, seeds in _seeds(banks).items():
        mask = chunk_mask(bank, seeds, "run-1", step, attempt, chunk)
        assert mask.max() < MODULUS and mask.any()
        total = add(total, mask)
    assert not total.any()


def test_every_part_of_a_mask_s_name_changes_it() -> None:
    seeds = _seeds(["a", "b"])["a"]
    names = [
        ("r", "s/0/0", 0, 0),
        ("q", "s/0/0", 0, 0),
        ("r", "s/0/1", 0, 0),
        ("r", "s/0/0", 1, 0),
        ("r", "s/0/0", 0, 1),
    ]
    masks = {chunk_mask("a", seeds, *name).tobytes() for name in names}
    assert len(masks) == len(names)


def test_both_banks_derive_the_same_seed_and_other_runs_another() -> None:
    seeds, later = _seeds(["a", "b"]), _seeds(["a", "b"], "run-2")
    assert seeds["a"]["b"].reveal() == seeds["b"]["a"].reveal() != later["a"]["b"].reveal()


def test_mask_elements_are_uniform_by_chi_square() -> None:
    sample = uniform_elements(bytes(range(32)), 64_000)
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
        mask = chunk_mask(case["bank"], seeds, case["run"], case["step"], case["attempt"], case["chunk"])
        assert mask[:4].tolist() == case["first_elements"] and int(mask[-1]) == case["last_element"]
    assert VECTORS["he_parameters"] == HE_PARAMETERS and VECTORS["he_fingerprint"] == HE_FINGERPRINT
