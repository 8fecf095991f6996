"""The names inside a run: of its secure sums (`Step`) and of the points that are agreed (`Point`). It sums nothing.

On the wire both are text; here is the one place that makes and reads it. See docs/protocol.md, sections 7 and 10.
"""

import re
from dataclasses import dataclass
from typing import Final

from protocol.errors import ProtocolViolation
from protocol.limits import MAX_ID_CHARS
from protocol.run_state import Phase

__all__ = ["STEP_PHASES", "Point", "Step"]

#: The phases that have secure sums, in a run's order, and how their steps' names begin.
STEP_PHASES: Final[dict[Phase, str]] = {Phase.BINNING: "bins", Phase.TRAINING: "train", Phase.EVALUATING: "eval"}

_PHASE_OF: Final = {prefix: phase for phase, prefix in STEP_PHASES.items()}
_RANK_OF: Final = {phase: rank for rank, phase in enumerate(STEP_PHASES)}
#: A number is written in one way only, so that equal steps have equal text.
_NUMBER: Final = r"0|[1-9][0-9]{0,8}"
_STEP: Final = re.compile(rf"({'|'.join(_PHASE_OF)})/({_NUMBER})/({_NUMBER}|[a-z]+)\Z")
_WORD: Final = re.compile(rf"(?:{_NUMBER}|[a-z]+)\Z")
_LARGEST: Final = 10**9 - 1
_ONCE: Final = frozenset({"keys", "bins", "model", "eval"})
_NUMBERED: Final = frozenset({"shared", "train", "score"})
_NO_POINT: Final = "a point of a run must be keys, shared/n, bins, train/n, score/n, model or eval"


@dataclass(frozen=True, slots=True)
class Step:
    """One secure sum of a run.

    Attributes:
        phase: the phase it belongs to, one of `STEP_PHASES`.
        unit: what is repeated as a whole when a bank drops out: the boosting round in TRAINING, from 0.
        word: which of the unit's sums: a number from 0, or what it is about, such as ``leaves``.
    """

    phase: Phase
    unit: int
    word: str

    def __post_init__(self) -> None:
        if self.phase not in STEP_PHASES:
            raise ProtocolViolation(f"there are no secure sums in {self.phase}")
        if not 0 <= self.unit <= _LARGEST or not _WORD.match(self.word) or len(self.text) > MAX_ID_CHARS:
            raise ProtocolViolation("a step's unit must be a number from 0, its word lower-case letters or a number")

    @classmethod
    def bins(cls, unit: int, word: str | int) -> "Step":
        """A step of BINNING."""
        return cls(Phase.BINNING, unit, str(word))

    @classmethod
    def train(cls, round_index: int, word: str | int) -> "Step":
        """A step of a boosting round, from 0."""
        return cls(Phase.TRAINING, round_index, str(word))

    @classmethod
    def evaluation(cls, unit: int = 0, word: str | int = 0) -> "Step":
        """A step of EVALUATING."""
        return cls(Phase.EVALUATING, unit, str(word))

    @classmethod
    def parse(cls, text: str) -> "Step":
        """Read the text of a step.

        Raises:
            ProtocolViolation: it is none; the text is not repeated, since a peer may have made it.
        """
        found = _STEP.match(text) if len(text) <= MAX_ID_CHARS else None
        if found is None:
            raise ProtocolViolation("a step must look like bins/0/0, train/round/index or eval/0/0")
        return cls(_PHASE_OF[found[1]], int(found[2]), found[3])

    @property
    def text(self) -> str:
        """The name on the wire, which signatures, masks and MACs are bound to."""
        return f"{self.unit_text}/{self.word}"

    @property
    def unit_text(self) -> str:
        """The name of the step's unit."""
        return f"{STEP_PHASES[self.phase]}/{self.unit}"

    @property
    def rank(self) -> tuple[int, int]:
        """Where the step's unit comes in a run: by phase, then by number. Steps of one unit rank alike."""
        return _RANK_OF[self.phase], self.unit

    def later(self, rounds: int) -> "Step":
        """The same step so many boosting rounds later; steps of other phases have no rounds and stay as they are."""
        return Step.train(self.unit + rounds, self.word) if self.phase is Phase.TRAINING else self

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Point:
    """A point of a run up to which all banks agree: what comes after it can be repeated.

    Attributes:
        kind: what was agreed last: ``keys``, ``shared`` (tables of shared risk), ``bins``, ``train`` (a tree),
            ``score`` (of a parameter set), ``model`` or ``eval`` (its evaluation).
        number: how many tables' batches, trees or scores; None for the kinds that come once.
    """

    kind: str
    number: int | None = None

    def __post_init__(self) -> None:
        numbered = self.kind in _NUMBERED
        if not (numbered or self.kind in _ONCE) or numbered is (self.number is None):
            raise ProtocolViolation(_NO_POINT)
        if self.number is not None and not 0 <= self.number <= _LARGEST:
            raise ProtocolViolation(f"{self.kind}/{self.number} is out of range")

    @classmethod
    def keys(cls) -> "Point":
        """The run's keys are agreed."""
        return cls("keys")

    @classmethod
    def shared(cls, batches: int) -> "Point":
        """The plan of the exchange of shared risk (0), or so many batches of tables, are agreed."""
        return cls("shared", batches)

    @classmethod
    def trees(cls, number: int) -> "Point":
        """So many trees are agreed; before the first, the bins are."""
        return cls("train", number) if number else cls("bins")

    @classmethod
    def scores(cls, number: int) -> "Point":
        """So many scores of a search are agreed; before the first, the bins are."""
        return cls("score", number) if number else cls("bins")

    @classmethod
    def model(cls) -> "Point":
        """The whole model is agreed."""
        return cls("model")

    @classmethod
    def evaluation(cls) -> "Point":
        """The model's evaluation is agreed."""
        return cls("eval")

    @classmethod
    def parse(cls, text: str) -> "Point":
        """Read a point's text.

        Raises:
            ProtocolViolation: it is none.
        """
        kind, slash, number = text.partition("/")
        if slash and not re.fullmatch(_NUMBER, number):
            raise ProtocolViolation(_NO_POINT)
        return cls(kind, int(number) if slash else None)

    @property
    def text(self) -> str:
        """The name as it goes into the banks' running state and a ledger."""
        return self.kind if self.number is None else f"{self.kind}/{self.number}"

    def later(self, trees: int) -> "Point":
        """The same point so many trees later; points that count no trees stay as they are."""
        return Point("train", self.number + trees) if self.kind == "train" and self.number is not None else self

    def __str__(self) -> str:
        return self.text
