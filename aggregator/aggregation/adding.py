"""Adds ciphertexts in processes of their own, where the node has cores. They hold no key of any run.

TenSEAL holds Python's lock for as long as it works, so threads gain nothing. A chunk belongs to one process from its
first ciphertext to its sum. When one of these processes ends unasked, the node ends too: started again, it goes on with
every run from its store, and the banks send the step under way once more.
"""

import contextlib
import itertools
import logging
import os
import queue
import struct
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, NoReturn

from aggregator.aggregation.ciphertext_sum import ChunkAccumulator, PublicContext, reference_context
from protocol.errors import ProtocolViolation

__all__ = ["Addition", "AddingPool", "default_processes", "main"]

logger = logging.getLogger(__name__)

#: What is asked for: kind, chunk, bank, banks of the roster, size of what follows.
_ASK = struct.Struct("<cQIII")
_ADD, _FORGET = b"a", b"f"
#: The answer to an addition: kind, size of the sum that follows (0 while banks are missing).
_ANSWER = struct.Struct("<cI")
_ADDED, _REFUSED = b"+", b"-"


def default_processes() -> int:
    """One a core on machines with more than two; fewer would only wait for the banks' or the node's own cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    return min(cores, 8) if cores > 2 else 0


@dataclass(frozen=True, slots=True)
class Addition:
    """What became of one ciphertext.

    Attributes:
        refused: it is no ciphertext of the protocol's parameters.
        total: the sum, once all banks' have been added; empty before.
    """

    refused: bool
    total: bytes


class AddingPool:
    """The processes, for all runs of a node; safe to use by many threads."""

    def __init__(self, processes: int) -> None:
        """Start them; there must be at least one."""
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._banks: dict[str, int] = {}
        self._closing = False
        self._helpers = [
            subprocess.Popen(
                [sys.executable, "-m", "aggregator.aggregation.adding"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is for the node, which ends us
            )
            for _ in range(processes)
        ]

    def reserve(self, chunks: int) -> list[int]:
        """Numbers for the chunks of a step."""
        with self._lock:
            return list(itertools.islice(self._numbers, chunks))

    def add(self, bank: str, members: int, numbers: Sequence[int], ciphertexts: Sequence[bytes]) -> list[Addition]:
        """Add one ciphertext of a bank to each of some chunks; a second one of the same bank is ignored.

        Args:
            bank: whose they are.
            members: how many banks the roster has; with the last one's, the sum is made.
            numbers: the chunks, from `reserve`.
            ciphertexts: one each.
        """
        with self._lock:
            who = self._banks.setdefault(bank, len(self._banks))
            try:
                for number, body in zip(numbers, ciphertexts, strict=True):
                    self._ask(self._of(number), _ASK.pack(_ADD, number, who, members, len(body)) + body)
                return [self._answer(self._of(number)) for number in numbers]
            except (OSError, ValueError):  # ValueError: its pipe was closed, by us
                self._lost()

    def forget(self, numbers: Sequence[int]) -> None:
        """Free the chunks of a step that is over."""
        with self._lock, contextlib.suppress(OSError, ValueError):
            for number in numbers:
                self._ask(self._of(number), _ASK.pack(_FORGET, number, 0, 0, 0))

    def close(self) -> None:
        """End the processes; harmless when it has been done."""
        self._closing = True
        with self._lock:
            for helper in self._helpers:
                for stream in (helper.stdin, helper.stdout):
                    if stream is not None:
                        with contextlib.suppress(OSError):
                            stream.close()
                try:
                    helper.wait(5)
                except subprocess.TimeoutExpired:
                    helper.kill()
                    helper.wait()

    def _of(self, number: int) -> "subprocess.Popen[bytes]":
        return self._helpers[number % len(self._helpers)]

    def _ask(self, helper: "subprocess.Popen[bytes]", message: bytes) -> None:
        assert helper.stdin is not None
        helper.stdin.write(message)
        helper.stdin.flush()

    def _answer(self, helper: "subprocess.Popen[bytes]") -> Addition:
        assert helper.stdout is not None
        head = helper.stdout.read(_ANSWER.size)
        if len(head) < _ANSWER.size:
            raise BrokenPipeError
        kind, size = _ANSWER.unpack(head)
        body = helper.stdout.read(size) if size else b""
        if len(body) < size:
            raise BrokenPipeError
        return Addition(refused=kind == _REFUSED, total=body)

    def _lost(self) -> NoReturn:
        if not self._closing:
            logger.critical("a process that adds ciphertexts has ended; the node stops: start it again, runs go on")
            os._exit(70)
        raise ProtocolViolation("the node is stopping")


class _Work:
    """What one process holds: the accumulators of its chunks."""

    def __init__(self) -> None:
        # Every run has the protocol's parameters, which is all that adding needs.
        self._context = PublicContext(reference_context())
        self._chunks: dict[int, ChunkAccumulator] = {}

    def add(self, number: int, bank: int, members: int, ciphertext: bytes) -> bytes:
        """One ciphertext; returns the answer."""
        chunk = self._chunks.setdefault(number, ChunkAccumulator())
        if str(bank) not in chunk.banks:
            try:
                chunk.add(str(bank), self._context.parse(ciphertext))
            except ProtocolViolation:
                return _ANSWER.pack(_REFUSED, 0)
        # A repeat gets the sum as well: the first answer may still be on its way to another thread.
        body = chunk.serialize() if len(chunk.banks) == members else b""
        return _ANSWER.pack(_ADDED, len(body)) + body

    def forget(self, number: int) -> None:
        """Free a chunk."""
        self._chunks.pop(number, None)


def _read_requests(source: IO[bytes], requests: "queue.SimpleQueue[tuple[bytes, int, int, int, bytes] | None]") -> None:
    """Takes requests as they come, so that the node never waits to be rid of one while we wait to be rid of a sum."""
    while len(head := source.read(_ASK.size)) == _ASK.size:
        kind, number, bank, members, size = _ASK.unpack(head)
        requests.put((kind, number, bank, members, source.read(size)))
    requests.put(None)


def main() -> None:
    """The process: answers requests until its input ends."""
    requests: queue.SimpleQueue[tuple[bytes, int, int, int, bytes] | None] = queue.SimpleQueue()
    threading.Thread(target=_read_requests, args=(sys.stdin.buffer, requests), daemon=True).start()
    sink, work = sys.stdout.buffer, _Work()
    with contextlib.suppress(BrokenPipeError):
        while (request := requests.get()) is not None:
            kind, number, bank, members, body = request
            if kind == _FORGET:
                work.forget(number)
                continue
            sink.write(work.add(number, bank, members, body))
            sink.flush()


if __name__ == "__main__":
    main()
