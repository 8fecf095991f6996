"""Shared counterparty risk: count-min tables over keyed-hash cells, and the windows features read. Exchanges nothing.

Each day each bank counts, in cells, the payments its customers made to counterparties and the reports of fraud that
became known. The sum of all banks' tables says what all of them together saw. A report counts on the day it became
known, so a day's table is final when the day is over, and a row sees no label that nobody had yet: a row of day T reads
tables up to day T - 1. Count-min sketch: Cormode and Muthukrishnan, J. Algorithms 55 (2005). See docs/shared-risk.md.
"""

import hmac
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from features.contract.sections import COLUMNS, MAX_DEPTH, SPANS, WINDOW_DAYS, EntityKind, SharedRiskSpec
from features.errors import SharedRiskError

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "FIELD_BITS",
    "Facts",
    "Tokens",
    "cells_of",
    "day_number",
    "day_tables",
    "day_tables_naive",
    "facts_of",
    "pack",
    "shared_features",
    "slots",
    "tokens_of",
    "unpack",
    "windows",
    "windows_naive",
]

Ints = npt.NDArray[np.int64]
Tokens = npt.NDArray[np.uint64]
Reader = Callable[["EntityKind", int, int], Ints]
"""Gives the consortium's tables of a kind: (kind, first day, days) to int64 (days, 4, depth, width); zeros before the
first agreed day. Days are counted from 1970-01-01."""


FIELD_BITS: Final = 28
"""Two counts share a number of the secure sum: 56 bits, below half the field's 58."""

MAX_COUNT: Final = (1 << (FIELD_BITS - 7)) - 1
"""Most that one bank may count in one cell, so that 128 banks can't carry into the other count: 2,097,151."""

_BLOCK_DAYS = 64
_BLOCK_ENTITIES = 1 << 15


_OWNERS = {"counterparty_id": "counterparty", "device_id": "device"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What one bank has seen of one kind: payments, and reports of fraud.

    Attributes:
        tokens: uint64 (entities, 4), distinct.
        paid_entity, paid_day: int64 (payments,): place in ``tokens``, and day of each payment.
        told_entity, told_day, told_customer: int64 (reports,): the day it became known, and a number for the customer.
    """

    tokens: Tokens
    paid_entity: Ints
    paid_day: Ints
    told_entity: Ints
    told_day: Ints
    told_customer: Ints


def day_number(times: "pd.Series") -> Ints:
    """Days since 1970-01-01 of UTC times without zone."""
    days: Ints = times.to_numpy("datetime64[D]").astype(np.int64)
    return days


def tokens_of(key: bytes, kind: str, ids: Iterable[str]) -> Tokens:
    """HMAC-SHA256 under the banks' link key of each identifier as four 64-bit words, uint64 (n, 4).

    Identifiers must be written alike at all banks; that is the mapping's work, before they are hashed.
    """
    prefix = f"crossbank/1 entity\0{kind}\0".encode()
    digests = [hmac.digest(key, prefix + each.encode(), "sha256") for each in ids]
    return np.frombuffer(b"".join(digests), dtype="<u8").reshape(-1, MAX_DEPTH).astype(np.uint64)


def cells_of(tokens: Tokens, kind: EntityKind) -> Ints:
    """The cell of each entity in each row of the sketch, int64 (n, depth)."""
    return (tokens[:, : kind.depth] % np.uint64(kind.width)).astype(np.int64)


def facts_of(
    events: "pd.DataFrame", spec: SharedRiskSpec, tokens: Mapping[str, tuple[Sequence[str], Tokens]]
) -> dict[str, Facts]:
    """A bank's facts of each kind, from its payments.

    Args:
        events: ``direction``, ``channel``, ``account_id``, ``event_time``, ``is_fraud``, ``settled_time`` (when the
            label became known) and the kinds' columns.
        spec: the contract's section.
        tokens: for each kind, its entities' identifiers as they are in ``events``, and their tokens.
    """
    import pandas as pd

    out = events[events["direction"] == "out"]
    found = {}
    for kind in spec.kinds:
        mine = out[out["channel"].isin(kind.channels) & out[kind.column].notna()]
        ids, words = tokens[kind.name]
        place = pd.Index(ids).get_indexer(mine[kind.column])
        if (place < 0).any():
            raise SharedRiskError(f"{int((place < 0).sum())} payments have a {kind.name} without a token")
        told = (mine["is_fraud"] == 1).to_numpy() & mine["settled_time"].notna().to_numpy()
        reports = mine[told]
        found[kind.name] = Facts(
            tokens=words,
            paid_entity=place.astype(np.int64),
            paid_day=day_number(mine["event_time"]),
            told_entity=place[told].astype(np.int64),
            told_day=day_number(reports["settled_time"]),
            told_customer=pd.factorize(reports["account_id"])[0].astype(np.int64),
        )
    return found


def day_tables(facts: Facts, kind: EntityKind, first: int, days: int, *, payments_below: int = 1) -> Ints:
    """One bank's tables of consecutive days.

    Args:
        first: the first day, from 1970-01-01.
        days: how many.
        payments_below: cells with fewer payments are 0.

    Returns:
        int64 (days, 4, depth, width), `COLUMNS` in their order. Cost: a pass over the facts for each row of the sketch.

    Raises:
        SharedRiskError: a cell counts more than a bank may send; use a wider sketch.
    """
    tables = np.zeros((days, len(COLUMNS), kind.depth, kind.width), dtype=np.int64)
    cells = cells_of(facts.tokens, kind)
    # Only what these days see: a run asks for a few days at a time, over and over.
    near = (facts.paid_day >= first) & (facts.paid_day < first + days)
    paid, paid_entity = facts.paid_day[near] - first, facts.paid_entity[near]
    recent = (facts.told_day > first - WINDOW_DAYS) & (facts.told_day < first + days)
    told, told_entity, told_customer = (
        facts.told_day[recent] - first,
        facts.told_entity[recent],
        facts.told_customer[recent],
    )
    for row in range(kind.depth):
        of_entity = cells[:, row]
        tables[:, 0, row] = _counts(paid, of_entity[paid_entity], days, kind.width)
        cell = of_entity[told_entity]
        tables[:, 1, row] = _counts(told, cell, days, kind.width)
        customers = np.unique(np.stack([cell, told_customer, told]), axis=1)
        tables[:, 2, row] = _lasting(customers[0], customers[1], customers[2], days, kind.width)
        banks = np.unique(np.stack([cell, told]), axis=1)
        tables[:, 3, row] = _lasting(banks[0], np.zeros(banks.shape[1], np.int64), banks[1], days, kind.width)
    paid_counts = tables[:, 0]
    paid_counts[paid_counts < payments_below] = 0
    if tables.size and int(tables.max()) > MAX_COUNT:
        raise SharedRiskError(f"a {kind.name} cell counts more than {MAX_COUNT} in a day; widen the contract's sketch")
    return tables


def _counts(day: Ints, cell: Ints, days: int, width: int) -> Ints:
    inside = (day >= 0) & (day < days)
    return np.bincount(day[inside] * width + cell[inside], minlength=days * width).reshape(days, width)


def _lasting(cell: Ints, who: Ints, day: Ints, days: int, width: int) -> Ints:
    """How many ``who`` have a fact in the `WINDOW_DAYS` up to each day. Facts distinct, sorted by cell, who, day."""
    again = np.zeros(len(cell), dtype=bool)
    again[:-1] = (cell[1:] == cell[:-1]) & (who[1:] == who[:-1])
    end = day + WINDOW_DAYS
    end[:-1] = np.where(again[:-1], np.minimum(end[:-1], day[1:]), end[:-1])
    # From its day on, until it is over or the next fact of the same takes on.
    change = np.zeros((days + 1, width), dtype=np.int64)
    live = (end > 0) & (day < days)
    np.add.at(change, (np.maximum(day[live], 0), cell[live]), 1)
    np.add.at(change, (np.minimum(end[live], days), cell[live]), -1)
    return np.cumsum(change, axis=0)[:days]


def day_tables_naive(facts: Facts, kind: EntityKind, first: int, days: int, *, payments_below: int = 1) -> Ints:
    """Twin of `day_tables`: fact by fact, with sets."""
    tables = np.zeros((days, len(COLUMNS), kind.depth, kind.width), dtype=np.int64)
    for row in range(kind.depth):
        cell = [int(token[row]) % kind.width for token in facts.tokens]
        for day in range(first, first + days):
            customers: dict[int, set[int]] = {}
            for entity, at in zip(facts.paid_entity.tolist(), facts.paid_day.tolist(), strict=True):
                tables[day - first, 0, row, cell[entity]] += at == day
            for entity, at, who in zip(
                facts.told_entity.tolist(), facts.told_day.tolist(), facts.told_customer.tolist(), strict=True
            ):
                tables[day - first, 1, row, cell[entity]] += at == day
                if day - WINDOW_DAYS < at <= day:
                    customers.setdefault(cell[entity], set()).add(who)
            for each, some in customers.items():
                tables[day - first, 2, row, each] = len(some)
                tables[day - first, 3, row, each] = 1
            for each in range(kind.width):
                if tables[day - first, 0, row, each] < payments_below:
                    tables[day - first, 0, row, each] = 0
    return tables


def slots(spec: SharedRiskSpec) -> int:
    """Numbers of the secure sum for one day."""
    return sum(2 * kind.depth * kind.width for kind in spec.kinds)


def pack(tables: Sequence[Ints]) -> Ints:
    """One day's tables of all kinds, each int64 (4, depth, width), as a secure sum's vector, two counts a number."""
    parts = []
    for table in tables:
        parts += [(table[i] + (table[i + 1] << FIELD_BITS)).reshape(-1) for i in (0, 2)]
    return np.concatenate(parts)


def unpack(vector: Ints, spec: SharedRiskSpec) -> list[Ints]:
    """The inverse of `pack`, also of a sum of packed vectors.

    Raises:
        SharedRiskError: it has another length, or is no sum of packed counts.
    """
    if vector.shape != (slots(spec),) or (vector.size and (vector.min() < 0 or vector.max() >> (2 * FIELD_BITS))):
        raise SharedRiskError("a day's shared table is not a sum of packed counts of this contract")
    tables, place = [], 0
    for kind in spec.kinds:
        size = kind.depth * kind.width
        table = np.empty((len(COLUMNS), kind.depth, kind.width), dtype=np.int64)
        for pair in range(2):
            part = vector[place : place + size].reshape(kind.depth, kind.width)
            table[2 * pair], table[2 * pair + 1] = part & ((1 << FIELD_BITS) - 1), part >> FIELD_BITS
            place += size
        tables.append(table)
    return tables


def windows(
    read: Reader, agreed: tuple[int, int], kind: EntityKind, tokens: Tokens, entity: Ints, day: Ints
) -> dict[str, npt.NDArray[np.float64]]:
    """What the consortium saw of each row's entity before the row's day.

    A daily count is the smallest over the sketch's rows, a window the sum of daily ones: never below the truth (but for
    payments that banks did not send), and at most what `docs/shared-risk.md` bounds.

    Args:
        read: the consortium's tables.
        agreed: first and last day of them.
        tokens: uint64 (entities, 4).
        entity, day: int64 (rows,): each row's entity and day.

    Returns:
        By ``payments_1d`` to ``frauds_30d``, ``customers_30d`` and ``banks_30d``: float64 (rows,), NaN where the day
        before is not agreed yet. Memory: a block of days' tables, and of its entities.
    """
    cells = cells_of(tokens, kind)
    names = [f"{what}_{span}" for what in ("payments", "frauds") for span in SPANS]
    result = {name: np.full(len(day), np.nan) for name in (*names, "customers_30d", "banks_30d")}
    last = agreed[1]
    order = np.argsort(day, kind="stable")
    ordered = day[order]
    lowest = int(ordered[0]) if len(ordered) else 0
    for begin in range(lowest, min(last + 1, int(ordered[-1]) if len(ordered) else -1) + 1, _BLOCK_DAYS):
        end = min(begin + _BLOCK_DAYS, last + 2)
        rows = order[np.searchsorted(ordered, begin) : np.searchsorted(ordered, end)]
        if not len(rows):
            continue
        start, days = begin - WINDOW_DAYS, end - 1 - (begin - WINDOW_DAYS)
        tables = read(kind, start, days)
        present, where = np.unique(entity[rows], return_inverse=True)
        for low in range(0, len(present), _BLOCK_ENTITIES):
            part = (where >= low) & (where < low + _BLOCK_ENTITIES)
            ours, at, until = rows[part], where[part] - low, day[rows[part]] - start
            these = cells[present[low : low + _BLOCK_ENTITIES]]
            for column, what in enumerate(COLUMNS):
                seen = tables[:, column, 0][:, these[:, 0]]
                for row in range(1, kind.depth):
                    np.minimum(seen, tables[:, column, row][:, these[:, row]], out=seen)
                if column < 2:
                    running = np.zeros((days + 1, seen.shape[1]), dtype=np.int64)
                    np.cumsum(seen, axis=0, out=running[1:])
                    for span, length in SPANS.items():
                        result[f"{what}_{span}"][ours] = running[until, at] - running[until - length, at]
                else:
                    result[f"{what}_30d"][ours] = seen[until - 1, at]
    return result


def windows_naive(
    read: Reader, agreed: tuple[int, int], kind: EntityKind, tokens: Tokens, entity: Ints, day: Ints
) -> dict[str, npt.NDArray[np.float64]]:
    """Twin of `windows`: row by row, day by day."""
    names = [f"{what}_{span}" for what in ("payments", "frauds") for span in SPANS]
    result = {name: np.full(len(day), np.nan) for name in (*names, "customers_30d", "banks_30d")}
    for i, (which, today) in enumerate(zip(entity.tolist(), day.tolist(), strict=True)):
        if today - 1 > agreed[1]:
            continue
        cells = [int(token) % kind.width for token in tokens[which, : kind.depth]]

        def estimate(at: int, column: int, cells: list[int] = cells) -> int:
            return min(int(read(kind, at, 1)[0, column, row, cell]) for row, cell in enumerate(cells))

        for span, length in SPANS.items():
            for column, what in enumerate(("payments", "frauds")):
                result[f"{what}_{span}"][i] = sum(estimate(today - back, column) for back in range(1, length + 1))
        for column in (2, 3):
            result[f"{COLUMNS[column]}_30d"][i] = estimate(today - 1, column)
    return result


def shared_features(
    rows: "pd.DataFrame",
    spec: SharedRiskSpec,
    names: Sequence[str],
    read: Reader,
    agreed: tuple[int, int] | None,
    tokens: Mapping[str, tuple[Sequence[str], Tokens]],
) -> dict[str, npt.NDArray[np.float32]]:
    """The shared features of a bank's payments.

    Args:
        rows: ``channel``, ``account_id``, ``event_time`` and the kinds' columns of each.
        spec: the contract's section.
        names: which of `SHARED_FEATURES`.
        read, agreed: the consortium's tables; None while there are none.
        tokens: for each kind, identifiers as in ``rows`` and their tokens; an identifier that is not there is one that
            nobody was paid as, so all its counts would be of others: it gets NaN.

    Returns:
        float32 (rows,) for each name, NaN where not known.
    """
    import pandas as pd

    found = {name: np.full(len(rows), np.nan, dtype=np.float32) for name in names}
    if agreed is None:
        return found
    days = day_number(rows["event_time"])
    looks = [
        (_OWNERS[kind.column], kind, rows[kind.column], rows["channel"].isin(kind.channels).to_numpy())
        for kind in spec.kinds
    ]
    if spec.account_kind is not None:
        everyone = np.ones(len(rows), dtype=bool)
        looks.append(("account", spec.kind(spec.account_kind), rows["account_id"], everyone))
    for owner, kind, ids, ours in looks:
        wanted = [name for name in names if name.startswith(f"shared_{owner}_")]
        known, words = tokens[kind.name]
        place = pd.Index(known).get_indexer(ids)
        at = np.flatnonzero(ours & (place >= 0))
        if not wanted or not len(at):
            continue
        seen = windows(read, agreed, kind, words, place[at].astype(np.int64), days[at])
        few = seen["customers_30d"] < spec.reports_below
        for what in ("frauds_1d", "frauds_7d", "frauds_30d", "customers_30d", "banks_30d"):
            seen[what][few] = 0
        for span in SPANS:
            seen[f"risk_{span}"] = seen[f"frauds_{span}"] / (seen[f"payments_{span}"] + spec.smoothing)
        for name in wanted:
            found[name][at] = seen[name.removeprefix(f"shared_{owner}_")]
    return found
