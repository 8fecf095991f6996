"""Adds BFV ciphertexts under a public context. It holds no secret key and refuses any context that has one."""

import functools

import tenseal as ts

from protocol.errors import ProtocolViolation
from protocol.he_parameters import HE_PARAMETERS
from protocol.layout import CHUNK_SLOTS
from protocol.limits import MAX_KEY_BYTES

__all__ = ["NOT_A_CIPHERTEXT", "ChunkAccumulator", "PublicContext", "reference_context"]

NOT_A_CIPHERTEXT = "a payload is not a ciphertext of the run's parameters"


class PublicContext:
    """A run's public HE context: parameters only, enough to add."""

    __slots__ = ("_context",)

    def __init__(self, serialized: bytes) -> None:
        """Parse a serialised TenSEAL context.

        Raises:
            ProtocolViolation: it does not parse, holds a secret key, or has other parameters than the protocol's.
        """
        if serialized == reference_context():
            self._context = _parsed_reference()
            return
        if len(serialized) > MAX_KEY_BYTES:
            raise ProtocolViolation("the public context is too large")
        try:
            context = ts.context_from(serialized)
        except Exception as error:
            raise ProtocolViolation("the public context does not parse") from error
        if context.is_private() or context.has_secret_key():
            raise ProtocolViolation("the context holds a secret key; the aggregator refuses it")
        # Contexts made by other parameters differ in the parameter block, which SEAL serialises canonically.
        if _parameter_block(serialized) != _parameter_block(reference_context()):
            raise ProtocolViolation("the public context's parameters are not the protocol's")
        self._context = context

    def parse(self, ciphertext: bytes) -> ts.BFVVector:
        """One ciphertext of this context's parameters.

        Raises:
            ProtocolViolation: it is anything else.
        """
        try:
            vector = ts.bfv_vector_from(self._context, ciphertext)
            size = vector.size()
        except Exception as error:
            raise ProtocolViolation(NOT_A_CIPHERTEXT) from error
        if size != CHUNK_SLOTS:
            raise ProtocolViolation(f"a ciphertext must hold {CHUNK_SLOTS} slots, not {size}")
        return vector


class ChunkAccumulator:
    """The running sum of one chunk over banks."""

    __slots__ = ("_body", "_total", "banks")

    def __init__(self) -> None:
        self._total: ts.BFVVector | None = None
        self._body = b""
        self.banks: set[str] = set()

    def add(self, bank: str, vector: ts.BFVVector) -> bool:
        """Add one bank's ciphertext; a second one of the same bank is ignored. True if it was added."""
        if bank in self.banks:
            return False
        if self._total is None:
            self._total = vector
        else:
            self._total += vector
        self.banks.add(bank)
        return True

    def note(self, bank: str, total: bytes) -> None:
        """Note that a bank's ciphertext was added elsewhere, and the sum once it is there."""
        self.banks.add(bank)
        self._body = self._body or total

    def serialize(self) -> bytes:
        """The sum as bytes, made once; at least one bank must have been added, and none may be added later."""
        if not self._body:
            if self._total is None:
                raise ProtocolViolation("a chunk without any contribution has no sum")
            self._body, self._total = bytes(self._total.serialize()), None
        return self._body


def _parameter_block(serialized: bytes) -> bytes:
    """The first length-delimited field of a TenSEAL context: SEAL's encryption parameters."""
    if len(serialized) < 2 or serialized[0] != 0x0A or serialized[1] > 127:
        return b""
    return serialized[2 : 2 + serialized[1]]


@functools.cache
def reference_context() -> bytes:
    """A serialised public context of the protocol's parameters, without any key."""
    made = ts.context(
        ts.SCHEME_TYPE.BFV,
        int(str(HE_PARAMETERS["poly_modulus_degree"])),
        plain_modulus=int(str(HE_PARAMETERS["plain_modulus"])),
        encryption_type=ts.ENCRYPTION_TYPE.SYMMETRIC,
    )
    return bytes(
        made.serialize(save_public_key=False, save_secret_key=False, save_galois_keys=False, save_relin_keys=False)
    )


@functools.cache
def _parsed_reference() -> ts.Context:
    """It, ready to use: parsing takes 25 ms, and adding changes nothing in it."""
    return ts.context_from(reference_context())


#: At import, so that no run waits for it.
_parsed_reference()
