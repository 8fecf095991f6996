"""Statements relayed with a sum: each must be signed by its bank, our own included, and say what ours says."""

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bank_node.secure_aggregation.consistency import check_statements
from protocol.errors import Equivocation, ProtocolViolation
from protocol.he_parameters import HE_FINGERPRINT
from protocol.masks import roster_digest
from protocol.messages import Statement, StepHeader, SumHead
from protocol.statements import statement_bytes

BANKS = ("a", "b", "c")
KEYS = {bank: Ed25519PrivateKey.generate() for bank in BANKS}
PUBLIC = {bank: key.public_key() for bank, key in KEYS.items()}


def _header(bank: str, state: bytes = bytes(32), attempt: int = 0) -> StepHeader:
    unsigned = StepHeader(
        run_id="run", bank=bank, step="train/0/0", attempt=attempt, chunks=1, length=5, he_fingerprint=HE_FINGERPRINT,
        roster_digest=roster_digest(BANKS), state=state,
    )  # fmt: skip
    return replace(unsigned, signature=KEYS[bank].sign(statement_bytes(unsigned)))


def _head(*headers: StepHeader) -> SumHead:
    statements = tuple(Statement(bank=h.bank, state=h.state, signature=h.signature) for h in headers)
    return SumHead(pending=False, attempt=0, statements=statements)


def test_true_statements_pass() -> None:
    check_statements(_header("a"), _head(*map(_header, BANKS)), BANKS, PUBLIC)


@pytest.mark.parametrize("forged", BANKS)
def test_a_forged_statement_is_refused_also_when_it_is_said_to_be_ours(forged: str) -> None:
    headers = [replace(_header(bank), signature=bytes(64)) if bank == forged else _header(bank) for bank in BANKS]
    with pytest.raises(ProtocolViolation, match=f"bank {forged} is not signed by it"):
        check_statements(_header("a"), _head(*headers), BANKS, PUBLIC)


def test_our_signature_of_another_attempt_does_not_pass_for_this_one() -> None:
    ours = replace(_header("a", attempt=1), attempt=0, signature=b"")
    headers = [_header("a", attempt=1), _header("b"), _header("c")]
    with pytest.raises(ProtocolViolation, match="bank a is not signed by it"):
        check_statements(ours, _head(*headers), BANKS, PUBLIC)


def test_another_state_is_told_even_where_it_is_signed() -> None:
    with pytest.raises(Equivocation, match="at c"):
        check_statements(_header("a"), _head(_header("a"), _header("b"), _header("c", bytes([1] * 32))), BANKS, PUBLIC)
