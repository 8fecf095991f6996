"""The run's state machine as one literal table. Pure: no clock, no store, no I/O."""

import enum
from typing import Final

from protocol.errors import ProtocolViolation

__all__ = ["TERMINAL", "TRANSITIONS", "Phase", "RunEventKind", "next_phase"]


class Phase(enum.StrEnum):
    """Where a run stands."""

    #: Settings are being written. Entered by: nothing (a run's first state). Not terminal.
    DRAFT = "DRAFT"
    #: Banks of the roster may join. Entered by: opened. Not terminal.
    ENROLLING = "ENROLLING"
    #: Members publish signed keys; one seals the HE key to each. Entered by: roster complete, or enough
    #: of it when the time to join is over. Not terminal.
    KEYING = "KEYING"
    #: Global quantile bins by secure sum. Entered by: all members hold the keys. Not terminal.
    BINNING = "BINNING"
    #: Boosting rounds. Entered by: all members report the same bins. Not terminal.
    TRAINING = "TRAINING"
    #: Evaluation curves by secure sum. Entered by: all members report the same model. Not terminal.
    EVALUATING = "EVALUATING"
    #: Every member votes on the model. Entered by: all members report the same evaluation. Not terminal.
    VOTING = "VOTING"
    #: The model may be used. Entered by: all voted yes for the same digest. Terminal.
    RELEASED = "RELEASED"
    #: The run ended without a model. Entered by: abort, refusal or deadline, from any state. Terminal.
    ABORTED = "ABORTED"


class RunEventKind(enum.StrEnum):
    """What moves a run."""

    OPENED = "opened"
    ROSTER_COMPLETE = "roster complete"
    PHASE_AGREED = "phase agreed"
    ABORT = "abort"


#: The whole machine. An absent entry is a protocol error and changes nothing.
TRANSITIONS: Final[dict[tuple[Phase, RunEventKind], Phase]] = {
    (Phase.DRAFT, RunEventKind.OPENED): Phase.ENROLLING,
    (Phase.ENROLLING, RunEventKind.ROSTER_COMPLETE): Phase.KEYING,
    (Phase.KEYING, RunEventKind.PHASE_AGREED): Phase.BINNING,
    (Phase.BINNING, RunEventKind.PHASE_AGREED): Phase.TRAINING,
    (Phase.TRAINING, RunEventKind.PHASE_AGREED): Phase.EVALUATING,
    (Phase.EVALUATING, RunEventKind.PHASE_AGREED): Phase.VOTING,
    (Phase.VOTING, RunEventKind.PHASE_AGREED): Phase.RELEASED,
    (Phase.DRAFT, RunEventKind.ABORT): Phase.ABORTED,
    (Phase.ENROLLING, RunEventKind.ABORT): Phase.ABORTED,
    (Phase.KEYING, RunEventKind.ABORT): Phase.ABORTED,
    (Phase.BINNING, RunEventKind.ABORT): Phase.ABORTED,
    (Phase.TRAINING, RunEventKind.ABORT): Phase.ABORTED,
    (Phase.EVALUATING, RunEventKind.ABORT): Phase.ABORTED,
    (Phase.VOTING, RunEventKind.ABORT): Phase.ABORTED,
}

TERMINAL: Final = frozenset({Phase.RELEASED, Phase.ABORTED})


def next_phase(phase: Phase, event: RunEventKind) -> Phase:
    """The phase that follows.

    Raises:
        ProtocolViolation: the table has no such move; the run stays as it is.
    """
    try:
        return TRANSITIONS[phase, event]
    except KeyError:
        raise ProtocolViolation(f"a run in {phase} can't take '{event}'") from None
