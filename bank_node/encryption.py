"""Encrypts and decrypts chunks under the run's BFV key. It knows nothing of masks, runs or the network."""

import numpy as np
import tenseal as ts

from protocol.errors import ProtocolViolation
from protocol.field import MODULUS, FieldVector
from protocol.layout import CHUNK_SLOTS
from protocol.masks import SecretBytes

__all__ = ["ChunkCipher"]


class ChunkCipher:
    """One run's HE key, ready to use."""

    __slots__ = ("_context",)

    def __init__(self, secret_context: SecretBytes) -> None:
        self._context = ts.context_from(secret_context.reveal())

    def encrypt(self, chunk: FieldVector) -> bytes:
        """A fresh ciphertext of one chunk (uint64, shape (4096,), each below t): about 88 kB, 1.3 ms."""
        if chunk.shape != (CHUNK_SLOTS,):
            raise ValueError(f"a chunk has {CHUNK_SLOTS} slots, not {chunk.shape}")
        return bytes(ts.bfv_vector(self._context, chunk.tolist()).serialize())

    def decrypt(self, ciphertext: bytes) -> FieldVector:
        """The chunk in a ciphertext, uint64 in [0, t).

        Raises:
            ProtocolViolation: it is no ciphertext of this run's parameters.
        """
        try:
            values = ts.bfv_vector_from(self._context, ciphertext).decrypt()
        except Exception as error:
            raise ProtocolViolation("a sum is not a ciphertext of the run's parameters") from error
        if len(values) != CHUNK_SLOTS:
            raise ProtocolViolation(f"a sum must hold {CHUNK_SLOTS} slots, not {len(values)}")
        # SEAL gives the centred representative.
        signed = np.array(values, dtype=np.int64)
        return np.where(signed < 0, signed + np.int64(MODULUS), signed).astype(np.uint64)
