"""Several banks in one process: k threads, and a secure sum in its field that waits for all of them. No encryption."""

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from bank_node.consortium import SecureSum
from protocol.field import MODULUS, decode_signed, encode_signed

T = TypeVar("T")


def run_banks(banks: Sequence[Callable[[SecureSum], T]]) -> list[T]:
    """Runs each bank's function in its own thread with a sum over all of them; returns their results in order.

    Raises the first bank's error, after freeing the others from waiting.
    """
    barrier = threading.Barrier(len(banks))
    vectors: list[tuple[str, np.ndarray] | None] = [None] * len(banks)
    results: list[T | None] = [None] * len(banks)
    errors: list[BaseException] = []

    def sum_for(bank: int) -> SecureSum:
        def secure_sum(step: str, vector: np.ndarray) -> np.ndarray:
            assert vector.dtype == np.int64 and vector.ndim == 1
            vectors[bank] = (step, vector.copy())
            barrier.wait()
            given = [v for v in vectors if v is not None]
            assert {s for s, _ in given} == {step}, "banks are at different steps"
            total = encode_signed(np.zeros_like(vector))
            for _, each in given:
                total = (total + encode_signed(each)) % np.uint64(MODULUS)
            barrier.wait()
            return decode_signed(total)

        return secure_sum

    def work(bank: int) -> None:
        try:
            results[bank] = banks[bank](sum_for(bank))
        except threading.BrokenBarrierError:
            pass
        except BaseException as error:
            errors.append(error)
            barrier.abort()

    threads = [threading.Thread(target=work, args=(bank,)) for bank in range(len(banks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results  # type: ignore[return-value]
