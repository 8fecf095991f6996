"""Payments as columns of numbers, before they become any bank's table. Has no behaviour of payers in it."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

__all__ = [
    "FRAUD_TYPES",
    "NOBODY",
    "SECONDS_PER_DAY",
    "Floats",
    "Ints",
    "Payments",
    "episode_times",
    "joined",
    "payments",
]

FRAUD_TYPES = ("stolen_card", "account_takeover", "merchant_compromise", "mule_chain", "app_scam")
"""Types of fraud. In `Payments.fraud` a type is its place here plus 1; 0 is honest."""

NOBODY = -1
"""Stands for "no such party" in columns that refer to a customer, a merchant or an outside account."""

SECONDS_PER_DAY = 86_400

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Payments:
    """Payments, one a row, in no order. All columns are of shape (n,).

    Attributes:
        second: since the start of the first day, int64.
        payer: customer who pays; `NOBODY` for an outside account.
        payee: customer who receives a transfer, else `NOBODY`.
        merchant: merchant that a card payment goes to, else `NOBODY`.
        outside: account outside the consortium that is the other side of a transfer, else `NOBODY`.
        amount: float64, in currency units.
        fraud: int64, 0 for honest or 1 + place in `FRAUD_TYPES`.
    """

    second: Ints
    payer: Ints
    payee: Ints
    merchant: Ints
    outside: Ints
    amount: Floats
    fraud: Ints

    def __len__(self) -> int:
        return len(self.second)

    def take(self, keep: npt.NDArray[np.bool_] | Ints) -> "Payments":
        """The rows that a mask or an array of places picks."""
        return Payments(**{field.name: getattr(self, field.name)[keep] for field in fields(self)})


def payments(
    second: npt.ArrayLike,
    payer: npt.ArrayLike,
    amount: npt.ArrayLike,
    *,
    payee: npt.ArrayLike = NOBODY,
    merchant: npt.ArrayLike = NOBODY,
    outside: npt.ArrayLike = NOBODY,
    fraud: str | None = None,
) -> Payments:
    """Payments from columns; a single number is the same in each row, and ``second`` tells how many there are."""
    seconds = np.asarray(second).astype(np.int64)
    code = 0 if fraud is None else FRAUD_TYPES.index(fraud) + 1

    def whole(values: npt.ArrayLike) -> Ints:
        return np.broadcast_to(np.asarray(values, dtype=np.int64), seconds.shape).copy()

    return Payments(
        second=seconds,
        payer=whole(payer),
        payee=whole(payee),
        merchant=whole(merchant),
        outside=whole(outside),
        amount=np.broadcast_to(np.asarray(amount, dtype=np.float64), seconds.shape).copy(),
        fraud=whole(code),
    )


def joined(parts: Sequence[Payments]) -> Payments:
    """All rows of all parts, in their order."""
    return Payments(
        **{field.name: np.concatenate([getattr(p, field.name) for p in parts]) for field in fields(Payments)}
    )


def episode_times(begins: Ints, counts: Ints, gaps: Ints) -> Ints:
    """Times of the payments of episodes: each begins at its begin plus its first gap, and goes on gap by gap.

    Args:
        begins: (episodes,) seconds.
        counts: (episodes,) payments of each, 0 or more.
        gaps: (sum of counts,) seconds before each payment, episode after episode.
    """
    running = np.cumsum(gaps)
    before = np.concatenate([[0], running])[np.concatenate([[0], np.cumsum(counts)])[:-1]]
    return np.repeat(begins - before, counts) + running
