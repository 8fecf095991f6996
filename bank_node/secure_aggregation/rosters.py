"""Which rosters a bank goes on with: they hold us, keep the minimum, and only shrink. Pure: no network, no files.

Two sums of one step over rosters that differ by a bank would show that bank's numbers (a difference attack), so what a
bank has once seen of a run's rosters binds what it accepts later. See docs/protocol.md.
"""

from collections.abc import Mapping

from bank_node.secure_aggregation.agreed_state import Roster
from protocol.errors import ProtocolViolation, RunAborted
from protocol.messages import RunView

__all__ = ["checked_roster"]


def checked_roster(view: RunView, bank: str, minimum: int, known: Mapping[int, tuple[str, ...]]) -> Roster:
    """The roster that the aggregator tells of, if we may go on with it.

    Args:
        view: what the aggregator says of the run.
        bank: our id.
        minimum: the fewest banks that we accept; a run that was opened for one bank alone needs no more.
        known: the rosters that we have taken in this run, by attempt.

    Raises:
        RunAborted: we were dropped.
        ProtocolViolation: the roster is too small, grew, differs from what it was, or its attempt was counted wrongly.
    """
    run_id, members = view.run_id, tuple(sorted(view.members))
    if bank not in members:
        raise RunAborted(f"run {run_id} went on without bank {bank}: it withdrew, or did not answer in time")
    alone = len(view.settings.roster) == 1
    if len(members) < max(view.settings.minimum_roster, 1 if alone else minimum):
        raise ProtocolViolation(f"run {run_id} has {len(members)} banks left, too few to go on")
    before = known.get(view.attempt)
    if before is not None and before != members:
        raise ProtocolViolation(f"run {run_id}: another roster for attempt {view.attempt} than before")
    if known and before is None:
        last = max(known)
        if view.attempt < last or not set(members) < set(known[last]):
            raise ProtocolViolation(f"run {run_id}: a roster can only shrink, from one attempt to the next")
    return Roster(attempt=view.attempt, members=members)
