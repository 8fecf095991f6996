"""Checks that all banks of a run hold the same to be true, from what they signed. Pure: no network, no files.

The aggregator relays statements and reports but can't make them: each is signed by a bank's run key (Ed25519), which
the bank's certified key has signed. See docs/protocol.md, section 7.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from protocol.errors import Equivocation, ProtocolViolation
from protocol.messages import PhaseReport, StepHeader, SumHead
from protocol.statements import report_bytes, statement_bytes

__all__ = ["check_reports", "check_statements", "reports_record"]

RunKeys = Mapping[str, Ed25519PublicKey]


def _signed(keys: RunKeys, bank: str, signature: bytes, message: bytes, where: str) -> None:
    try:
        keys[bank].verify(signature, message)
    except (KeyError, InvalidSignature) as error:
        raise ProtocolViolation(f"{where}: what is said to come from bank {bank} is not signed by it") from error


def check_statements(ours: StepHeader, head: SumHead, members: Sequence[str], keys: RunKeys) -> None:
    """Check what every member stated with its upload for one step.

    Args:
        ours: our own header for the step, with the attempt the sum was made by; our signature in it is trusted.
        head: what the aggregator relays before the sums.
        members: the roster of that attempt.
        keys: each member's run key.

    Raises:
        ProtocolViolation: a statement is missing, too many, or not signed by its bank.
        Equivocation: a bank signed another state or roster: not all were told the same.
    """
    where = f"run {ours.run_id}, step {ours.step}"
    if sorted(s.bank for s in head.statements) != sorted(members):
        raise ProtocolViolation(f"{where}: statements of other banks than the roster's came back")
    for statement in head.statements:
        if (statement.bank, statement.state, statement.signature) == (ours.bank, ours.state, ours.signature):
            continue  # what we signed ourselves, to the byte
        theirs = replace(ours, bank=statement.bank, state=statement.state, signature=statement.signature)
        _signed(keys, statement.bank, statement.signature, statement_bytes(theirs), where)
    other = sorted(s.bank for s in head.statements if s.state != ours.state)
    if other:
        raise Equivocation(f"{where}: not the same is true at bank {ours.bank} and at {', '.join(other)}")


def check_reports(ours: PhaseReport, given: Sequence[PhaseReport], members: Sequence[str], keys: RunKeys) -> None:
    """Check that every member ended a phase alike.

    Raises:
        ProtocolViolation: a report is missing or not signed by its bank.
        Equivocation: a bank reported something else than we did.
    """
    where = f"run {ours.run_id}, {ours.phase}"
    found = {report.bank: report for report in given if report.bank in set(members)}
    if set(found) != set(members):
        missing = ", ".join(sorted(set(members) - set(found)))
        raise ProtocolViolation(f"{where}: the run went on without a report of {missing}")
    for bank, report in sorted(found.items()):
        if (report.run_id, report.phase) != (ours.run_id, ours.phase):
            raise ProtocolViolation(f"{where}: a report of bank {bank} on something else came back")
        _signed(keys, bank, report.signature, report_bytes(report), where)
    other = [
        bank
        for bank, report in sorted(found.items())
        if (report.digest, report.accept, report.attempt, report.roster_digest, report.state)
        != (ours.digest, ours.accept, ours.attempt, ours.roster_digest, ours.state)
    ]
    if other:
        raise Equivocation(f"{where}: bank {ours.bank} and {', '.join(other)} ended it differently")


def reports_record(given: Sequence[PhaseReport], members: Sequence[str]) -> list[dict[str, Any]]:
    """The members' checked reports as the ledger keeps them."""
    return [
        {
            "bank": report.bank,
            "digest": report.digest,
            "accept": report.accept,
            "metrics": report.metrics_json,
            "attempt": report.attempt,
            "state": report.state.hex(),
            "signature": report.signature.hex(),
            "audit": [report.audit_records, report.audit_digest],
        }
        for report in given
        if report.bank in members
    ]
