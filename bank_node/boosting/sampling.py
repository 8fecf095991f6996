"""Which features and which rows a tree is grown from; it reads no rows but their keys, and draws no random numbers.

Samples are hashes of what is sampled, so all banks choose the same features, and a row is in the sample or not by its
own key, wherever it lies. Shares and rounding of features are XGBoost's: a level's are drawn from the tree's, a node's
from its level's, and at least one is drawn.
"""

import hashlib
from collections.abc import Iterable
from functools import cache

import numpy as np

from bank_node.dtypes import Marks, Words
from bank_node.kernels import kernel
from protocol.parameters import BoostingParameters

__all__ = ["FeatureSampler", "row_keys", "sample_rows", "sample_rows_naive"]


_MASK = 2**64 - 1
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB  # multipliers of the SplitMix64 finaliser


class FeatureSampler:
    """The features that one tree, its levels and its nodes may use. Features are numbers among all trained on."""

    def __init__(self, params: BoostingParameters, n_features: int, round_index: int) -> None:
        """Draws the tree's own sample; levels and nodes are drawn when asked for."""
        self._params = params
        self._place = f"{params.seed}/{round_index}"
        self.tree = _sample(tuple(range(n_features)), params.colsample_bytree, f"{self._place}/tree")
        self._of_level = cache(lambda depth: self._draw_level(depth))

    @property
    def everything(self) -> bool:
        """Whether all features are always in."""
        p = self._params
        return p.colsample_bytree == p.colsample_bylevel == p.colsample_bynode == 1.0

    def node(self, depth: int, node: int) -> tuple[int, ...]:
        """The features a node may split by, increasing; `depth` is 0 at the root."""
        return _sample(self._of_level(depth), self._params.colsample_bynode, f"{self._place}/node/{node}")

    def _draw_level(self, depth: int) -> tuple[int, ...]:
        return _sample(self.tree, self._params.colsample_bylevel, f"{self._place}/level/{depth}")


def _sample(pool: tuple[int, ...], share: float, place: str) -> tuple[int, ...]:
    if share == 1.0 or not pool:
        return pool
    count = max(1, int(np.float32(share) * np.float32(len(pool))))

    def rank(feature: int) -> bytes:
        return hashlib.sha256(f"crossbank features/{place}/{feature}".encode()).digest()

    return tuple(sorted(sorted(pool, key=rank)[:count]))


def row_keys(ids: Iterable[object]) -> Words:
    """A key for each row, uint64 (n,), from the text of its id: BLAKE2b, the same on every machine.

    Two rows of one id are sampled together. Cost: about a microsecond a row.
    """
    digests = [hashlib.blake2b(str(each).encode(), digest_size=8).digest() for each in ids]
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


@kernel
def _sample_into(keys: Words, salt: np.uint64, pepper: np.uint64, least: np.uint64, out: Marks) -> None:
    for i in range(keys.shape[0]):
        x = keys[i] ^ salt
        for turn in range(2):
            x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            x = x ^ (x >> np.uint64(31))
            if turn == 0:
                x = x + pepper
        out[i] = np.uint8((x >> np.uint64(11)) < least)


def _salts(share: float, seed: int, round_index: int) -> tuple[int, int, int]:
    digest = hashlib.sha256(f"crossbank rows/{seed}/{round_index}".encode()).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:16], "little"), int(share * 2.0**53)


def sample_rows(keys: Words, share: float, seed: int, round_index: int) -> Marks:
    """Marks the rows that one tree is grown from, uint8 (n,).

    Args:
        keys: uint64 (n,), from `row_keys`.
        share: Each row is in with this probability, above 0 and at most 1.
        seed: The run's.
        round_index: The tree's number.

    Returns:
        Marks that depend on each row's key alone. Cost: some ten operations a row.
    """
    salt, pepper, least = _salts(share, seed, round_index)
    out = np.empty(keys.size, dtype=np.uint8)
    _sample_into(keys, np.uint64(salt), np.uint64(pepper), np.uint64(least), out)
    return out


def sample_rows_naive(keys: Words, share: float, seed: int, round_index: int) -> Marks:
    """Twin of `sample_rows`, in Python's integers."""
    salt, pepper, least = _salts(share, seed, round_index)

    def mixed(x: int) -> int:
        x = (x ^ (x >> 30)) * _FIRST & _MASK
        x = (x ^ (x >> 27)) * _SECOND & _MASK
        return x ^ (x >> 31)

    return np.array(
        [mixed((mixed(key ^ salt) + pepper) & _MASK) >> 11 < least for key in keys.tolist()], dtype=np.uint8
    )
