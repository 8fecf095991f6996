"""Every feature there is: its name, what it means, what it needs, and the Ibis expression that makes it. Runs nothing.

A contract picks from this catalogue and adds a bin grid. To add a feature, add a `Definition`; its meaning must never
change afterwards, since models refer to it by name: a new meaning is a new name.

Missing is null, NaN in the feature table: a mean of nothing, a time since never, a ratio to nothing. A count or a sum
of nothing is 0. Amounts are in the contract's currency, times in UTC. There is no logarithm of an amount: trees split
by order alone, and log differs in its last digit between engines.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from features.engineering.windows import Aggregate, Measure
from features.sources.dialects import MICROSECONDS_PER_SECOND

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from features.contract.schema import DataContract

__all__ = ["CATALOGUE", "OWN_RISK_SMOOTHING", "Definition"]

_DAY_US = 86_400 * MICROSECONDS_PER_SECOND

Build = Callable[["ir.Table", "DataContract"], "ir.Value"]


@dataclass(frozen=True, slots=True)
class Definition:
    """One feature.

    Attributes:
        needs: aggregates that must be columns of the table handed to ``build``.
        columns: those of the contract's optional columns that it reads.
        build: from the table of events with those columns, and the contract, to the feature's expression.
    """

    name: str
    description: str
    build: Build
    needs: frozenset[Aggregate] = frozenset()
    columns: frozenset[str] = frozenset()


def _amount(events: "ir.Table", contract: "DataContract") -> "ir.Value":
    return _major(events["amount_minor"], contract)


def _major(minor: "ir.Value", contract: "DataContract") -> "ir.Value":
    """Whole minor units to currency units: one division of two exact numbers, so the same on every engine."""
    return minor.cast("float64") / float(10**contract.minor_unit_digits)


def _flag(true: "ir.BooleanValue") -> "ir.Value":
    """1 or 0, by a choice rather than a cast: PostgreSQL casts no boolean to a 64-bit number."""
    import ibis

    return true.ifelse(ibis.literal(1, "int64"), ibis.literal(0, "int64"))


def _hour(events: "ir.Table", contract: "DataContract") -> "ir.Value":
    return events["event_time"].hour()


def _weekday(events: "ir.Table", contract: "DataContract") -> "ir.Value":
    return events["event_time"].day_of_week.index()


def _night(events: "ir.Table", contract: "DataContract") -> "ir.Value":
    hour = events["event_time"].hour()
    return _flag((hour < 6) | (hour >= 22))


def _weekend(events: "ir.Table", contract: "DataContract") -> "ir.Value":
    return _flag(events["event_time"].day_of_week.index() >= 5)


def _code(column: str) -> Build:
    def build(events: "ir.Table", contract: "DataContract") -> "ir.Value":
        words = contract.codes(column)
        return events[column].cases(*[(word, number) for number, word in enumerate(words)])

    return build


def _seconds_since(moment: Aggregate) -> Build:
    def build(events: "ir.Table", contract: "DataContract") -> "ir.Value":
        return (events["event_us"] - events[moment.column]).cast("float64") / float(MICROSECONDS_PER_SECOND)

    return build


def _positive(value: "ir.Value") -> "ir.Value":
    """The value as float64, null where it is 0 or missing: a divisor that never divides by zero."""
    return value.cast("float64").nullif(0.0)


def _window(owner: str, scope: str, measure: str, span: str, words: str) -> Definition:
    """``count``, ``sum``, ``max`` or ``mean`` of one scope over one span."""
    name = f"{owner}_{measure}_{span}"
    period = {"1h": "hour", "1d": "day", "7d": "7 days", "30d": "30 days"}[span]
    head = {"count": "Number", "sum": "Sum of the amounts", "max": "Largest amount", "mean": "Mean amount"}[measure]
    unit = "" if measure == "count" else ", in currency units"
    description = f"{head} of {words} in the {period} before it{unit}."
    count, total = Aggregate(scope, "count", span), Aggregate(scope, "sum", span)
    if measure == "mean":
        return Definition(
            name,
            description,
            lambda events, contract: _major(events[total.column], contract) / _positive(events[count.column]),
            frozenset({count, total}),
        )
    if measure == "count":
        return Definition(name, description, lambda events, contract: events[count.column], frozenset({count}))
    kind: Measure = "sum" if measure == "sum" else "max"
    single = Aggregate(scope, kind, span)
    return Definition(
        name, description, lambda events, contract: _major(events[single.column], contract), frozenset({single})
    )


_LAST_OUT = Aggregate("account_out", "last_time", "ever")
_LAST_PAIR = Aggregate("pair_out", "last_time", "ever")
_COUNT_PAIR = Aggregate("pair_out", "count", "ever")
_FIRST = Aggregate("account", "first_time", "ever")
_COUNT_30D = Aggregate("account_out", "count", "30d")
_SUM_30D = Aggregate("account_out", "sum", "30d")
_MAX_30D = Aggregate("account_out", "max", "30d")
_OUT_1D = Aggregate("account_out", "sum", "1d")
_IN_1D = Aggregate("account_in", "sum", "1d")


OWN_RISK_SMOOTHING = 20
"""Payments added to the divisor of a bank's own risk: part of the feature's meaning, so no contract changes it."""


def _period(span: str) -> str:
    days = int(span[:-1])
    return "day" if days == 1 else f"{days} days"


def _frauds(owner: str, span: str, words: str) -> Definition:
    """Frauds known by the time of the row, by when they became known."""
    known = Aggregate(f"{owner}_fraud", "count", span)
    return Definition(
        f"{owner}_fraud_count_{span}",
        f"Number of {words} that became known as fraud in the {_period(span)} before it.",
        lambda events, contract: events[known.column],
        frozenset({known}),
    )


def _risk(span: str) -> Definition:
    """Such frauds over such payments, both as this bank alone saw them: one division of two whole numbers."""
    known, paid = Aggregate("counterparty_fraud", "count", span), Aggregate("counterparty_out", "count", span)
    return Definition(
        f"counterparty_risk_{span}",
        "This bank's customers' payments to the counterparty that became known as fraud, over all such payments "
        f"plus {OWN_RISK_SMOOTHING}, in the {_period(span)} before it.",
        lambda events, contract: (
            events[known.column].cast("float64") / (events[paid.column] + OWN_RISK_SMOOTHING).cast("float64")
        ),
        frozenset({known, paid}),
    )


_DEFINITIONS = (
    Definition("amount", "Amount of the payment, in currency units.", _amount),
    Definition("hour_of_day", "Hour of the payment, 0 to 23, UTC.", _hour),
    Definition("day_of_week", "Day of the payment, 0 is Monday and 6 is Sunday, UTC.", _weekday),
    Definition("is_night", "1 from 22:00 to 06:00 UTC, else 0.", _night),
    Definition("is_weekend", "1 on Saturday and Sunday UTC, else 0.", _weekend),
    Definition("channel_code", "Place of the channel in the contract's vocabulary, from 0.", _code("channel")),
    Definition("category_code", "Place of the category in the contract's vocabulary, from 0.", _code("category")),
    Definition(
        "counterparty_country_code",
        "Place of the counterparty's country in the contract's vocabulary, from 0; missing if not known.",
        _code("counterparty_country"),
        columns=frozenset({"counterparty_country"}),
    ),
    *(
        _window("account", "account_out", measure, span, "the account's outgoing payments")
        for measure in ("count", "sum", "max", "mean")
        for span in ("1h", "1d", "7d", "30d")
    ),
    *(
        _window("received", "account_in", measure, span, "payments the account received")
        for measure in ("count", "sum")
        for span in ("1h", "1d", "7d", "30d")
    ),
    *(
        _window(
            "counterparty", "counterparty_out", measure, span, "this bank's customers' payments to the counterparty"
        )
        for measure in ("count", "sum", "max", "mean")
        for span in ("1h", "1d", "7d", "30d")
    ),
    *(_frauds("account", span, "the account's outgoing payments") for span in ("7d", "30d")),
    *(
        _frauds("counterparty", span, "this bank's customers' payments to the counterparty")
        for span in ("1d", "7d", "30d")
    ),
    *(_risk(span) for span in ("1d", "7d", "30d")),
    Definition(
        "seconds_since_payment",
        "Seconds since the account's last outgoing payment; missing if there was none.",
        _seconds_since(_LAST_OUT),
        frozenset({_LAST_OUT}),
    ),
    Definition(
        "seconds_since_pair",
        "Seconds since the account last paid this counterparty; missing if it never did.",
        _seconds_since(_LAST_PAIR),
        frozenset({_LAST_PAIR}),
    ),
    Definition(
        "is_new_counterparty",
        "1 if the account never paid this counterparty before, else 0.",
        lambda events, contract: _flag(events[_COUNT_PAIR.column] == 0),
        frozenset({_COUNT_PAIR}),
    ),
    Definition(
        "pair_count",
        "How often the account paid this counterparty before.",
        lambda events, contract: events[_COUNT_PAIR.column],
        frozenset({_COUNT_PAIR}),
    ),
    Definition(
        "amount_to_mean_30d",
        "Amount over the account's mean outgoing amount of the 30 days before; missing if it paid nothing.",
        lambda events, contract: (
            events["amount_minor"].cast("float64")
            * events[_COUNT_30D.column].cast("float64")
            / _positive(events[_SUM_30D.column])
        ),
        frozenset({_COUNT_30D, _SUM_30D}),
    ),
    Definition(
        "amount_to_max_30d",
        "Amount over the account's largest outgoing amount of the 30 days before; missing if it paid nothing.",
        lambda events, contract: events["amount_minor"].cast("float64") / _positive(events[_MAX_30D.column]),
        frozenset({_MAX_30D}),
    ),
    Definition(
        "pass_through_1d",
        "What the account paid in the day before, this payment included, over what it received in that day; "
        "missing if it received nothing. Near 1 in a mule's account.",
        lambda events, contract: (
            (events[_OUT_1D.column] + events["amount_minor"]).cast("float64") / _positive(events[_IN_1D.column])
        ),
        frozenset({_OUT_1D, _IN_1D}),
    ),
    Definition(
        "history_days",
        "Days since the account's first payment in either direction; missing if this is the first.",
        lambda events, contract: (events["event_us"] - events[_FIRST.column]).cast("float64") / float(_DAY_US),
        frozenset({_FIRST}),
    ),
)

CATALOGUE: Mapping[str, Definition] = {definition.name: definition for definition in _DEFINITIONS}
"""Every definition by its name."""
