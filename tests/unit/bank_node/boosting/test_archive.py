"""Arrays read back by several threads at once, as banks in one process do."""

from concurrent.futures import ThreadPoolExecutor, wait

import numpy as np

from bank_node.boosting.archive import ONE_READER, pack_arrays, unpack_arrays


def test_arrays_are_read_by_one_thread_at_a_time() -> None:
    """CPython 3.11 fails in `ast` when two threads parse headers at once, rarely; look at the lock, not the luck."""
    arrays = {"one": np.arange(5), "two": np.zeros((2, 3))}
    data = pack_arrays(arrays)
    with ThreadPoolExecutor(2) as pool:
        with ONE_READER:
            reading = [pool.submit(unpack_arrays, data, tuple(arrays), what="test") for _ in range(2)]
            assert not wait(reading, timeout=0.3).done
        for found in reading:
            assert all(np.array_equal(found.result()[name], array) for name, array in arrays.items())
