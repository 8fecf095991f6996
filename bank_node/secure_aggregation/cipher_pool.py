"""Encrypts and decrypts many chunks at once, over processes where there are cores. It knows no runs and no network.

TenSEAL holds Python's lock for as long as it works, so threads gain nothing. Each helper is a process of this bank that
gets the run's HE key over its standard input and keeps it in memory only; helpers end with the pool.
"""

import contextlib
import os
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import IO

import numpy as np

from bank_node.secure_aggregation.encryption import ChunkCipher, HeKey
from protocol.errors import LocalError, ProtocolViolation
from protocol.field import FieldVector
from protocol.layout import CHUNK_SLOTS
from protocol.limits import MAX_CIPHERTEXT_BYTES

__all__ = ["CipherPool", "default_processes", "main"]

_HEAD = struct.Struct("<cI")
_ENCRYPT, _DECRYPT, _DONE, _REFUSED = b"e", b"d", b"+", b"-"
#: A helper holds one request while it works on another: with more, both ends of a full pipe could wait for each other.
_OUTSTANDING = 2
_LARGEST = 2 * MAX_CIPHERTEXT_BYTES


def default_processes() -> int:
    """A helper a core on machines with more than two; fewer would only wait for the kernels' cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    return cores if cores > 2 else 0


class CipherPool:
    """One run's HE key in this process and in helpers; by one thread at a time."""

    def __init__(self, key: HeKey, processes: int = 0) -> None:
        """Start the helpers.

        Args:
            key: the run's HE key.
            processes: how many helpers; with 0, all is done in this process.
        """
        self._cipher = ChunkCipher(key)
        self._helpers = [_Helper(key) for _ in range(processes)]

    def encrypt(self, chunks: Iterable[FieldVector]) -> Iterator[bytes]:
        """Ciphertexts of chunks (uint64, shape (4096,), each below t), in order, each as soon as it is there."""
        if not self._helpers:
            yield from map(self._cipher.encrypt, chunks)
            return
        yield from self._over_helpers(_ENCRYPT, (chunk.tobytes() for chunk in chunks))

    def decrypt(self, ciphertexts: Sequence[bytes]) -> FieldVector:
        """The chunks in ciphertexts, uint64 (n, 4096) in [0, t).

        Raises:
            ProtocolViolation: one is no ciphertext of this run's parameters.
        """
        if len(ciphertexts) < 2 or not self._helpers:
            return np.stack([self._cipher.decrypt(body) for body in ciphertexts])
        bodies = list(self._over_helpers(_DECRYPT, ciphertexts))
        return np.stack([np.frombuffer(body, dtype="<u8") for body in bodies])

    def close(self) -> None:
        """End the helpers; harmless when it has been done."""
        for helper in self._helpers:
            helper.close()
        self._helpers = []

    def _over_helpers(self, kind: bytes, bodies: Iterable[bytes]) -> Iterator[bytes]:
        waiting: deque[_Helper] = deque()
        try:
            for number, body in enumerate(bodies):
                if len(waiting) == _OUTSTANDING * len(self._helpers):
                    yield waiting.popleft().answer()
                helper = self._helpers[number % len(self._helpers)]
                helper.ask(kind, body)
                waiting.append(helper)
            while waiting:
                yield waiting.popleft().answer()
        finally:
            # When the caller stops early: leave no answer behind for the next call.
            for helper in waiting:
                with contextlib.suppress(ProtocolViolation, LocalError):
                    helper.answer()


class _Helper:
    """One process, asked and answering in order."""

    def __init__(self, key: HeKey) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bank_node.secure_aggregation.cipher_pool"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.ask(_ENCRYPT, key.reveal())

    def ask(self, kind: bytes, body: bytes) -> None:
        assert self._process.stdin is not None
        try:
            _write(self._process.stdin, kind, body)
        except OSError as error:
            raise LocalError("a helper process of the encryption has ended; start the command again") from error

    def answer(self) -> bytes:
        assert self._process.stdout is not None
        found = _read(self._process.stdout)
        if found is None:
            raise LocalError("a helper process of the encryption has ended; start the command again")
        kind, body = found
        if kind == _REFUSED:
            raise ProtocolViolation("a sum is not a ciphertext of the run's parameters")
        return body

    def close(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _write(stream: IO[bytes], kind: bytes, body: bytes) -> None:
    stream.write(_HEAD.pack(kind, len(body)) + body)
    stream.flush()


def _read(stream: IO[bytes]) -> tuple[bytes, bytes] | None:
    head = stream.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    kind, size = _HEAD.unpack(head)
    if size > _LARGEST:
        return None
    body = stream.read(size)
    return (kind, body) if len(body) == size else None


def main() -> None:
    """The helper: reads the key, then requests until its input ends."""
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    first = _read(source)
    if first is None:
        return
    cipher = ChunkCipher(HeKey(first[1]))
    while (request := _read(source)) is not None:
        kind, body = request
        try:
            if kind == _ENCRYPT:
                _write(sink, _DONE, cipher.encrypt(np.frombuffer(body, dtype="<u8")))
            else:
                chunk = cipher.decrypt(body)
                assert chunk.shape == (CHUNK_SLOTS,)
                _write(sink, _DONE, chunk.astype("<u8").tobytes())
        except ProtocolViolation:
            _write(sink, _REFUSED, b"")
        except BrokenPipeError:
            return


if __name__ == "__main__":
    main()
