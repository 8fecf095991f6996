"""Pairwise masks that cancel in the sum. They use `cryptography`'s primitives and keep no state.

For banks i < j with a shared X25519 secret, HKDF-SHA256 derives a key per (run, step, attempt, chunk, pair);
ChaCha20's keystream under it, cut into 58-bit numbers by rejection, is uniform in Z_t. Bank i adds it and
bank j subtracts it, so that the masks of a whole roster sum to zero (Bonawitz et al., CCS 2017, section 4).
"""

import hashlib
from collections.abc import Mapping

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from protocol.errors import ProtocolViolation
from protocol.field import MODULUS, FieldVector, add, subtract
from protocol.layout import CHUNK_SLOTS

__all__ = ["SecretBytes", "chunk_mask", "pair_seed", "uniform_elements"]

_BITS = 58
_WORD_MASK = np.uint64((1 << _BITS) - 1)


class SecretBytes:
    """Bytes that never show themselves in a repr, a log or a traceback."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = bytes(value)

    def reveal(self) -> bytes:
        """The bytes themselves; for the primitive that needs them, and nothing else."""
        return self._value

    def __repr__(self) -> str:
        return f"<secret, {len(self._value)} bytes>"

    def __reduce__(self) -> str:
        raise TypeError("secrets are not pickled")


def pair_seed(own: X25519PrivateKey, peer_public: bytes, run_id: str, bank_a: str, bank_b: str) -> SecretBytes:
    """The 32-byte seed that two banks share for one run; the same at both, whatever the order of the names.

    Raises:
        ProtocolViolation: the peer's key is not a valid X25519 point (a low-order one included).
    """
    try:
        secret = own.exchange(X25519PublicKey.from_public_bytes(peer_public))
    except ValueError as error:
        raise ProtocolViolation(f"run {run_id}: a peer's X25519 key is invalid") from error
    first, second = sorted((bank_a, bank_b))
    info = b"crossbank/1 pair seed\0" + "\0".join((run_id, first, second)).encode()
    return SecretBytes(HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(secret))


def uniform_elements(key: bytes, count: int) -> FieldVector:
    """`count` elements of Z_t, uniform, from ChaCha20's keystream under `key` (32 bytes), by rejection.

    Takes little-endian 64-bit words, keeps the low 58 bits and drops what is not below t (about one in 2**42).
    """
    encryptor = Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None).encryptor()
    found = np.empty(0, dtype=np.uint64)
    while found.size < count:
        words = np.frombuffer(encryptor.update(bytes(8 * (count - found.size))), dtype="<u8") & _WORD_MASK
        found = np.concatenate([found, words[words < MODULUS]])
    return found.astype(np.uint64)


def chunk_mask(
    bank: str, seeds: Mapping[str, SecretBytes], run_id: str, step: str, attempt: int, chunk: int
) -> FieldVector:
    """This bank's mask for one chunk: the sum of its pairs' masks, all slots, check slots included.

    Args:
        bank: our id.
        seeds: the pair seed of every other bank in the roster.
        run_id, step, attempt, chunk: what the mask is for; never used for anything else.

    Returns:
        uint64, shape (4096,), uniform in Z_t as long as one peer's seed is unknown to the onlooker.
    """
    mask = np.zeros(CHUNK_SLOTS, dtype=np.uint64)
    info = b"crossbank/1 mask\0" + hashlib.sha256(f"{run_id}\0{step}\0{attempt}\0{chunk}".encode()).digest()
    for peer, seed in sorted(seeds.items()):
        key = HKDFExpand(algorithm=SHA256(), length=32, info=info).derive(seed.reveal())
        elements = uniform_elements(key, CHUNK_SLOTS)
        mask = add(mask, elements) if bank < peer else subtract(mask, elements)
    return mask
