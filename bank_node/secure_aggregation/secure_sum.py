"""One secure sum at one bank: lay out, mask, encrypt; check, decrypt, decode. It opens no connection.

Takes the agreed state whole, and reaches the aggregator through one callable that is given a header and ciphertexts and
gives back bytes. Whatever does not check out raises; who calls must then use nothing and end the run. See
docs/protocol.md.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bank_node.dtypes import Integers
from bank_node.secure_aggregation.agreed_state import AgreedState, Roster
from bank_node.secure_aggregation.consistency import check_statements
from bank_node.secure_aggregation.ledger import Ledger
from bank_node.secure_aggregation.mac import CheckKeys
from bank_node.secure_aggregation.sum_costs import SumCosts, Work
from protocol.errors import FieldOverflow, ProtocolViolation
from protocol.field import HALF, FieldVector, decode_signed, encode_signed
from protocol.layout import join_chunks, split_chunks
from protocol.masks import MaskStream, step_name
from protocol.messages import Chunk, StepHeader, SumHead

__all__ = ["Ask", "secure_sum"]

Ask = Callable[[StepHeader, Callable[[], Iterator[Chunk]]], tuple[SumHead, list[bytes]]]
"""Sends a header and ciphertexts, made afresh for each try, and gives what the aggregator answers: what the banks
stated, and the encrypted sums, one a chunk. Its bytes are trusted by nobody."""

#: Chunks masked at a time while they are being sent.
_BLOCK = 16


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Step:
    """Our part of a step, ready to leave."""

    header: StepHeader
    laid: FieldVector
    checks: CheckKeys


def secure_sum(
    agreed: AgreedState,
    step: str,
    vector: Integers,
    *,
    bound: int | None,
    ledger: Ledger,
    ask: Ask,
    costs: SumCosts,
) -> Integers:
    """The sum over the roster's banks of one int64 vector each.

    Args:
        agreed: what we hold after the key exchange; its chain moves on.
        step: name of the step, ``phase/round/index``.
        vector: shape (n,).
        bound: the largest magnitude that any bank's numbers and their sum can have, at most `HALF`; by default each
            bank may use its share, HALF // banks, so that no total can wrap.
        ledger: binds us to these numbers before any leave, and keeps what was checked.
        ask: the aggregator.
        costs: told what it took.

    Returns:
        int64, shape (n,): the exact sum.

    Raises:
        FieldOverflow: a number is too large; nothing was sent.
        RosterChanged: a bank was dropped.
        TamperedSum, Equivocation, ProtocolViolation, RunAborted: use nothing of it.
    """
    numbers = np.ascontiguousarray(vector, dtype=np.int64)
    laid = split_chunks(encode_signed(numbers, HALF // len(agreed.roster.members) if bound is None else bound))
    digest = hashlib.sha256(numbers.astype("<i8").tobytes()).hexdigest()
    bound_durably = ledger.bind(step, agreed.roster.attempt, digest)
    with costs.timed(Work.CHECKING):
        header = agreed.header(step, chunks=laid.shape[0], length=numbers.size)
        ours = _Step(header=header, laid=laid, checks=_check_keys(agreed, header, agreed.roster))
        ours.checks.fill(laid)

    def chunks() -> Iterator[Chunk]:
        for index, ciphertext in enumerate(costs.sending(agreed.cipher.encrypt(_masked(agreed, ours)))):
            bound_durably()
            yield Chunk(index=index, ciphertext=ciphertext)

    head, bodies = ask(header, chunks)
    return _verified(agreed, ours, head, bodies, HALF if bound is None else bound, ledger, costs)


def _check_keys(agreed: AgreedState, header: StepHeader, roster: Roster) -> CheckKeys:
    name = step_name(agreed.run_id, header.step, roster.attempt, roster.digest)
    return CheckKeys(agreed.group, name, header.chunks)


def _masked(agreed: AgreedState, ours: _Step) -> Iterator[FieldVector]:
    """Our chunks under masks that cancel over the roster."""
    roster = agreed.roster
    seeds = {member: agreed.peers.seeds[member] for member in roster.members if member != agreed.bank}
    name = step_name(agreed.run_id, ours.header.step, roster.attempt, roster.digest)
    masks = MaskStream(agreed.bank, seeds, name)
    for start in range(0, ours.header.chunks, _BLOCK):
        yield from masks.apply(ours.laid[start : start + _BLOCK])


def _verified(
    agreed: AgreedState, ours: _Step, head: SumHead, bodies: list[bytes], bound: int, ledger: Ledger, costs: SumCosts
) -> Integers:
    """The numbers in the aggregator's answer, once all that the protocol asks of them holds; moves the chain on."""
    header, roster, checks = ours.header, agreed.roster, ours.checks
    if head.attempt != roster.attempt:
        # A sum of before we were restarted, or before others were dropped.
        roster = _roster_of_before(agreed, header, head, ledger)
        header = replace(header, attempt=roster.attempt, roster_digest=roster.digest, signature=b"")
        checks = _check_keys(agreed, header, roster)
    with costs.timed(Work.CHECKING):
        _check_statements(agreed, header, head, roster, ledger)
    with costs.timed(Work.DECRYPTING):
        total = agreed.cipher.decrypt(bodies)
    with costs.timed(Work.CHECKING):
        checks.verify(total, len(roster.members), agreed.run_id, header.step)
        try:
            summed = decode_signed(join_chunks(total, header.length), bound)
        except FieldOverflow as error:
            raise ProtocolViolation(f"run {agreed.run_id}, step {header.step}: {error}") from error
        before = agreed.chain.value
        after = agreed.chain.sum_taken(header.step, roster.attempt, roster.digest, summed.astype("<i8").tobytes())
        ledger.note(
            "sum",
            step=header.step,
            attempt=roster.attempt,
            chunks=header.chunks,
            length=header.length,
            mac="ok",
            statements=_record(head),
            before=before.hex(),
            after=after.hex(),
        )
    return summed


def _roster_of_before(agreed: AgreedState, header: StepHeader, head: SumHead, ledger: Ledger) -> Roster:
    """The roster of the earlier attempt that a sum was made by."""
    members = ledger.rosters.get(head.attempt)
    if members is None or head.attempt > agreed.roster.attempt:
        raise ProtocolViolation(f"run {agreed.run_id}, step {header.step}: a sum by unknown attempt {head.attempt}")
    return Roster(attempt=head.attempt, members=members)


def _check_statements(agreed: AgreedState, header: StepHeader, head: SumHead, roster: Roster, ledger: Ledger) -> None:
    """As `check_statements`; keeps the evidence."""
    try:
        check_statements(header, head, roster.members, agreed.peers.run_keys)
    except ProtocolViolation:
        ledger.note(
            "evidence",
            durable=True,
            step=header.step,
            attempt=header.attempt,
            own_state=header.state.hex(),
            statements=_record(head),
        )
        raise


def _record(head: SumHead) -> list[list[Any]]:
    return [[s.bank, s.state.hex(), s.signature.hex()] for s in head.statements]
