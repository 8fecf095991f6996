"""The exact bytes that banks sign, and their running state. It signs and verifies nothing itself.

Every signed byte string begins with its own label, so that none can stand for another. See docs/protocol.md, 7.
"""

import hashlib
import hmac

from protocol.masks import SecretBytes, derive_key
from protocol.messages import KeyAnnouncement, KeyBundle, PhaseReport, StepHeader

__all__ = ["StateChain", "announcement_bytes", "bundle_bytes", "report_bytes", "start_digest", "statement_bytes"]


def _fields(label: str, *fields: str | int | bytes) -> bytes:
    """Length-prefixed fields after a label: no two different lists give the same bytes."""
    parts = [f"crossbank/1 {label}\0".encode()]
    for value in fields:
        body = value if isinstance(value, bytes) else str(value).encode()
        parts += [len(body).to_bytes(4, "big"), body]
    return b"".join(parts)


def announcement_bytes(value: KeyAnnouncement) -> bytes:
    """What a bank's certified key signs: its run keys."""
    return _fields("run keys", value.run_id, value.bank, value.x25519_public, value.ed25519_public)


def bundle_bytes(value: KeyBundle) -> bytes:
    """What the key-making bank signs: the public context and every sealed box, in order."""
    boxes = b"".join(_fields("box", sealed.recipient, hashlib.sha256(sealed.box).digest()) for sealed in value.sealed)
    contexts = hashlib.sha256(value.public_context).digest() + hashlib.sha256(value.sealed_context).digest()
    return _fields("HE key", value.run_id, value.bank, contexts, boxes)


def statement_bytes(value: StepHeader) -> bytes:
    """What a bank signs with each upload: the roster it adds with, and all that it holds to be true so far."""
    return _fields("statement", value.run_id, value.bank, value.step, value.attempt, value.roster_digest, value.state)


def report_bytes(value: PhaseReport) -> bytes:
    """What a bank signs when it ends a phase."""
    return _fields(
        "report",
        value.run_id,
        value.bank,
        value.phase,
        value.digest,
        int(value.accept),
        hashlib.sha256(value.metrics_json.encode()).digest(),
        value.attempt,
        value.roster_digest,
        value.state,
        # Reports of before the node told the end of its audit log have none.
        *((value.audit_records, value.audit_digest) if value.audit_digest else ()),
    )


def start_digest(settings_digest: str, roster: bytes, announcements: list[KeyAnnouncement], context: bytes) -> bytes:
    """SHA-256 of what all banks must have been told alike when a run begins: settings, roster, keys, HE context."""
    ordered = sorted(announcements, key=lambda a: a.bank)
    keys = b"".join(announcement_bytes(a) for a in ordered)
    return hashlib.sha256(_fields("start", settings_digest, roster, keys, context)).digest()


class StateChain:
    """A running digest of everything that a bank has taken as true in a run; equal at all banks, or somebody lied.

    It is keyed by the banks' shared secret, so that the aggregator, which relays it, can't test guesses of a sum.
    """

    __slots__ = ("_key", "value")

    def __init__(self, group: SecretBytes, start: bytes) -> None:
        """Begin from `start_digest`."""
        self._key = derive_key(group, "state")
        self.value = self._mac(_fields("begin", start))

    def sum_taken(self, step: str, attempt: int, roster: bytes, total: bytes) -> bytes:
        """Note a verified sum (its numbers as little-endian int64) and return the new state."""
        self.value = self._mac(_fields("sum", self.value, step, attempt, roster, hashlib.sha256(total).digest()))
        return self.value

    def agreed(self, what: str, digest: str) -> bytes:
        """Note a result made of sums, such as a tree, and return the new state."""
        self.value = self._mac(_fields("result", self.value, what, digest))
        return self.value

    def _mac(self, message: bytes) -> bytes:
        return hmac.new(self._key, message, hashlib.sha256).digest()
