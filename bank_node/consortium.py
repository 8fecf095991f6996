"""The other banks, as training sees them: a secure sum, phase reports, and going on when one is dropped. Opens nothing.

`secure_aggregation.session.RunSession` is the real one; tests and the simulator's plain mode have others.
"""

from collections.abc import Callable
from typing import Protocol, TypeVar

from bank_node.dtypes import Integers
from protocol.errors import ProtocolViolation, RosterChanged
from protocol.limits import MAX_ATTEMPTS
from protocol.run_state import Phase

__all__ = ["Consortium", "Log", "SecureSum", "whatever_the_roster"]

SecureSum = Callable[[str, Integers], Integers]
"""Takes a step's name and our int64 (n,) vector; gives the exact int64 (n,) sum over all banks."""


Log = Callable[[str], None]


T = TypeVar("T")


class Consortium(Protocol):
    """What training needs of the other banks."""

    @property
    def bank(self) -> str:
        """Our id."""
        ...

    @property
    def members(self) -> tuple[str, ...]:
        """The banks that are in the run now, in an order that all have alike."""
        ...

    def secure_sum(self, step: str, vector: Integers, *, bound: int | None = None) -> Integers:
        """The exact sum over all banks; raises `RosterChanged` when a bank was dropped."""
        ...

    def commit(self, name: str, digest: str) -> None:
        """Note that everything up to here is agreed: a point to go on from."""
        ...

    def rewind(self, name: str) -> None:
        """Go back to such a point, to repeat what came after it."""
        ...

    def adopt_roster(self) -> None:
        """Take the smaller roster after a `RosterChanged`."""
        ...

    def report(self, phase: Phase, digest: str, *, metrics_json: str = "", detail: str = "") -> None:
        """Say that a phase ended with this digest; returns when all banks agree."""
        ...

    def reported(self, phase: Phase) -> bool:
        """Whether all banks have ended a phase alike."""
        ...


def whatever_the_roster(consortium: Consortium, work: Callable[[], T], log: Log) -> T:
    """Do `work`; when a bank is dropped meanwhile, again with the banks that are left.

    Raises:
        ProtocolViolation: that happened more often than a roster has banks to lose.
    """
    for _ in range(MAX_ATTEMPTS + 1):
        try:
            return work()
        except RosterChanged as change:
            log(f"{change}; repeating what was under way")
            consortium.adopt_roster()
    raise ProtocolViolation(f"the roster changed more than {MAX_ATTEMPTS} times while one thing was under way")
