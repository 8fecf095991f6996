"""The error families every part shares: our fault (`LocalError`) or theirs (`RemoteError`). No handling here."""

from typing import ClassVar

__all__ = [
    "AccessRefused",
    "AggregatorFailed",
    "AggregatorUnreachable",
    "AlreadyRunning",
    "ConfigError",
    "CrossbankError",
    "DamagedRunFiles",
    "Equivocation",
    "FieldOverflow",
    "LocalError",
    "NodeNotReady",
    "NothingToLearn",
    "OutOfOrder",
    "ParameterError",
    "PlanError",
    "ProtocolViolation",
    "QualityGateClosed",
    "RemoteError",
    "RosterChanged",
    "RunAborted",
    "StorageFull",
    "SubmissionRefused",
    "TamperedSum",
]


class CrossbankError(Exception):
    """Root of all errors that Crossbank raises on purpose; the text never holds data values or secrets.

    Attributes:
        passing: whether doing the same again later may work without anybody mending anything.
    """

    passing: ClassVar[bool] = False


class LocalError(CrossbankError):
    """Our side is at fault: configuration, files, or a call that the protocol forbids. Fix it and call again.

    Attributes:
        told: what the consortium may know of it, when a bank leaves a run by it: no path, no count, no column.
        leaves: whether a bank that meets it in a run can't go on with that run.
    """

    told: ClassVar[str] = "an error on its own side"
    leaves: ClassVar[bool] = True


class QualityGateClosed(LocalError):
    """The bank's feed breaks the contract's quality rules, so the bank does not join. Mend the feed."""

    leaves = False  # the gate has said so itself, with the rules' names


class AlreadyRunning(LocalError):
    """Another process of ours does this already. Wait for it to end; calling again later is safe."""

    passing = True
    leaves = False


class OutOfOrder(LocalError):
    """A step comes before the one that it builds on; the text says which to run first."""

    leaves = False


class StorageFull(LocalError):
    """There is no room left on a disk of ours. Free some and call again: it goes on where it was, to the same bytes."""

    told = "its disk is full"
    passing = True
    leaves = False


class DamagedRunFiles(LocalError):
    """Our files of a run are damaged: what we have sent and agreed is not known any more. Wait for the next run."""

    told = "its files of the run are damaged"


class NothingToLearn(LocalError):
    """We have no labelled row for a run's dates. Look at labels and dates; the run goes on without us."""

    told = "it has no labelled rows for the run's dates"


class ConfigError(LocalError):
    """A configuration file or option is wrong; the text names the file and the key. Mend it and call again."""

    told = "its configuration is wrong"


class PlanError(LocalError):
    """A run's plan or training parameters are wrong; the text names the key and what it may be. Mend it, open anew."""

    told = "it can't do what the run's plan asks"


class NodeNotReady(LocalError):
    """The node can't keep what it would have to tell: its store fails. Nothing was changed; trying again is safe."""

    passing = True


class ParameterError(PlanError, ValueError):
    """A training parameter is unknown or outside its range; correct the parameters, or the file they come from."""


class FieldOverflow(LocalError):
    """A number is outside the bound announced for a secure sum; nothing was sent. End the run and report it."""


class RemoteError(CrossbankError):
    """The other side is at fault, or can't be reached; the text names run, step and bank. Ask the operator."""


class AggregatorUnreachable(RemoteError):
    """No answer from the aggregator before the deadline. Retrying is safe."""

    passing = True


class AggregatorFailed(RemoteError):
    """The aggregator had an error that it did not foresee; its log says more. A later try may work."""

    passing = True


class AccessRefused(RemoteError):
    """The aggregator does not take our certificate, or does not let our role do this. Look at the certificate."""


class ProtocolViolation(RemoteError):
    """A peer sent what the protocol does not allow; nothing of it was used. Keep the ledger, and ask who it was."""


class SubmissionRefused(RemoteError):
    """The aggregator refused a message; the text gives its reason. Mend that: repeating the message won't help."""


class Equivocation(ProtocolViolation):
    """Banks of one run hold different things to be true: somebody was told another thing. The run must be aborted."""


class RosterChanged(RemoteError):
    """A bank was dropped, so the round under way is void. Read the run again and repeat the round."""

    passing = True


class TamperedSum(ProtocolViolation):
    """A secure sum came back that is not the sum of the roster's vectors. The run must be aborted."""


class RunAborted(RemoteError):
    """The run has ended in ABORTED; the text gives run and reason. A new run is needed."""
