"""The two check slots of a chunk: a linear MAC and a witness, by keys that only the banks hold. No masks, no HE.

A bank's chunk x carries mac = sum_j r_j * x_j mod t and the witness w. Both add up like the numbers themselves: in
the sum of n banks' chunks the MAC must match the summed numbers and the witness must be n * w. Whoever drops,
repeats, scales, swaps, replays or adds something without r and w is caught but for a chance of about 2**-57
(a universal-hash MAC: Carter and Wegman, 1981). Keys are fresh per run, step, attempt, roster and chunk.
"""

import numpy as np

from bank_node.secure_aggregation.inner_products import inner_products
from protocol.errors import TamperedSum
from protocol.field import MODULUS, FieldVector
from protocol.layout import CHUNK_SLOTS, MAC_SLOT, PAYLOAD_SLOTS, WITNESS_SLOT
from protocol.masks import ElementStream, SecretBytes, derive_key

__all__ = ["CheckKeys"]


class CheckKeys:
    """The MAC keys and witnesses of one step's chunks."""

    __slots__ = ("_keys", "_witnesses")

    def __init__(self, group: SecretBytes, name: bytes, chunks: int) -> None:
        """Derive them.

        Args:
            group: the 32-byte secret that the run's banks share and the aggregator lacks.
            name: `step_name` of the step.
            chunks: how many chunks the step has.
        """
        stream = ElementStream(derive_key(group, "check", name))
        # A row a chunk: 4094 multipliers and the witness.
        drawn = stream.take(chunks * (PAYLOAD_SLOTS + 1)).reshape(chunks, PAYLOAD_SLOTS + 1)
        self._keys = drawn[:, :PAYLOAD_SLOTS]
        self._witnesses = drawn[:, PAYLOAD_SLOTS]

    def fill(self, laid: FieldVector) -> None:
        """Write MAC and witness into chunks of shape (chunks, 4096), in place."""
        laid[:, MAC_SLOT] = inner_products(self._keys, laid[:, :PAYLOAD_SLOTS])
        laid[:, WITNESS_SLOT] = self._witnesses

    def verify(self, total: FieldVector, banks: int, run_id: str, step: str) -> None:
        """Check the decrypted sum of `banks` banks' chunks, uint64 of shape (chunks, 4096).

        Raises:
            TamperedSum: a chunk is not the sum of the roster's chunks; names run, step and chunk. Use nothing of it.
        """
        if total.shape != (len(self._witnesses), CHUNK_SLOTS):
            raise TamperedSum(f"run {run_id}, step {step}: {total.shape[0]} chunks for {len(self._witnesses)}")
        macs = np.array(inner_products(self._keys, total[:, :PAYLOAD_SLOTS]), dtype=np.uint64)
        for chunk in range(total.shape[0]):
            if total[chunk, MAC_SLOT] != macs[chunk]:
                raise TamperedSum(f"run {run_id}, step {step}, chunk {chunk}: the MAC of the sum does not match")
            if int(total[chunk, WITNESS_SLOT]) != int(self._witnesses[chunk]) * banks % MODULUS:
                raise TamperedSum(f"run {run_id}, step {step}, chunk {chunk}: not the sum of {banks} banks' chunks")
