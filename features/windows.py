"""What an account, a counterparty or a pair did before a moment, as Ibis expressions. Reads nothing, runs nothing.

Point in time is the whole matter here. A window of span w at a row of time t is ``[t - w, t)``: the row itself and all
rows of the same microsecond are outside, whatever their order in the file. That is a RANGE frame over whole
microseconds. Amounts are summed as whole minor units, so a sum is exact and doesn't depend on the order in which
threads add.

A window that counts labels runs on another clock: a fraud counts from the moment its label became known, never from
the payment's own time, so a row can't see a label that nobody had yet.

Speed: looking up where a frame begins costs more than adding up what is in it. So counts and sums are differences of
two running totals, and all totals over the same keys ride on one look-up per span; all aggregates over the same keys
share a partition and an order, so the engine sorts once for them. 24 windows over a million rows: docs/benchmarks.md.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import ibis.expr.types as ir

__all__ = ["SCOPES", "SPANS", "Aggregate", "Earlier", "Measure", "Scope", "summarised", "with_aggregates"]

MICROSECONDS_PER_SECOND = 1_000_000
_HOUR = 3600 * MICROSECONDS_PER_SECOND

SPANS: Mapping[str, int | None] = {"1h": _HOUR, "1d": 24 * _HOUR, "7d": 168 * _HOUR, "30d": 720 * _HOUR, "ever": None}
"""Length of each window in microseconds; None is everything before the row."""

LONGEST_SPAN_US = max(span for span in SPANS.values() if span is not None)
"""How far back bounded windows reach; what lies before it comes in through `Earlier`."""

Measure = Literal["count", "sum", "max", "first_time", "last_time"]
"""``sum`` and ``max`` are of amounts in minor units; the times are in microseconds since 1970."""

ROW_KEY = ("payment_id", "direction")
"""What tells one event from another."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose rows a window looks at: those with equal keys, of one direction or of both (None).

    Attributes:
        clock: "event" is the payment's own time. "label" looks at confirmed frauds only, each from the time at which
            its label became known (``known_us``).
    """

    keys: tuple[str, ...]
    direction: Literal["out", "in"] | None
    clock: Literal["event", "label"] = "event"


SCOPES: Mapping[str, Scope] = {
    "account": Scope(("account_id",), None),
    "account_out": Scope(("account_id",), "out"),
    "account_in": Scope(("account_id",), "in"),
    "account_fraud": Scope(("account_id",), "out", "label"),
    "counterparty_out": Scope(("counterparty_id",), "out"),
    "counterparty_fraud": Scope(("counterparty_id",), "out", "label"),
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

    @property
    def keys(self) -> tuple[str, ...]:
        """The columns whose values its rows share."""
        return SCOPES[self.scope].keys

    @property
    def of_labels(self) -> bool:
        """Whether it looks at labels rather than payments."""
        return SCOPES[self.scope].clock == "label"


@dataclass(frozen=True, slots=True, kw_only=True)
class Earlier:
    """What happened before the rows at hand, for when only a part of a bank's history is in the table.

    Attributes:
        summaries: for each tuple of keys, a table of these keys and a column for each aggregate without a bound, over
            all rows before the first one at hand; see `summarised`.
        frauds: confirmed outgoing frauds from before the first row at hand: ``account_id``, ``counterparty_id`` and
            ``known_us``.
    """

    summaries: Mapping[tuple[str, ...], "ir.Table"]
    frauds: "ir.Table"


def with_aggregates(
    events: "ir.Table", aggregates: frozenset[Aggregate], *, earlier: Earlier | None = None, packed: bool = True
) -> "ir.Table":
    """The events with one more column for each aggregate, int64: 0 for an empty count or sum, else null when empty.

    Args:
        events: the rows before a row are its history, so either all events of the bank, or those of the span that the
            longest window reaches back together with ``earlier``: the key columns, ``event_us`` (int64, microseconds
            since 1970 UTC), ``amount_minor`` (int64), ``is_out`` (boolean); for aggregates of labels also
            ``is_fraud`` and ``known_us`` (int64), and unique ``payment_id`` and ``direction``.
        aggregates: which to compute; each set of keys costs a sort, each span of it a look-up per row.
        earlier: what happened before the first event, or None if nothing did.
        packed: let running totals travel as one struct. False for an engine that has no structs; same values.
    """
    table = events
    for keys in sorted({aggregate.keys for aggregate in aggregates}):
        ours = sorted(aggregate for aggregate in aggregates if aggregate.keys == keys)
        table = _over_payments(table, keys, [each for each in ours if not each.of_labels], packed)
        table = _over_labels(table, events, keys, [each for each in ours if each.of_labels], earlier)
        endless = [each for each in ours if each.span == "ever"]
        if earlier is not None and endless:
            table = _with_earlier(table, earlier.summaries[keys], keys, endless)
    return table


def summarised(events: "ir.Table", keys: tuple[str, ...], aggregates: Iterable[Aggregate]) -> "ir.Table":
    """One row for each value of ``keys``: the unbounded aggregates over all of the events; for `Earlier`."""
    return events.group_by(list(keys)).aggregate(
        **{
            aggregate.column: _value(events, aggregate).cast("int64")
            for aggregate in sorted(aggregates)
            if aggregate.keys == keys and aggregate.span == "ever"
        }
    )


def _over_payments(table: "ir.Table", keys: tuple[str, ...], ours: list[Aggregate], packed: bool) -> "ir.Table":
    import ibis

    if not ours:
        return table
    totals = sorted({(each.scope, each.measure) for each in ours if each.measure in ("count", "sum")})
    spans = sorted({each.span for each in ours if each.measure in ("count", "sum") and each.span != "ever"})
    before = _frame(table, keys, None, 1)
    running = {
        _total(scope, measure): _value(table, Aggregate(scope, measure, "ever")).over(before).coalesce(0)
        for scope, measure in totals
    }
    if packed and running:
        running = {"totals": ibis.struct(running)}
    table = table.mutate(**running)
    columns: dict[str, Any] = {}
    for span in spans:
        # From the first row of the window, which is this row or one of its own time when the window is empty.
        start = _frame(table, keys, SPANS[span], 0)
        if packed:
            columns[_start(span, "totals")] = table["totals"].first().over(start)
        else:
            columns |= {_start(span, name): table[name].first().over(start) for name in running}
    for each in ours:
        if each.measure not in ("count", "sum"):
            columns[each.column] = _value(table, each).over(_frame(table, keys, SPANS[each.span], 1)).cast("int64")
    wide = table.mutate(**columns)

    def total(name: str, span: str | None = None) -> Any:
        if packed:
            return (wide["totals"] if span is None else wide[_start(span, "totals")])[name]
        return wide[name] if span is None else wide[_start(span, name)]

    results = {}
    for each in ours:
        if each.measure in ("count", "sum"):
            name = _total(each.scope, each.measure)
            value = total(name) if each.span == "ever" else total(name) - total(name, each.span)
            results[each.column] = value.cast("int64")
    helpers = [*running, *(column for column in columns if column.startswith("start_"))]
    return wide.mutate(**results).drop(*helpers) if helpers else wide


def _over_labels(
    table: "ir.Table", events: "ir.Table", keys: tuple[str, ...], ours: list[Aggregate], earlier: Earlier | None
) -> "ir.Table":
    """Counts of frauds by when they became known: rows that ask and frauds that count, on one line of time."""
    import ibis

    if not ours:
        return table
    names = {name: events[name] for name in keys}
    asks = events.select(
        **names, **{name: events[name] for name in ROW_KEY}, us=events["event_us"], weight=ibis.literal(0, "int64")
    )
    found = events.filter(events["is_out"] & (events["is_fraud"] == 1))
    sources = [found] if earlier is None else [found, earlier.frauds]
    facts = [
        source.select(
            **{name: source[name] for name in keys},
            **{name: ibis.null("string") for name in ROW_KEY},
            us=source["known_us"],
            weight=ibis.literal(1, "int64"),
        )
        for source in sources
    ]
    line = reduce(lambda left, right: left.union(right, distinct=False), facts, asks)
    counted = line.mutate(
        **{
            each.column: line["weight"]
            .sum()
            .over(
                ibis.range_window(
                    group_by=[line[name] for name in keys],
                    order_by=line["us"],
                    preceding=(SPANS[each.span], 1),
                )
            )
            .coalesce(0)
            .cast("int64")
            for each in ours
        }
    )
    answers = counted.filter(counted[ROW_KEY[0]].notnull()).select(*ROW_KEY, *(each.column for each in ours))
    return table.left_join(answers, list(ROW_KEY)).drop(*(f"{name}_right" for name in ROW_KEY))


def _with_earlier(table: "ir.Table", summary: "ir.Table", keys: tuple[str, ...], ours: list[Aggregate]) -> "ir.Table":
    renamed = summary.rename({f"before_{each.column}": each.column for each in ours if each.column in summary.columns})
    joined = table.left_join(renamed, list(keys))
    merged = {}
    for each in ours:
        if each.of_labels:
            continue  # `Earlier.frauds` were on the line of time already.
        now, before = joined[each.column], joined[f"before_{each.column}"]
        if each.measure in ("count", "sum"):
            merged[each.column] = now + before.coalesce(0)
        elif each.measure == "max":
            merged[each.column] = (before.coalesce(now) > now.coalesce(before)).ifelse(before, now.coalesce(before))
        else:
            merged[each.column] = before.coalesce(now) if each.measure == "first_time" else now.coalesce(before)
    return joined.mutate(**merged).select(*table.columns)


def _frame(table: "ir.Table", keys: tuple[str, ...], span: int | None, near: int) -> Any:
    """From ``span`` microseconds before the row to ``near`` before it; 0 takes the rows of its own time in."""
    import ibis

    return ibis.range_window(
        group_by=[table[key] for key in keys],
        order_by=table["event_us"],
        **({"preceding": (span, near)} if near else {"preceding": span, "following": 0}),
    )


def _total(scope: str, measure: str) -> str:
    return f"total_{scope}_{measure}"


def _start(span: str, name: str) -> str:
    return f"start_{span}_{name}"


def _value(events: "ir.Table", aggregate: Aggregate) -> "ir.Value":
    scope = SCOPES[aggregate.scope]
    where = None if scope.direction is None else events["is_out"] == (scope.direction == "out")
    return _MEASURES[aggregate.measure](events, where)


_MEASURES: Mapping[str, Callable[..., "ir.Value"]] = {
    "count": lambda events, where: events.count(where=where),
    "sum": lambda events, where: events["amount_minor"].sum(where=where),
    "max": lambda events, where: events["amount_minor"].max(where=where),
    "first_time": lambda events, where: events["event_us"].min(where=where),
    "last_time": lambda events, where: events["event_us"].max(where=where),
}
