"""Pairwise masks that cancel in the sum. They use `cryptography`'s primitives and keep no state but a stream's place.

For banks i < j with a shared X25519 secret, HKDF-SHA256 derives a key per (run, step, attempt, roster, pair);
ChaCha20's keystream under it, cut into 58-bit numbers by rejection, is uniform in Z_t. Bank i adds it and
bank j subtracts it, so that the masks of a whole roster sum to zero (Bonawitz et al., CCS 2017, section 4).
"""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from protocol.errors import ProtocolViolation
from protocol.field import MODULUS, FieldVector, add, subtract
from protocol.layout import CHUNK_SLOTS

__all__ = ["ElementStream", "MaskStream", "SecretBytes", "derive_key", "pair_seed", "roster_digest", "step_name"]

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


def derive_key(secret: SecretBytes, label: str, context: bytes = b"") -> bytes:
    """32 bytes of HKDF-SHA256's expansion of `secret` under ``crossbank/1 <label>\\0<context>``."""
    info = f"crossbank/1 {label}\0".encode() + context
    return HKDFExpand(algorithm=SHA256(), length=32, info=info).derive(secret.reveal())


def roster_digest(members: Sequence[str]) -> bytes:
    """SHA-256 over the sorted bank ids; ids hold no zero byte, so no two rosters share it."""
    return hashlib.sha256("\0".join(sorted(members)).encode()).digest()


def step_name(run_id: str, step: str, attempt: int, roster: bytes) -> bytes:
    """SHA-256 that names one try at one step by one roster: the context of every key used for it."""
    return hashlib.sha256(f"{run_id}\0{step}\0{attempt}\0".encode() + roster).digest()


class ElementStream:
    """Uniform elements of Z_t from ChaCha20's keystream under a 32-byte key, by rejection.

    Takes little-endian 64-bit words, keeps the low 58 bits and drops what is not below t (about one in 2**42). The
    sequence does not depend on how many elements are taken at a time.
    """

    __slots__ = ("_keystream",)

    def __init__(self, key: bytes) -> None:
        self._keystream = Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None).encryptor()

    def take(self, count: int) -> FieldVector:
        """The next `count` elements, uint64."""
        found = self._words(count)
        while found.size < count:
            found = np.concatenate([found, self._words(count - found.size)])
        return found

    def _words(self, count: int) -> FieldVector:
        words: FieldVector = np.frombuffer(self._keystream.update(bytes(8 * count)), dtype="<u8") & _WORD_MASK
        # One pass; rejection is too rare to look for word by word.
        return words if not words.size or int(words.max()) < MODULUS else words[words < MODULUS]


class MaskStream:
    """One bank's masks for one step, chunk after chunk: the sum of its pairs' masks over all slots.

    Uniform in Z_t as long as one peer's seed is unknown to the onlooker.
    """

    __slots__ = ("_streams",)

    def __init__(self, bank: str, seeds: Mapping[str, SecretBytes], name: bytes) -> None:
        """Prepare it.

        Args:
            bank: our id.
            seeds: the pair seed of every other bank in the roster.
            name: `step_name` of the step; its masks are never used for anything else.
        """
        self._streams = [
            (bank < peer, ElementStream(derive_key(seed, "mask", name))) for peer, seed in sorted(seeds.items())
        ]

    def apply(self, chunks: FieldVector) -> FieldVector:
        """The next chunks, uint64 of shape (chunks, 4096), with their masks added."""
        masked = chunks
        for adds, stream in self._streams:
            elements = stream.take(chunks.shape[0] * CHUNK_SLOTS).reshape(chunks.shape)
            masked = add(masked, elements) if adds else subtract(masked, elements)
        return masked
