"""How the process of a party in a run is set up: interpreter and memory. It takes no part itself."""

import contextlib
import ctypes
import gc
import sys
from collections.abc import Iterator

__all__ = ["prepared_process"]

#: glibc's `mallopt` parameters, and bytes for both.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_TRIM_BYTES, _MMAP_BYTES = 128 << 20, 32 << 20


@contextlib.contextmanager
def prepared_process() -> Iterator[None]:
    """For the time of a run; enter it once what the process needs is loaded.

    What was frozen is given back to the collector at the end; the allocator's and the lock's settings stay, since
    several runs may be under way in one process.
    """
    # Each step allocates and frees the same few hundred kilobytes; without this glibc gives them back to the system
    # each time and gets them zeroed again, a twenty-fifth of a run's time. Other C libraries don't have the call.
    with contextlib.suppress(AttributeError, OSError):
        library = ctypes.CDLL(None)
        library.mallopt(_TRIM_THRESHOLD, _TRIM_BYTES)
        library.mallopt(_MMAP_THRESHOLD, _MMAP_BYTES)
    # TenSEAL holds the GIL: let threads that wait for it have it sooner than the default 5 ms.
    sys.setswitchinterval(0.0005)
    # What is loaded by now stays: the collector need not look through it again and again.
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
