"""How a vector is laid into ciphertext chunks. It neither masks nor encrypts.

One chunk is one BFV plaintext of 4096 slots: 4094 numbers, then two reserved slots (a linear MAC and a
witness constant, both zero until verifiable sums fill them). The last chunk is padded with zeros.
"""

from typing import Final

import numpy as np

from protocol.errors import ProtocolViolation
from protocol.field import FieldVector

__all__ = ["CHUNK_SLOTS", "MAC_SLOT", "PAYLOAD_SLOTS", "WITNESS_SLOT", "chunk_count", "join_chunks", "split_chunks"]

CHUNK_SLOTS: Final = 4096
PAYLOAD_SLOTS: Final = 4094
MAC_SLOT: Final = 4094
WITNESS_SLOT: Final = 4095


def chunk_count(length: int) -> int:
    """How many chunks a vector of this many numbers needs; at least one."""
    if length < 1:
        raise ValueError("an empty vector can't be summed")
    return -(-length // PAYLOAD_SLOTS)


def split_chunks(elements: FieldVector) -> FieldVector:
    """Lay field elements of shape (n,) out as uint64 of shape (chunks, 4096), check slots zero."""
    chunks = chunk_count(elements.size)
    padded = np.zeros(chunks * PAYLOAD_SLOTS, dtype=np.uint64)
    padded[: elements.size] = elements
    laid = np.zeros((chunks, CHUNK_SLOTS), dtype=np.uint64)
    laid[:, :PAYLOAD_SLOTS] = padded.reshape(chunks, PAYLOAD_SLOTS)
    return laid


def join_chunks(laid: FieldVector, length: int) -> FieldVector:
    """The vector of `length` elements in chunks of shape (chunks, 4096).

    Raises:
        ProtocolViolation: the shape is wrong, or padding that must be zero is not.
    """
    if laid.shape != (chunk_count(length), CHUNK_SLOTS):
        raise ProtocolViolation(f"expected {chunk_count(length)} chunks of {CHUNK_SLOTS} slots, got shape {laid.shape}")
    flat = laid[:, :PAYLOAD_SLOTS].reshape(-1)
    if flat[length:].any():
        raise ProtocolViolation("the padding of the last chunk is not zero")
    return flat[:length].copy()
