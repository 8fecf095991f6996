"""A run's trees on disk, one record a tree, so that a bank that starts again goes on. It trains nothing."""

import contextlib
import hashlib
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from bank_node.boosting import Tree, trees_from_bytes, trees_to_bytes
from bank_node.boosting.errors import BoostingError
from protocol.errors import DamagedRunFiles

__all__ = ["TreeFile", "reading"]

_MAGIC = b"crossbank trees 1\n"
_HEAD = struct.Struct(">I8s")  # bytes of the record, and the beginning of their SHA-256


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Read a file of a run in the block; whatever is wrong with it means that the bank can't go on with the run.

    Such a file holds what was agreed with the other banks, who do not agree on it a second time.

    Raises:
        DamagedRunFiles: it is missing, or is not what was written; names the file.
    """
    try:
        yield
    except (FileNotFoundError, ValueError, KeyError, TypeError, IndexError, BoostingError) as error:
        raise DamagedRunFiles(f"{path} is missing or damaged; the bank can't go on with this run") from error


class TreeFile:
    """The trees of one run, open for appending. A last record torn by a crash is cut off."""

    def __init__(self, path: Path) -> None:
        """Open it, or begin it; `trees` holds what it has.

        Raises:
            DamagedRunFiles: it is damaged before its end; names the file.
        """
        self.path = path
        self.trees: list[Tree] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        data = path.read_bytes() if path.exists() else b""
        place = len(_MAGIC)
        if len(data) < place:
            data = b""
        elif not data.startswith(_MAGIC):
            raise DamagedRunFiles(
                f"checkpoint {path} is damaged, it does not begin as one; the bank can't go on with this run"
            )
        while data and place + _HEAD.size <= len(data):
            size, digest = _HEAD.unpack_from(data, place)
            body = data[place + _HEAD.size : place + _HEAD.size + size]
            if len(body) < size:
                break
            if hashlib.sha256(body).digest()[:8] != digest:
                raise DamagedRunFiles(
                    f"checkpoint {path} is damaged at tree {len(self.trees)}; the bank can't go on with this run"
                )
            with reading(path):
                self.trees += trees_from_bytes(body)
            place += _HEAD.size + size
        self._file = path.open("ab")
        if not data:
            self._file.truncate(0)
            self._file.write(_MAGIC)
        else:
            self._file.truncate(place)

    def append(self, tree: Tree, body: bytes = b"") -> None:
        """Add a tree, and its `trees_to_bytes` if they are known already; it is on disk when this returns."""
        body = body or trees_to_bytes([tree])
        self._file.write(_HEAD.pack(len(body), hashlib.sha256(body).digest()[:8]) + body)
        self._file.flush()
        os.fsync(self._file.fileno())
        self.trees.append(tree)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
