"""A bank's own record of a run: what it answered, what it took as true, who said so. Append-only JSON lines.

It serves three ends: a bank that starts again goes on where it was; a bank never answers one step twice in a way that
shows the difference; `bank-node verify` can check the run afterwards. It holds digests, never numbers or secrets.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from protocol.errors import DamagedRunFiles, LocalError, ProtocolViolation
from protocol.steps import Point

__all__ = ["Anchor", "Ledger", "read_records"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """A place that a run can be taken up from: everything before it is agreed. `state` is hexadecimal."""

    name: str
    state: str
    digest: str


@dataclass(frozen=True, slots=True)
class _Answered:
    attempt: int
    members: frozenset[str]
    vector: str


def read_records(path: Path) -> list[dict[str, Any]]:
    """All whole records of a ledger; a last one torn by a crash is left out.

    Raises:
        LocalError: the ledger is damaged; names file and line.
    """
    if not path.exists():
        return []
    records = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
        try:
            record = json.loads(line)
            if not isinstance(record, dict) or "kind" not in record:
                raise ValueError("no record")
        except ValueError as error:
            raise DamagedRunFiles(
                f"ledger {path}, line {number} is damaged; the bank can't go on with this run"
            ) from error
        records.append(record)
    return records


class Ledger:
    """The ledger of one run, open for appending."""

    def __init__(self, path: Path) -> None:
        """Open it, or begin it."""
        self.path = path
        self.anchors: list[Anchor] = []
        self.rosters: dict[int, tuple[str, ...]] = {}
        self.reported: set[str] = set()
        self.peers: list[dict[str, Any]] = []
        self._answered: dict[str, _Answered] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        records = read_records(path)
        whole = path.read_bytes().rfind(b"\n") + 1 if path.exists() else 0
        self._file = path.open("ab")
        self._file.truncate(whole)
        # A process that crashed may have left records that only the system's memory holds.
        self._unsettled = bool(records)
        for record in records:
            self._replay(record)

    def _replay(self, record: dict[str, Any]) -> None:
        kind = record["kind"]
        if kind == "peers":
            self.peers = record["peers"]
        elif kind == "roster":
            self.rosters[record["attempt"]] = tuple(record["members"])
        elif kind == "answer":
            members = frozenset(self.rosters[record["attempt"]])
            self._answered[record["step"]] = _Answered(record["attempt"], members, record["vector"])
        elif kind == "anchor":
            if record["name"] == Point.keys().text:
                self.anchors.clear()
            self.anchors.append(Anchor(name=record["name"], state=record["state"], digest=record["digest"]))
        elif kind == "report":
            self.reported.add(record["phase"])
        elif kind == "rewind":
            self._cut(record["to"])

    def _cut(self, name: str) -> Anchor:
        for place, anchor in enumerate(self.anchors):
            if anchor.name == name:
                del self.anchors[place + 1 :]
                return anchor
        raise LocalError(f"ledger {self.path} has no point '{name}' to go on from")

    @property
    def attempt(self) -> int:
        """The newest attempt whose roster we took."""
        return max(self.rosters, default=0)

    def note(self, kind: str, *, durable: bool = False, **fields: Any) -> None:
        """Append a record; a durable one is on disk when this returns."""
        record = {"kind": kind} | fields
        self._file.write(json.dumps(record, sort_keys=True).encode() + b"\n")
        self._file.flush()
        if durable:
            os.fsync(self._file.fileno())
        self._replay(record)

    def bind(self, step: str, attempt: int, vector: str) -> Callable[[], None]:
        """Bind ourselves to one answer to a step: no ciphertext of it may leave before the returned call has ended.

        The returned call puts the record on the disk, unless it is there.

        Args:
            step: the step's name.
            attempt: whose roster (noted before) we add with.
            vector: a digest of our numbers.

        Raises:
            LocalError: we sent other numbers for this very attempt: under the same masks, their difference would show.
            ProtocolViolation: we answered before, and are now asked to with a roster that is not a part of that one:
                the difference of the two sums would show single banks.
        """
        members = frozenset(self.rosters[attempt])
        known = self._answered.get(step)
        if known is not None and known.attempt == attempt:
            if known.vector != vector:
                raise LocalError(
                    f"step {step}: this bank has already sent other numbers for this step; "
                    "its rows or settings changed during the run. End the run and open a new one"
                )
            return self._settled
        if known is not None and (attempt < known.attempt or not members <= known.members):
            raise ProtocolViolation(f"step {step}: asked to answer again with a larger or different roster")
        self.note("answer", step=step, attempt=attempt, vector=vector)
        self._unsettled = True
        return self._settled

    def _settled(self) -> None:
        if self._unsettled:
            os.fsync(self._file.fileno())
            self._unsettled = False

    def rewind(self, name: str) -> Anchor:
        """Go back to an anchor; those after it are void."""
        if self.anchors and self.anchors[-1].name == name:
            return self.anchors[-1]
        anchor = next((a for a in self.anchors if a.name == name), None)
        if anchor is None:
            raise LocalError(f"ledger {self.path} has no point '{name}' to go on from")
        self.note("rewind", durable=True, to=name)
        return anchor

    def close(self) -> None:
        """Close the file."""
        self._file.close()
