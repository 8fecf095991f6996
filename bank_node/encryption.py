"""Encrypts and decrypts chunks under the run's BFV key. It knows nothing of masks, runs or the network.

Fresh ciphertexts are sent in SEAL's seeded form: half of a symmetric ciphertext is expanded from a random seed, and the
seed is sent in its place. Half the bytes, and a third less time than `bfv_vector(...).serialize()`. TenSEAL reaches it
by its own binding of SEAL (ADR 0005), which writes to files only: here, to a file in memory.
"""

import contextlib
import os
import tempfile

import numpy as np
import tenseal as ts
import tenseal.sealapi as seal

from protocol.errors import ProtocolViolation
from protocol.field import MODULUS, FieldVector
from protocol.layout import CHUNK_SLOTS
from protocol.masks import SecretBytes

__all__ = ["ChunkCipher"]


class ChunkCipher:
    """One run's HE key, ready to use; by one thread at a time."""

    __slots__ = ("_context", "_encoder", "_encryptor", "_file", "_path", "_plaintext")

    def __init__(self, secret_context: SecretBytes) -> None:
        self._context = ts.context_from(secret_context.reveal())
        parameters = self._context.seal_context().data
        self._encoder = seal.BatchEncoder(parameters)
        self._encryptor = seal.Encryptor(parameters, self._context.secret_key().data)
        self._plaintext = seal.Plaintext()
        self._file, self._path = _file_in_memory()

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError, OSError):
            os.close(self._file)

    def encrypt(self, chunk: FieldVector) -> bytes:
        """A fresh ciphertext of one chunk (uint64, shape (4096,), each below t): about 46 kB, 0.8 ms.

        Returns:
            What TenSEAL's `bfv_vector_from` reads.
        """
        if chunk.shape != (CHUNK_SLOTS,):
            raise ValueError(f"a chunk has {CHUNK_SLOTS} slots, not {chunk.shape}")
        self._encoder.encode(chunk.tolist(), self._plaintext)
        self._encryptor.encrypt_symmetric(self._plaintext).save(self._path)
        body = os.pread(self._file, os.fstat(self._file).st_size, 0)
        return _HEAD + _varint(len(body)) + body

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


def _file_in_memory() -> tuple[int, str]:
    """A nameless file's descriptor, and a path that opens it."""
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("ciphertext", os.MFD_CLOEXEC)
        return file, f"/proc/self/fd/{file}"
    file, path = tempfile.mkstemp(prefix="ciphertext-")
    return file, path


def _varint(number: int) -> bytes:
    parts = []
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*parts, number))


#: TenSEAL's BFVVectorProto up to the ciphertext: field 1, the packed sizes, here one; then field 2's tag.
_HEAD = b"\x0a\x02" + _varint(CHUNK_SLOTS) + b"\x12"
