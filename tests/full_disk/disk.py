"""A disk that is full on demand, by a library that is preloaded into a process of its own. It judges nothing.

The library (`shim.c`) refuses writes under one folder, of whatever calls them: Python, Arrow, DuckDB, SQLite. The write
that is refused first is done by half, as disks do it, and everything after it is refused too until room is made.
"""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

__all__ = ["Disk", "run_with_shim"]

_BUILD = ("cc", "-D_LARGEFILE64_SOURCE", "-shared", "-fPIC", "-O1", "-Wall", "-Werror")


class Disk:
    """The disk of this process; made where the library is preloaded."""

    def __init__(self, folder: Path) -> None:
        """The folder that it holds."""
        self._folder = os.fsencode(folder)
        self._shim = ctypes.CDLL(None)
        self._shim.full_disk_last.restype = ctypes.c_char_p
        self._shim.full_disk_arm.argtypes = (
            ctypes.c_char_p,
            ctypes.c_char_p,
            ctypes.c_char_p,
            ctypes.c_int,
            ctypes.c_long,
        )

    def full_at_the_next_new_write(self, *kinds_in: Path) -> None:
        """Be full at the first write that was never refused: it is known by its call, file and place.

        Args:
            kinds_in: at most two folders in which one day's, file's or run's write stands for all others like it.
        """
        first, second = (*map(os.fsencode, kinds_in), b"", b"")[:2]
        self._shim.full_disk_arm(self._folder, first, second, 2, 0)

    def make_room(self) -> tuple[int, str]:
        """Take all writes again; how many were asked for, and the last that was refused (empty if none was)."""
        writes = int(self._shim.full_disk_disarm())
        return writes, os.fsdecode(self._shim.full_disk_last())


def run_with_shim(folder: Path, *arguments: str) -> str:
    """Run `tests.full_disk.sweeps` with the library; its output, once it has ended well."""
    library = folder / "full_disk.so"
    source = Path(__file__).with_name("shim.c")
    try:
        subprocess.run([*_BUILD, "-o", library, source, "-ldl", "-pthread"], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("no C compiler here")
    command = [sys.executable, "-m", "tests.full_disk.sweeps", str(folder), *arguments]
    environment = os.environ | {"LD_PRELOAD": str(library)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    return done.stdout
