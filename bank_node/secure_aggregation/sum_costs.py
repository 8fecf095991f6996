"""What secure sums cost this bank: bytes sent, and seconds by kind of work. It looks on and decides nothing."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum

__all__ = ["SumCosts", "Work"]


class Work(StrEnum):
    """What a bank does for a secure sum, beside waiting for it."""

    CHECKING = "checking"  #: MACs, witnesses, signatures, states and their record: what verification costs
    ENCRYPTING = "encrypting"  #: masking, encrypting and serialising
    DECRYPTING = "decrypting"


class SumCosts:
    """Costs that add up over a session's sums; `secure_sum` tells it when work begins and ends."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        """From nothing.

        Args:
            clock: seconds; wall time by default. A measurement may want `time.thread_time`, of which a reading can cost
                a third of an encryption.
        """
        self._clock = clock
        #: Bytes of ciphertext that left.
        self.bytes_sent = 0
        #: Seconds by kind of work.
        self.seconds: dict[Work, float] = dict.fromkeys(Work, 0.0)

    @contextmanager
    def timed(self, work: Work) -> Iterator[None]:
        """The block is such work; an error in it counts too."""
        started = self._clock()
        try:
            yield
        finally:
            self.seconds[work] += self._clock() - started

    def sending(self, ciphertexts: Iterable[bytes]) -> Iterator[bytes]:
        """Passes ciphertexts on; making each is counted as encrypting, using it is not."""
        source = iter(ciphertexts)
        while True:
            started = self._clock()
            ciphertext = next(source, None)
            self.seconds[Work.ENCRYPTING] += self._clock() - started
            if ciphertext is None:
                return
            self.bytes_sent += len(ciphertext)
            yield ciphertext
