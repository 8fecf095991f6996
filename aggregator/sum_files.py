"""Finished sums on disk, so that a node that was killed can answer for them. Ciphertexts and signed statements only.

A step's file is written whole, fsynced and renamed before any bank sees the sum: what one bank was told, all can be.
"""

import os
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path

from protocol import crossbank_pb2 as pb
from protocol.codec import head_from_pb, head_to_pb
from protocol.errors import LocalError
from protocol.messages import SumHead, check_id

__all__ = ["FinishedSum", "SumFiles"]

_MAGIC = b"crossbank sums 1\n"
_LENGTH = struct.Struct(">I")


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedSum:
    """One step's answer: its head (attempt and statements), the summed ciphertexts, the vector's length."""

    head: SumHead
    chunks: tuple[bytes, ...]
    length: int


class SumFiles:
    """A folder of finished sums, one folder a run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def save(self, run_id: str, step: str, finished: FinishedSum) -> None:
        """Write a step's answer durably.

        Raises:
            LocalError: the disk refuses; the sum must not be given out.
        """
        path = self._path(run_id, step)
        part = path.with_suffix(".part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with part.open("wb") as file:
                file.write(_MAGIC)
                for body in (
                    _LENGTH.pack(finished.length),
                    head_to_pb(finished.head).SerializeToString(),
                    *finished.chunks,
                ):
                    file.write(_LENGTH.pack(len(body)))
                    file.write(body)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        except OSError as error:
            raise LocalError(f"run {run_id}, step {step}: the sum can't be kept: {error.strerror}") from error

    def load(self, run_id: str, step: str) -> FinishedSum | None:
        """A step's answer, or None if there is none, or its file is damaged."""
        try:
            data = self._path(run_id, step).read_bytes()
        except OSError:
            return None
        if not data.startswith(_MAGIC):
            return None
        bodies, place = [], len(_MAGIC)
        while place + _LENGTH.size <= len(data):
            (size,) = _LENGTH.unpack_from(data, place)
            place += _LENGTH.size
            bodies.append(data[place : place + size])
            place += size
        if place != len(data) or len(bodies) < 3:
            return None
        return FinishedSum(
            head=head_from_pb(pb.SumHead.FromString(bodies[1])),
            chunks=tuple(bodies[2:]),
            length=_LENGTH.unpack(bodies[0])[0],
        )

    def forget(self, run_id: str, steps: list[str]) -> None:
        """Remove answers that nobody can ask for any more."""
        for step in steps:
            self._path(run_id, step).unlink(missing_ok=True)

    def steps(self, run_id: str) -> list[str]:
        """The steps of a run that have an answer."""
        folder = self._folder / check_id("run id", run_id)
        return sorted(path.stem.replace("-", "/") for path in folder.glob("*.sums"))

    def forget_run(self, run_id: str) -> None:
        """Remove a run's folder."""
        shutil.rmtree(self._folder / check_id("run id", run_id), ignore_errors=True)

    def _path(self, run_id: str, step: str) -> Path:
        # Step names are [a-z0-9/] by `StepHeader`'s check, run ids have no slash.
        return self._folder / check_id("run id", run_id) / f"{step.replace('/', '-')}.sums"
