"""What an account, a counterparty or a pair did before a moment, as Ibis expressions. Reads nothing, runs nothing.

Point in time is the whole matter here. A window of span w at a row of time t is ``[t - w, t)``: the row itself and all
rows of the same microsecond are outside, whatever their order in the file. That is a RANGE frame over whole
microseconds, from w preceding to 1 preceding. Amounts are summed as whole minor units, so a sum is exact and doesn't
depend on the order in which threads add.

All aggregates over the same keys share a partition and an order, so the engine sorts once for them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import ibis.expr.types as ir

__all__ = ["SCOPES", "SPANS", "Aggregate", "Measure", "Scope", "with_aggregates"]

MICROSECONDS_PER_SECOND = 1_000_000
_HOUR = 3600 * MICROSECONDS_PER_SECOND

SPANS: Mapping[str, int | None] = {"1h": _HOUR, "1d": 24 * _HOUR, "7d": 168 * _HOUR, "30d": 720 * _HOUR, "ever": None}
"""Length of each window in microseconds; None is everything before the row."""

Measure = Literal["count", "sum", "max", "first_time", "last_time"]
"""``sum`` and ``max`` are of amounts in minor units; the times are in microseconds since 1970."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose rows a window looks at: those with equal keys, of one direction or of both (None)."""

    keys: tuple[str, ...]
    direction: Literal["out", "in"] | None


SCOPES: Mapping[str, Scope] = {
    "account": Scope(("account_id",), None),
    "account_out": Scope(("account_id",), "out"),
    "account_in": Scope(("account_id",), "in"),
    "counterparty_out": Scope(("counterparty_id",), "out"),
    "pair_out": Scope(("account_id", "counterparty_id"), "out"),
}


@dataclass(frozen=True, slots=True, order=True)
class Aggregate:
    """One number over one window, for instance the sum of an account's outgoing amounts over the last day."""

    scope: str
    measure: Measure
    span: str

    @property
    def column(self) -> str:
        """Name of the column that holds it."""
        return f"{self.scope}__{self.measure}__{self.span}"


def with_aggregates(events: "ir.Table", aggregates: frozenset[Aggregate]) -> "ir.Table":
    """The events with one more column for each aggregate, int64: 0 for an empty count or sum, else null when empty.

    Args:
        events: all events of the bank, since the rows before a row are its history: the key columns, ``event_us``
            (int64, microseconds since 1970 UTC), ``amount_minor`` (int64) and ``is_out`` (boolean).
        aggregates: which to compute; each adds an O(n log n) pass, and each set of keys a sort.
    """
    return events.mutate(**{aggregate.column: _value(events, aggregate) for aggregate in sorted(aggregates)})


def _value(events: "ir.Table", aggregate: Aggregate) -> "ir.Value":
    import ibis

    scope = SCOPES[aggregate.scope]
    frame = ibis.range_window(
        group_by=[events[key] for key in scope.keys],
        order_by=events["event_us"],
        preceding=(SPANS[aggregate.span], 1),
    )
    where = None if scope.direction is None else events["is_out"] == (scope.direction == "out")
    value = _MEASURES[aggregate.measure](events, where).over(frame)
    if aggregate.measure == "sum":
        value = value.coalesce(0)
    return value.cast("int64")


_MEASURES: Mapping[str, Callable[..., "ir.Value"]] = {
    "count": lambda events, where: events.count(where=where),
    "sum": lambda events, where: events["amount_minor"].sum(where=where),
    "max": lambda events, where: events["amount_minor"].max(where=where),
    "first_time": lambda events, where: events["event_us"].min(where=where),
    "last_time": lambda events, where: events["event_us"].max(where=where),
}
