"""One secure sum as the aggregator sees it: ciphertext accumulators and who has sent what. No store, no clock."""

import threading

from aggregator.ciphertext_sum import ChunkAccumulator, PublicContext
from protocol.errors import ProtocolViolation, SubmissionRefused
from protocol.messages import Chunk, StepHeader

__all__ = ["Step", "step_is_older"]

_PHASE_ORDER = {"bins": 0, "train": 1, "eval": 2}


def step_is_older(step: str, than: str) -> bool:
    """Whether a step belongs to an earlier phase or round than another; steps of one round are no older."""

    def rank(name: str) -> tuple[int, int]:
        parts = name.split("/")
        number = int(parts[1]) if len(parts) > 1 and parts[1].isdigit() else 0
        return _PHASE_ORDER.get(parts[0], -1), number

    return rank(step) < rank(than)


class Step:
    """Accumulates one step. Chunks of a bank count once, so an upload can be repeated after a failure."""

    def __init__(self, *, header: StepHeader, roster: frozenset[str], context: PublicContext, opened_at: float) -> None:
        self.header = header
        self.roster = roster
        self.opened_at = opened_at
        self.finished: set[str] = set()
        self.results: list[bytes] = []
        self.bytes_received = 0
        self._context = context
        self._chunks = [ChunkAccumulator() for _ in range(header.chunks)]
        self._lock = threading.Lock()
        self._over = threading.Event()

    @property
    def complete(self) -> bool:
        """Whether the sum has been made."""
        return bool(self.results)

    def check_header(self, header: StepHeader) -> None:
        """Raise `SubmissionRefused` if a bank announces another shape than the step has."""
        if (header.chunks, header.length) != (self.header.chunks, self.header.length):
            raise SubmissionRefused(
                f"run {header.run_id}, step {header.step}: bank {header.bank} announces {header.length} numbers in "
                f"{header.chunks} chunks, the others {self.header.length} in {self.header.chunks}"
            )

    def add(self, bank: str, chunk: Chunk) -> None:
        """Add a chunk; one that this bank has already sent is ignored."""
        if chunk.index >= self.header.chunks:
            raise ProtocolViolation(f"only {self.header.chunks} chunks were announced")
        chunks = self._chunks
        if self.complete or bank in chunks[chunk.index].banks:
            return
        accumulator = chunks[chunk.index]
        vector = self._context.parse(chunk.ciphertext)
        with self._lock:
            if not self.complete and accumulator.add(bank, vector):
                self.bytes_received += len(chunk.ciphertext)

    def missing_chunks(self, bank: str) -> int:
        """How many chunks of a bank have not come."""
        return 0 if self.complete else sum(bank not in chunk.banks for chunk in self._chunks)

    def finish(self, bank: str) -> bool:
        """Note that a bank has sent all; True for the call that completed the roster and made the sum."""
        with self._lock:
            self.finished.add(bank)
            if self.complete or self.finished != self.roster:
                return False
            self.results = [chunk.serialize() for chunk in self._chunks]
            self._over.set()
            return True

    def cancel(self) -> None:
        """Wake everybody who waits; there will be no sum."""
        self._over.set()

    def wait(self) -> bool:
        """Block until the sum is there (True) or the step is cancelled (False)."""
        self._over.wait()
        return self.complete
