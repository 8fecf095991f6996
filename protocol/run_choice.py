"""Which run a bank takes up: one rule for its commands and its DAGs. Pure: it asks nobody and joins nothing."""

from collections.abc import Iterable

from protocol.messages import RunView
from protocol.run_state import TERMINAL, Phase

__all__ = ["run_for_bank"]


def run_for_bank(views: Iterable[RunView], bank: str) -> RunView | None:
    """The run that a bank should work on, or None.

    A run that the bank is a member of and that has not ended comes first, the newest of them: a task that was cleared,
    or whose worker died, takes up its own run, whatever has been opened meanwhile. Then the newest run that waits for
    the bank to join. A run that went on without the bank, after it was dropped, is none of its runs.
    """
    newest = sorted(views, key=lambda view: view.created_at, reverse=True)
    own = (view for view in newest if bank in view.members and view.phase not in TERMINAL)
    open_to_it = (view for view in newest if view.phase == Phase.ENROLLING and bank in view.roster)
    return next(own, None) or next(open_to_it, None)
