"""Encrypts and decrypts chunks under the run's BFV key. It knows nothing of masks, runs or the network.

Two things make it fast. Fresh ciphertexts are sent in SEAL's seeded form: half of a symmetric ciphertext is expanded
from a random seed, and the seed is sent in its place (ADR 0005). And a chunk's numbers are the plaintext polynomial's
coefficients, not values at its roots: addition is the same, and no transform or list of Python integers is needed (ADR
0007). TenSEAL reaches both by its own binding of SEAL, which reads and writes files only: here, files in memory.
"""

import contextlib
import os
import struct

import numpy as np
import tenseal as ts
import tenseal.sealapi as seal
import zstandard

from protocol.errors import LocalError, ProtocolViolation
from protocol.field import FieldVector
from protocol.layout import CHUNK_SLOTS
from protocol.masks import SecretBytes

__all__ = ["ChunkCipher", "HeKey"]

_NO_CIPHERTEXT = "a sum is not a ciphertext of the run's parameters"


class HeKey(SecretBytes):
    """A run's BFV context with its secret key: TenSEAL's serialised form, parsed once, since that takes 25 ms."""

    __slots__ = ("_context",)

    def __init__(self, serialized: bytes, context: ts.Context | None = None) -> None:
        super().__init__(serialized)
        self._context = context

    @property
    def context(self) -> ts.Context:
        """The context itself.

        Raises:
            ValueError: the bytes are none.
        """
        if self._context is None:
            self._context = ts.context_from(self.reveal())
        return self._context


class ChunkCipher:
    """One run's HE key, ready to use; by one thread at a time."""

    __slots__ = (
        "_chunk", "_ciphertext", "_context", "_decompressor", "_decryptor", "_encryptor", "_parameters", "_plaintext",
        "_saved", "_sum",
    )  # fmt: skip

    def __init__(self, key: HeKey) -> None:
        # The context owns the parameters.
        self._context = key.context
        self._parameters = self._context.seal_context().data
        secret_key = self._context.secret_key().data
        self._encryptor = seal.Encryptor(self._parameters, secret_key)
        self._decryptor = seal.Decryptor(self._parameters, secret_key)
        self._plaintext = seal.Plaintext()
        self._ciphertext = seal.Ciphertext()
        # A file each, so that the pages of what we write are used again: SEAL empties the file that it saves to.
        self._chunk, self._sum, self._saved = _MemoryFile("chunk"), _MemoryFile("sum"), _MemoryFile("saved")
        self._chunk.write(_PLAINTEXT_HEAD)
        self._decompressor = zstandard.ZstdDecompressor()

    def encrypt(self, chunk: FieldVector) -> bytes:
        """A fresh ciphertext of one chunk (uint64, shape (4096,), each below t): about 46 kB, 0.8 ms.

        Returns:
            What TenSEAL's `bfv_vector_from` reads.
        """
        if chunk.shape != (CHUNK_SLOTS,):
            raise ValueError(f"a chunk has {CHUNK_SLOTS} slots, not {chunk.shape}")
        self._chunk.write(np.ascontiguousarray(chunk, dtype="<u8").data, begin=len(_PLAINTEXT_HEAD))
        self._plaintext.load(self._parameters, self._chunk.path)
        self._encryptor.encrypt_symmetric(self._plaintext).save(self._saved.path)
        body = self._saved.read()
        return _VECTOR_HEAD + _varint(len(body)) + body

    def decrypt(self, ciphertext: bytes) -> FieldVector:
        """The chunk in a ciphertext, uint64 in [0, t).

        Raises:
            ProtocolViolation: it is no ciphertext of this run's parameters.
        """
        try:
            body = _only_ciphertext(ciphertext)
        except (ValueError, IndexError) as error:
            raise ProtocolViolation(_NO_CIPHERTEXT) from error
        self._sum.write(body)
        try:
            # SEAL checks that it is one, and of these parameters.
            self._ciphertext.load(self._parameters, self._sum.path)
            self._decryptor.decrypt(self._ciphertext, self._plaintext)
        except Exception as error:
            raise ProtocolViolation(_NO_CIPHERTEXT) from error
        self._plaintext.save(self._saved.path)
        return _coefficients(self._saved.read(), self._decompressor)


class _MemoryFile:
    """A nameless file that another library can open by a path. Numbers are in it, so it must never be on a disk."""

    __slots__ = ("_number", "path")

    def __init__(self, name: str) -> None:
        if not hasattr(os, "memfd_create"):
            raise LocalError("encryption needs files in memory, which this system lacks: run the bank node on Linux")
        self._number = os.memfd_create(name, os.MFD_CLOEXEC)
        self.path = f"/proc/self/fd/{self._number}"

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError, OSError):
            os.close(self._number)

    def write(self, data: bytes | memoryview, begin: int = 0) -> None:
        """Write `data` at `begin`; the file ends behind it."""
        os.ftruncate(self._number, begin + os.pwrite(self._number, data, begin))

    def read(self) -> bytes:
        return os.pread(self._number, os.fstat(self._number).st_size, 0)


def _varint(number: int) -> bytes:
    parts = []
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*parts, number))


#: TenSEAL's BFVVectorProto up to the ciphertext: field 1, the packed sizes, here one; then field 2's tag.
_VECTOR_HEAD = b"\x0a\x02" + _varint(CHUNK_SLOTS) + b"\x12"

#: SEAL's header: magic number, header size, version, compression (0 none, 2 Zstandard), reserved, whole size.
_HEADER = struct.Struct("<HBBBBHQ")
_MAGIC, _VERSION, _STORED, _ZSTANDARD = 0xA15E, (4, 3), 0, 2
#: A plaintext's members before its coefficients, which have a header of their own: parameters' id (zero: not
#: transformed), how many coefficients, scale; and the count once more behind that header.
_MEMBERS = struct.Struct("<32xQd")
_COUNT = struct.Struct("<Q")
_BEFORE = _MEMBERS.size + _HEADER.size + _COUNT.size


def _plaintext_head() -> bytes:
    inner = _HEADER.size + _COUNT.size + 8 * CHUNK_SLOTS
    outer = _HEADER.size + _MEMBERS.size + inner
    return (
        _HEADER.pack(_MAGIC, _HEADER.size, *_VERSION, _STORED, 0, outer)
        + _MEMBERS.pack(CHUNK_SLOTS, 1.0)
        + _HEADER.pack(_MAGIC, _HEADER.size, *_VERSION, _STORED, 0, inner)
        + _COUNT.pack(CHUNK_SLOTS)
    )


_PLAINTEXT_HEAD = _plaintext_head()


def _only_ciphertext(vector: bytes) -> bytes:
    """SEAL's ciphertext in TenSEAL's bytes of a vector of one."""
    size = place = 0
    if vector.startswith(_VECTOR_HEAD):
        place = len(_VECTOR_HEAD)
        for shift in range(0, 35, 7):
            size |= (vector[place] & 0x7F) << shift
            place += 1
            if vector[place - 1] < 0x80:
                break
    if not size or place + size != len(vector):
        raise ValueError("no vector of one ciphertext")
    return vector[place:]


def _coefficients(saved: bytes, decompressor: zstandard.ZstdDecompressor) -> FieldVector:
    """A saved plaintext's coefficients, uint64 (4096,); SEAL leaves zeros out at the end."""
    magic, _, *version, compression, _, size = _HEADER.unpack_from(saved)
    if (magic, tuple(version), size) != (_MAGIC, _VERSION, len(saved)) or compression not in (_STORED, _ZSTANDARD):
        raise LocalError("this release of TenSEAL writes plaintexts in another way; install the pinned one")
    body = saved[_HEADER.size :]
    if compression == _ZSTANDARD:
        body = decompressor.decompress(body, max_output_size=_BEFORE + 8 * CHUNK_SLOTS)
    found = np.frombuffer(body, dtype="<u8", offset=_BEFORE)
    chunk = np.zeros(CHUNK_SLOTS, dtype=np.uint64)
    chunk[: found.size] = found
    return chunk
