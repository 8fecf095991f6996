"""Processes that add ciphertexts: the same sums as in the node's own process, refusals, repeats, and a lost process."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tenseal as ts

from aggregator.aggregation.adding import AddingPool
from aggregator.aggregation.ciphertext_sum import PublicContext, reference_context
from aggregator.runs.steps import StepSum
from bank_node.secure_aggregation.encryption import ChunkCipher
from bank_node.secure_aggregation.keys import make_he_key
from protocol.field import MODULUS
from protocol.he_parameters import HE_FINGERPRINT
from protocol.messages import Chunk, StepHeader


@pytest.fixture(scope="module")
def cipher() -> ChunkCipher:
    return ChunkCipher(make_he_key())


@pytest.fixture
def pool():
    made = AddingPool(2)
    yield made
    made.close()


def test_the_reference_context_holds_no_key() -> None:
    context = ts.context_from(reference_context())
    assert not context.is_private() and not context.has_secret_key()
    PublicContext(reference_context())


def test_sums_are_those_of_the_vectors_whoever_comes_first(pool: AddingPool, cipher: ChunkCipher) -> None:
    rng = np.random.default_rng(3)
    vectors = {bank: rng.integers(0, MODULUS, (5, 4096), dtype=np.uint64) for bank in ("a", "b", "c")}
    bodies = {bank: [cipher.encrypt(chunk) for chunk in chunks] for bank, chunks in vectors.items()}
    numbers = pool.reserve(5)
    with ThreadPoolExecutor(3) as threads:
        answers = list(threads.map(lambda bank: pool.add(bank, 3, numbers, bodies[bank]), bodies))
    last = [next(body for a in answers if (body := a[k].total)) for k in range(5)]
    assert sum(bool(a[k].total) for a in answers for k in range(5)) == 5
    expected = np.array(sum(v.astype(object) for v in vectors.values()) % MODULUS, dtype=np.uint64)
    assert np.array_equal(np.stack([cipher.decrypt(body) for body in last]), expected)


def test_a_repeat_counts_once_and_what_is_no_ciphertext_is_refused(pool: AddingPool, cipher: ChunkCipher) -> None:
    ones, twos = np.ones(4096, dtype=np.uint64), np.full(4096, 2, dtype=np.uint64)
    numbers = pool.reserve(2)
    first = pool.add("a", 2, numbers, [cipher.encrypt(ones), b"nothing of the kind"])
    assert [a.refused for a in first] == [False, True] and not any(a.total for a in first)
    pool.add("a", 2, numbers, [cipher.encrypt(twos), cipher.encrypt(ones)])
    done = pool.add("b", 2, numbers, [cipher.encrypt(twos), cipher.encrypt(twos)])
    assert [set(cipher.decrypt(a.total).tolist()) for a in done] == [{3}, {3}]
    assert pool.add("a", 2, numbers, [cipher.encrypt(ones)] * 2) == done
    pool.forget(numbers)
    again = pool.add("b", 2, numbers, [cipher.encrypt(ones)] * 2)
    assert not any(a.total or a.refused for a in again)


def test_the_node_ends_when_a_process_is_lost() -> None:
    script = (
        "from aggregator.aggregation.adding import AddingPool\n"
        "pool = AddingPool(2)\n"
        "pool._helpers[1].kill(); pool._helpers[1].wait()\n"
        "pool.add('a', 2, pool.reserve(2), [b'x', b'y'])\n"
        "print('still here')\n"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert found.returncode == 70 and "still here" not in found.stdout and "start it again" in found.stderr


def test_a_step_that_ends_while_it_is_added_to_is_left_alone(pool: AddingPool, cipher: ChunkCipher) -> None:
    body = cipher.encrypt(np.ones(4096, dtype=np.uint64))
    header = StepHeader(
        run_id="run", bank="a", step="train/0/0", attempt=0, chunks=1, length=1, he_fingerprint=HE_FINGERPRINT,
        roster_digest=bytes(32), state=bytes(32), signature=bytes(64),
    )  # fmt: skip
    context = PublicContext(reference_context())

    class Ending(AddingPool):
        """The step is cancelled after it looked and before its ciphertext is added."""

        def __init__(self) -> None:
            self.forgotten: list[int] = []

        def reserve(self, chunks: int) -> list[int]:
            return pool.reserve(chunks)

        def add(self, *given):  # type: ignore[no-untyped-def]
            step.cancel()
            return pool.add(*given)

        def forget(self, numbers) -> None:  # type: ignore[no-untyped-def]
            self.forgotten += numbers
            pool.forget(numbers)

    ending = Ending()
    step = StepSum(header=header, roster=frozenset("ab"), context=context, opened_at=0.0, pool=ending)
    step.add("a", [Chunk(index=0, ciphertext=body)])
    assert step.bytes_received == 0 and len(ending.forgotten) == 2
    step.add("b", [Chunk(index=0, ciphertext=body)])
