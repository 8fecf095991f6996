"""Errors as gRPC statuses: one table, by which the node writes and every client reads. It calls and retries nothing.

See docs/protocol.md, section 12, and `CrossbankError.passing` for what may be tried again.
"""

from dataclasses import dataclass
from typing import Final

import grpc

from protocol.errors import (
    AccessRefused,
    AggregatorFailed,
    AggregatorUnreachable,
    CrossbankError,
    LocalError,
    PlanError,
    ProtocolViolation,
    RemoteError,
    RosterChanged,
    RunAborted,
    SubmissionRefused,
)
from protocol.limits import MAX_DETAIL_CHARS

__all__ = ["INTERNAL_ERROR", "TABLE", "Row", "error_of", "error_of_call", "status_of"]

_Code = grpc.StatusCode

#: What a caller is told of an error that the node did not foresee; its log says more.
INTERNAL_ERROR: Final = "internal error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One error: the status that the node writes for it, and the others that a caller reads as it."""

    error: type[CrossbankError]
    writes: grpc.StatusCode
    reads: tuple[grpc.StatusCode, ...] = ()


#: Either way the first row that fits counts: by class when writing, by status when reading.
TABLE: Final[tuple[Row, ...]] = (
    Row(error=RunAborted, writes=_Code.ABORTED),
    Row(error=RosterChanged, writes=_Code.OUT_OF_RANGE),
    Row(error=SubmissionRefused, writes=_Code.FAILED_PRECONDITION, reads=(_Code.INVALID_ARGUMENT,)),
    Row(error=AccessRefused, writes=_Code.PERMISSION_DENIED, reads=(_Code.UNAUTHENTICATED,)),
    # Those that are only read are gRPC's own: of a lost connection, a full queue, a call that was ended.
    Row(
        error=AggregatorUnreachable,
        writes=_Code.UNAVAILABLE,
        reads=(
            _Code.DEADLINE_EXCEEDED,
            _Code.RESOURCE_EXHAUSTED,
            _Code.CANCELLED,
            _Code.UNKNOWN,
            _Code.DATA_LOSS,
        ),
    ),
    Row(error=AggregatorFailed, writes=_Code.INTERNAL),
    # What the caller sent is wrong: to the caller that is a refusal.
    Row(error=ProtocolViolation, writes=_Code.INVALID_ARGUMENT),
    Row(error=PlanError, writes=_Code.INVALID_ARGUMENT),
    # The node's own fault, such as a full disk: it passes when the node is mended.
    Row(error=LocalError, writes=_Code.UNAVAILABLE),
    # Behind the address is another service, or another version of ours.
    Row(
        error=RemoteError,
        writes=_Code.INTERNAL,
        reads=(_Code.UNIMPLEMENTED, _Code.NOT_FOUND, _Code.ALREADY_EXISTS),
    ),
)

#: What gRPC's words for a connection that failed mean: name, validity, trust, or the address.
_CAUSES: Final[tuple[tuple[str, str], ...]] = (
    ("Hostname Verification Check failed", "its certificate is not for this host name; the operator issues one for it"),
    ("is not in peer certificate", "its certificate is not for this host name; the operator issues one for it"),
    ("certificate is not yet valid", "its certificate is not valid yet by this machine's clock, which may be behind"),
    ("certificate has expired", "its certificate has run out by this machine's clock"),
    ("certificate signature failure", "its certificate is not signed by the CA certificate that we were given"),
    ("unable to get local issuer", "its certificate is of another CA than the one that we were given"),
    ("self signed certificate", "its certificate is of another CA than the one that we were given"),
    ("self-signed certificate", "its certificate is of another CA than the one that we were given"),
    ("Connection refused", "nothing listens there; check the address and that the node runs"),
    ("DNS resolution failed", "there is no such host; check the address"),
    (
        "Socket closed",
        "it closed the connection at once, as it does when it does not take our certificate: another CA's, or run out; "
        "its audit log says which",
    ),
)

#: Errors whose text is the node's own, since it names run, step and bank.
_TOLD: Final = frozenset({RunAborted, RosterChanged, SubmissionRefused})


def status_of(error: Exception) -> tuple[grpc.StatusCode, str]:
    """The status and the text that a call ends with; anything but our own errors tells nothing of itself."""
    status = next((row.writes for row in TABLE if isinstance(error, row.error)), _Code.INTERNAL)
    return status, INTERNAL_ERROR if status is _Code.INTERNAL else str(error)[:MAX_DETAIL_CHARS]


def error_of(status: grpc.StatusCode, details: str, address: str) -> CrossbankError:
    """The error that a status is to a caller, with a text that says what to do.

    Args:
        status: any but OK.
        details: the call's own text.
        address: ``host:port`` of the node.
    """
    kind = next((row.error for row in TABLE if status is row.writes or status in row.reads), RemoteError)
    if status is _Code.INTERNAL and details != INTERNAL_ERROR:
        # gRPC's own word for a broken stream.
        kind = AggregatorUnreachable
    if kind in _TOLD:
        return kind(details)
    said = f"{status.name}: {' '.join(details.split())[:MAX_DETAIL_CHARS]}".rstrip(": ")
    if status is _Code.RESOURCE_EXHAUSTED:
        return kind(f"the aggregator at {address} takes no more just now ({said})")
    cause = next((text for mark, text in _CAUSES if mark in details), "") if status is _Code.UNAVAILABLE else ""
    if cause:
        return kind(f"no connection to the aggregator at {address}: {cause} ({said})")
    if kind is AggregatorUnreachable and "the node can't keep its state" in details:
        return kind(f"the aggregator at {address} is not ready: {details[:MAX_DETAIL_CHARS]}")
    if kind is AggregatorUnreachable:
        return kind(
            f"the aggregator at {address} does not answer; check the address, that it runs, and the certificates "
            f"({said})"
        )
    return kind(f"the aggregator at {address} answered {said}")


def error_of_call(error: grpc.RpcError, address: str) -> CrossbankError:
    """As `error_of`, of a failed call, synchronous or not."""
    if not hasattr(error, "code"):
        return error_of(_Code.UNKNOWN, "", address)
    return error_of(error.code(), str(error.details() or ""), address)
