"""What an account, a counterparty or a pair did before a moment, as Ibis expressions. Reads nothing, runs nothing.

Point in time is the whole matter here. A window of span w at a row of time t is ``[t - w, t)``: the row itself and all
rows of the same microsecond are outside, whatever their order in the file. That is a RANGE frame over whole
microseconds. Amounts are summed as whole minor units, so a sum is exact and doesn't depend on the order in which
threads add.

A window that counts labels runs on another clock: a fraud counts from the moment its label became known, never from
the payment's own time, so a row can't see a label that nobody had yet.

Speed: finding where a frame begins and ends costs more than adding up what is in it. So on an engine that takes a frame
as numbers of rows (``frames="rows"``, DuckDB) each span is looked up once per set of keys, and every aggregate of that
span reads the same rows; there are two sorts per set of keys, however many aggregates. On other engines
(``frames="range"``) each aggregate states its frame in time. The values are the same: docs/data.md, docs/benchmarks.md.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any, Literal

from features.sources.dialects import MICROSECONDS_PER_SECOND, Frames

if TYPE_CHECKING:
    import ibis.expr.types as ir

__all__ = [
    "LONGEST_SPAN_US",
    "SCOPES",
    "SPANS",
    "Aggregate",
    "Earlier",
    "Measure",
    "Scope",
    "summarised",
    "with_aggregates",
]

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
    events: "ir.Table",
    aggregates: frozenset[Aggregate],
    *,
    earlier: Earlier | None = None,
    frames: Frames = "rows",
) -> "ir.Table":
    """The events with one more column for each aggregate, int64: 0 for an empty count or sum, else null when empty.

    Args:
        events: the rows before a row are its history, so either all events of the bank, or those of the span that the
            longest window reaches back together with ``earlier``: the key columns, ``event_us`` (int64, microseconds
            since 1970 UTC), ``amount_minor`` (int64), ``is_out`` (boolean); for aggregates of labels also
            ``is_fraud`` and ``known_us`` (int64), and unique ``payment_id`` and ``direction``.
        aggregates: which to compute; each set of keys costs a sort, each span of it a look-up per row.
        earlier: what happened before the first event, or None if nothing did.
        frames: "range" for an engine whose frames can't be columns, as PostgreSQL's and Spark's; same values.
    """
    table = events
    for keys in sorted({aggregate.keys for aggregate in aggregates}):
        ours = sorted(aggregate for aggregate in aggregates if aggregate.keys == keys)
        table = _over_payments(table, keys, [each for each in ours if not each.of_labels], frames)
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


def _over_payments(table: "ir.Table", keys: tuple[str, ...], ours: list[Aggregate], frames: Frames) -> "ir.Table":
    if not ours:
        return table
    if frames == "range":
        return table.mutate(
            **{each.column: _over(table, each, _frame(table, keys, SPANS[each.span], 1)) for each in ours}
        )
    placed = table.mutate(**_places(table, keys, sorted({each.span for each in ours})))
    made = placed.mutate(**{each.column: _over(placed, each, _rows(placed, keys, each.span)) for each in ours})
    return made.drop(*(name for name in placed.columns if name not in table.columns))


def _places(table: "ir.Table", keys: tuple[str, ...], spans: list[str]) -> dict[str, "ir.Value"]:
    """Where a row stands among those of its keys, and how many rows each of its windows holds.

    ``row_``: rows above it in some order of time; ``ties_``: rows of its own time above it in that order;
    ``rows_SPAN``: rows in the window.
    """
    import ibis

    order = ibis.window(group_by=[table[key] for key in keys], order_by=table["event_us"])
    number = ibis.row_number().over(order)
    # Up to and with the rows of the same time: an end that needs no search. They are taken off again.
    same = table.count().over(_frame(table, keys, 0, 0))
    upto = {span: table.count().over(_frame(table, keys, SPANS[span], 0)) for span in spans if SPANS[span] is not None}
    return {
        "row_": number,
        "ties_": number - ibis.rank().over(order),
        **{f"rows_{span}": rows - same for span, rows in upto.items()},
    }


def _rows(placed: "ir.Table", keys: tuple[str, ...], span: str) -> Any:
    """The window as a frame of rows: those above the row and its ties."""
    import ibis

    ties = placed["ties_"]
    start = None if SPANS[span] is None else -(ties + placed[f"rows_{span}"])
    return ibis.window(group_by=[placed[key] for key in keys], order_by=placed["row_"], rows=(start, -(ties + 1)))


def _over(table: "ir.Table", aggregate: Aggregate, window: Any) -> "ir.Value":
    value = _value(table, aggregate).over(window).cast("int64")
    return value.coalesce(0) if aggregate.measure in ("count", "sum") else value


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


def _value(events: "ir.Table", aggregate: Aggregate) -> "ir.Value":
    scope = SCOPES[aggregate.scope]
    where = None if scope.direction is None else events["is_out"] == (scope.direction == "out")
    return _MEASURES[aggregate.measure](events, where)


def _count(events: "ir.Table", where: "ir.BooleanValue | None") -> "ir.Value":
    """A count of values, not ``count(*)`` with a filter: over a frame that one is quadratic in DuckDB 2.0."""
    import ibis

    if where is None:
        return events.count()
    return where.ifelse(ibis.literal(1), ibis.null("int8")).count()


_MEASURES: Mapping[str, Callable[..., "ir.Value"]] = {
    "count": _count,
    "sum": lambda events, where: events["amount_minor"].sum(where=where),
    "max": lambda events, where: events["amount_minor"].max(where=where),
    "first_time": lambda events, where: events["event_us"].min(where=where),
    "last_time": lambda events, where: events["event_us"].max(where=where),
}
