"""Finished sums on disk, so that a node that was killed can answer for them. Ciphertexts and signed statements only.

A sum is on disk, whole, before any bank sees it: what one bank was told, all can be. It is written over the file of a
step that is over, since making, renaming and removing files costs a disk several times as much as writing one again; a
checksum tells a file that a crash left half written.
"""

import contextlib
import logging
import os
import shutil
import struct
import threading
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf.message import DecodeError

from protocol import crossbank_pb2 as pb
from protocol.codec import head_from_pb, head_to_pb
from protocol.errors import ProtocolViolation
from protocol.messages import SumHead, check_id

__all__ = ["FinishedSum", "SumFiles"]

logger = logging.getLogger(__name__)

_MAGIC = b"crossbank sums 2\n"
#: Bytes that follow, and their CRC-32. What comes after those is of an earlier sum.
_HEAD = struct.Struct(">QI")
_LENGTH = struct.Struct(">I")
_PROBE_BYTES = 512 * 1024
#: Without the time of the last change, where a system can.
_sync = getattr(os, "fdatasync", os.fsync)


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedSum:
    """One step's answer: its head (attempt and statements), the summed ciphertexts, the vector's length."""

    head: SumHead
    chunks: tuple[bytes, ...]
    length: int


@dataclass(slots=True)
class _Shelf:
    """The files of one run: which holds which step, which may be written again, and how many there are."""

    of_step: dict[str, Path] = field(default_factory=dict)
    free: list[Path] = field(default_factory=list)
    made: int = 0


class SumFiles:
    """A folder of finished sums, one folder a run. Safe to use by many threads, each at another run or step."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._shelves: dict[str, _Shelf] = {}

    def save(self, run_id: str, step: str, finished: FinishedSum) -> None:
        """Write a step's answer durably.

        Raises:
            OSError: the disk refuses; the sum must not be given out.
        """
        parts = [step.encode(), _LENGTH.pack(finished.length), head_to_pb(finished.head).SerializeToString()]
        body = [piece for part in (*parts, *finished.chunks) for piece in (_LENGTH.pack(len(part)), part)]
        check = 0
        for piece in body:
            check = zlib.crc32(piece, check)
        with self._lock:
            shelf = self._shelf(run_id)
            path = shelf.of_step.pop(step, None) or (shelf.free.pop() if shelf.free else None)
            if path is None:
                path = self._folder / run_id / f"{shelf.made}.sums"
                shelf.made += 1
        try:
            _write(path, [_MAGIC, _HEAD.pack(sum(map(len, body)), check), *body])
        except OSError:
            with self._lock:
                shelf.free.append(path)
            raise
        with self._lock:
            shelf.of_step[step] = path

    def writable(self) -> bool:
        """Whether the disk takes a sum of a few chunks; it is removed again."""
        path = self._folder / "probe"
        try:
            _write(path, [bytes(_PROBE_BYTES)])
            path.unlink()
        except OSError:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            return False
        return True

    def load(self, run_id: str, step: str) -> FinishedSum | None:
        """A step's answer, or None if there is none, or its file is damaged."""
        with self._lock:
            path = self._shelf(run_id).of_step.get(step)
        found = None if path is None else _read(path)
        return found[1] if found is not None and found[0] == step else None

    def forget(self, run_id: str, steps: list[str], *, erase: bool = False) -> None:
        """Give up answers that nobody can ask for any more: their files are written again, or removed at once."""
        with self._lock:
            shelf = self._shelf(run_id)
            paths = [path for path in (shelf.of_step.pop(step, None) for step in steps) if path is not None]
            if not erase:
                shelf.free += paths
        if erase:
            for path in paths:
                try:
                    path.unlink(missing_ok=True)
                except OSError as error:
                    # The store says that they are void, so they are never given out.
                    logger.error("a void sum of run %s can't be removed: %s", run_id, error.strerror)

    def steps(self, run_id: str) -> list[str]:
        """The steps of a run that have an answer."""
        with self._lock:
            return sorted(self._shelf(run_id).of_step)

    def forget_run(self, run_id: str) -> None:
        """Remove a run's folder."""
        with self._lock:
            self._shelves.pop(run_id, None)
        shutil.rmtree(self._folder / check_id("run id", run_id), ignore_errors=True)

    def _shelf(self, run_id: str) -> _Shelf:
        """The run's files; after a restart of the node, as they are found. Call it with the lock."""
        known = self._shelves.get(run_id)
        if known is not None:
            return known
        folder, shelf = self._folder / check_id("run id", run_id), _Shelf()
        attempts: dict[str, int] = {}
        for path in sorted(folder.glob("*.sums")):
            found = _read(path)
            if path.stem.isdigit():
                shelf.made = max(shelf.made, int(path.stem) + 1)
            # Of a step that was repeated with fewer banks the newest attempt counts.
            if found is None or attempts.get(found[0], 0) > found[1].head.attempt:
                shelf.free.append(path)
                continue
            step, finished = found
            if step in shelf.of_step:
                shelf.free.append(shelf.of_step[step])
            shelf.of_step[step], attempts[step] = path, finished.head.attempt
        return self._shelves.setdefault(run_id, shelf)


def _write(path: Path, pieces: list[bytes]) -> None:
    try:
        number = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        number = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    # Not cut to length: a file that keeps its size costs the disk one write.
    with open(number, "wb") as file:
        file.writelines(pieces)
        file.flush()
        _sync(number)


def _read(path: Path) -> tuple[str, FinishedSum] | None:
    """A file's step and answer; None if it has none, or is damaged."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    place = len(_MAGIC) + _HEAD.size
    if not data.startswith(_MAGIC) or len(data) < place:
        return None
    size, check = _HEAD.unpack_from(data, len(_MAGIC))
    body = memoryview(data)[place : place + size]
    if len(body) != size or zlib.crc32(body) != check:
        return None
    parts, place = [], 0
    while place + _LENGTH.size <= size:
        (length,) = _LENGTH.unpack_from(body, place)
        place += _LENGTH.size
        parts.append(bytes(body[place : place + length]))
        place += length
    if place != size or len(parts) < 4:
        return None
    try:
        finished = FinishedSum(
            head=head_from_pb(pb.SumHead.FromString(parts[2])),
            chunks=tuple(parts[3:]),
            length=_LENGTH.unpack(parts[1])[0],
        )
        return parts[0].decode(), finished
    except (DecodeError, ProtocolViolation, ValueError, struct.error):
        return None
