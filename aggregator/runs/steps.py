"""One secure sum as the aggregator sees it: ciphertext accumulators and who has sent what. No store, no clock."""

import threading
from collections.abc import Sequence

from aggregator.aggregation.adding import AddingPool
from aggregator.aggregation.ciphertext_sum import NOT_A_CIPHERTEXT, ChunkAccumulator, PublicContext
from aggregator.persistence.sum_files import FinishedSum
from protocol.errors import ProtocolViolation, SubmissionRefused
from protocol.he_parameters import HE_FINGERPRINT
from protocol.masks import roster_digest
from protocol.messages import Chunk, Statement, StepHeader, SumHead

__all__ = ["StepSum"]


class StepSum:
    """Accumulates one step by one roster. Chunks of a bank count once, so an upload can be repeated after a failure."""

    def __init__(
        self,
        *,
        header: StepHeader,
        roster: frozenset[str],
        context: PublicContext | None,
        opened_at: float,
        pool: AddingPool | None = None,
    ) -> None:
        self.header = header
        self.attempt = header.attempt
        self.roster = roster
        self.opened_at = opened_at
        self.finished: set[str] = set()
        self.bytes_received = 0
        self.answer: FinishedSum | None = None
        self._statements: dict[str, Statement] = {}
        self._context = context
        self._chunks = [ChunkAccumulator() for _ in range(header.chunks)]
        self._pool = pool
        self._numbers = pool.reserve(header.chunks) if pool is not None and context is not None else []
        self._sealed = False
        self._lock = threading.Lock()
        self._over = threading.Event()

    @classmethod
    def finished_before(cls, run_id: str, name: str, answer: FinishedSum, now: float) -> "StepSum":
        """The step of a sum that was kept on disk."""
        banks = [statement.bank for statement in answer.head.statements]
        header = StepHeader(
            run_id=run_id,
            bank=banks[0],
            step=name,
            attempt=answer.head.attempt,
            chunks=len(answer.chunks),
            length=answer.length,
            he_fingerprint=HE_FINGERPRINT,
            roster_digest=roster_digest(banks),
            state=answer.head.statements[0].state,
        )
        step = cls(header=header, roster=frozenset(banks), context=None, opened_at=now)
        step.release(answer)
        return step

    @property
    def complete(self) -> bool:
        """Whether the sum has been made and may be given out."""
        return self.answer is not None

    def open_for(self, header: StepHeader) -> None:
        """Check a bank's header.

        Raises:
            SubmissionRefused: it announces another shape than the step has, or changes its statement.
        """
        if (header.chunks, header.length) != (self.header.chunks, self.header.length):
            raise SubmissionRefused(
                f"run {header.run_id}, step {header.step}: bank {header.bank} announces {header.length} numbers in "
                f"{header.chunks} chunks, the others {self.header.length} in {self.header.chunks}"
            )
        if header.roster_digest != self.header.roster_digest:
            raise SubmissionRefused(
                f"run {header.run_id}, step {header.step}: bank {header.bank} adds with another roster"
            )
        statement = Statement(bank=header.bank, state=header.state, signature=header.signature)
        with self._lock:
            if self._statements.get(header.bank, statement) != statement:
                raise SubmissionRefused(
                    f"run {header.run_id}, step {header.step}: bank {header.bank} changed its statement"
                )

    def add(self, bank: str, chunks: Sequence[Chunk]) -> None:
        """Add chunks; those that this bank has already sent are ignored.

        Raises:
            ProtocolViolation: one is no ciphertext of the run's parameters, or has no place; those after it may have
                been added or not.
        """
        with self._lock:
            mine, own_numbers = self._chunks, self._numbers
        for chunk in chunks:
            if chunk.index >= self.header.chunks:
                raise ProtocolViolation(f"chunk {chunk.index}: only {self.header.chunks} chunks were announced")
        if self.complete or not mine or self._context is None:
            return
        new = [chunk for chunk in chunks if bank not in mine[chunk.index].banks]
        if self._pool is None:
            for chunk in new:
                self._add_here(bank, chunk, mine[chunk.index], self._context)
            return
        numbers = [own_numbers[chunk.index] for chunk in new]
        found = self._pool.add(bank, len(self.roster), numbers, [chunk.ciphertext for chunk in new])
        with self._lock:
            over = self._over.is_set()
            for chunk, addition in zip(new, found, strict=True):
                if not (over or addition.refused):
                    mine[chunk.index].note(bank, addition.total)
                    self.bytes_received += len(chunk.ciphertext)
        if over:
            # The step's numbers may have been freed before we added to them.
            self._pool.forget(numbers)
            return
        for chunk, addition in zip(new, found, strict=True):
            if addition.refused:
                raise ProtocolViolation(f"chunk {chunk.index}: {NOT_A_CIPHERTEXT}")

    def _add_here(self, bank: str, chunk: Chunk, accumulator: ChunkAccumulator, context: PublicContext) -> None:
        try:
            vector = context.parse(chunk.ciphertext)
        except ProtocolViolation as error:
            raise ProtocolViolation(f"chunk {chunk.index}: {error}") from error
        with self._lock:
            if self._over.is_set() or not accumulator.add(bank, vector):
                return
            self.bytes_received += len(chunk.ciphertext)
            last = len(accumulator.banks) == len(self.roster)
        if last:
            # Now, while the banks still encrypt the next chunks, not when all of them wait.
            accumulator.serialize()

    def missing_chunks(self, bank: str) -> int:
        """How many chunks of a bank have not come."""
        return 0 if self.complete else sum(bank not in chunk.banks for chunk in self._chunks)

    def finish(self, header: StepHeader) -> None:
        """Note that a bank has sent all, and its statement."""
        statement = Statement(bank=header.bank, state=header.state, signature=header.signature)
        with self._lock:
            self.finished.add(header.bank)
            self._statements.setdefault(header.bank, statement)

    def seal(self) -> FinishedSum | None:
        """The sum, once the roster is complete; to one call only, until `unseal`."""
        with self._lock:
            if self.complete or self._over.is_set() or self._sealed or self.finished != self.roster:
                return None
            self._sealed = True
        head = SumHead(
            pending=False, attempt=self.attempt, statements=tuple(self._statements[b] for b in sorted(self.roster))
        )
        chunks = tuple(chunk.serialize() for chunk in self._chunks)
        return FinishedSum(head=head, chunks=chunks, length=self.header.length)

    def release(self, answer: FinishedSum) -> None:
        """Give the sum to everybody who waits; call it once the answer is kept durably."""
        with self._lock:
            self.answer = answer
        self._end()

    def unseal(self) -> None:
        """The answer could not be kept: `seal` may be tried again."""
        with self._lock:
            self._sealed = False

    def cancel(self) -> None:
        """Wake everybody who waits; there will be no sum."""
        self._end()

    def _end(self) -> None:
        with self._lock:
            self._chunks = []
            numbers, self._numbers = self._numbers, []
            self._over.set()
        if self._pool is not None and numbers:
            self._pool.forget(numbers)

    def wait(self, seconds: float) -> bool:
        """Block until the sum is there or the step is cancelled (True), or the time is up (False)."""
        return self._over.wait(seconds)
