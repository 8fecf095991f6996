"""A sealed HE key opens to the key itself, or to a ProtocolViolation, whatever a dishonest key maker has sealed."""

import pytest

from bank_node.secure_aggregation.encryption import HeKey
from bank_node.secure_aggregation.keys import make_he_key, open_he_key, public_part, seal_he_key
from protocol.errors import ProtocolViolation
from protocol.masks import SecretBytes

ROOT, KEY = SecretBytes(bytes(range(32))), make_he_key()
PUBLIC = public_part(KEY)


def test_a_sealed_key_opens_to_itself() -> None:
    opened = open_he_key(ROOT, "run-1", seal_he_key(ROOT, "run-1", KEY, PUBLIC), PUBLIC)
    assert opened.reveal() == KEY.reveal()
    assert opened.context.is_private()


@pytest.mark.parametrize(
    "sealed", [b"", b"no context", KEY.reveal()[:1000], PUBLIC], ids=["nothing", "junk", "cut", "without secret key"]
)
def test_what_is_no_key_is_a_violation(sealed: bytes) -> None:
    box = seal_he_key(ROOT, "run-1", HeKey(sealed), PUBLIC)
    with pytest.raises(ProtocolViolation, match="run run-1: the sealed HE key"):
        open_he_key(ROOT, "run-1", box, PUBLIC)


def test_a_key_sealed_for_another_run_is_a_violation() -> None:
    box = seal_he_key(ROOT, "run-1", KEY, PUBLIC)
    with pytest.raises(ProtocolViolation, match="can't be opened"):
        open_he_key(ROOT, "run-2", box, PUBLIC)
