"""The table of errors and statuses: total both ways, and what is read back is what was written, or a refusal of it."""

import importlib
import pkgutil
from collections.abc import Iterator

import grpc
import pytest

import aggregator
import bank_node
import protocol
from protocol.errors import (
    AggregatorUnreachable,
    CrossbankError,
    LocalError,
    PlanError,
    ProtocolViolation,
    RemoteError,
    SubmissionRefused,
)
from protocol.status import INTERNAL_ERROR, TABLE, error_of, error_of_call, status_of

ADDRESS = "node.example.org:7443"
STATUSES = [status for status in grpc.StatusCode if status is not grpc.StatusCode.OK]


def _classes(root: type[CrossbankError]) -> Iterator[type[CrossbankError]]:
    yield root
    for child in root.__subclasses__():
        yield from _classes(child)


for package in (protocol, bank_node, aggregator):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
ERRORS = sorted(set(_classes(CrossbankError)), key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", ERRORS)
def test_every_error_has_a_status_that_reads_as_the_same_family(kind: type[CrossbankError]) -> None:
    status, text = status_of(kind("run r, step s: why"))
    read = error_of(status, text, ADDRESS)
    if kind in (CrossbankError, RemoteError):
        assert text == INTERNAL_ERROR
    elif issubclass(kind, (ProtocolViolation, PlanError)):
        assert type(read) is SubmissionRefused and str(read) == "run r, step s: why"
    elif issubclass(kind, LocalError):
        # The node's own fault: the caller may try again, and is told what it was.
        assert type(read) is AggregatorUnreachable and "run r, step s: why" in str(read)
    else:
        assert type(read) is next(row.error for row in TABLE if issubclass(kind, row.error))
        assert read.passing is kind.passing
        assert text == INTERNAL_ERROR or "run r, step s: why" in str(read)


@pytest.mark.parametrize("status", STATUSES)
def test_every_status_is_an_error_of_theirs_that_tells_what_was_said(status: grpc.StatusCode) -> None:
    assert sum(status in (row.writes, *row.reads) for row in TABLE) >= 1
    read = error_of(status, "why not", ADDRESS)
    assert isinstance(read, RemoteError) and "why not" in str(read)


def test_a_connection_that_breaks_is_no_error_of_the_nodes() -> None:
    assert type(error_of(grpc.StatusCode.INTERNAL, "RST_STREAM", ADDRESS)) is AggregatorUnreachable
    assert type(error_of_call(grpc.RpcError(), ADDRESS)) is AggregatorUnreachable


def test_nothing_of_an_unforeseen_error_is_told() -> None:
    assert status_of(ValueError("a secret")) == (grpc.StatusCode.INTERNAL, INTERNAL_ERROR)


@pytest.mark.parametrize("name", ["RESOURCE_EXHAUSTED", "CANCELLED", "UNKNOWN", "UNAVAILABLE", "DEADLINE_EXCEEDED"])
def test_a_busy_node_and_a_lost_call_pass(name: str) -> None:
    assert error_of(grpc.StatusCode[name], "", ADDRESS).passing


@pytest.mark.parametrize("name", ["PERMISSION_DENIED", "UNAUTHENTICATED", "INVALID_ARGUMENT", "ABORTED"])
def test_a_refusal_does_not_pass(name: str) -> None:
    assert not error_of(grpc.StatusCode[name], "", ADDRESS).passing
