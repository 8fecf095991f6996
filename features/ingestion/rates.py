"""Amounts in other currencies into the contract's, by a table of the day's rates. Fetches no rate."""

import csv
import datetime
import math
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from features.contract.mapping import CurrencyMapping
from features.contract.row_rules import Fault
from features.contract.schema import DataContract
from features.errors import SourceError

if TYPE_CHECKING:
    import ibis.expr.types as ir
    from ibis.backends.duckdb import Backend

__all__ = ["converted"]

_LINE = "day, currency, rate, where rate is how many of the contract's currency one of that currency is worth"
"""What a row of the table of rates is, for messages."""


def converted(
    connection: "Backend",
    raw: "ir.Table",
    values: "dict[str, ir.Value]",
    contract: DataContract,
    currency: CurrencyMapping,
) -> "tuple[ir.Value, list[Fault]]":
    """The amount in the contract's currency, by the rate of the payment's day."""
    import ibis

    code = _codes(raw, currency)
    rates = _rates(currency.rates, currency.stale_days) if currency.rates else {}
    foreign = sorted({other for _, other in rates})
    day = values["event_time"].strftime("%Y-%m-%d")
    name = f"rates_{uuid.uuid4().hex}"
    connection.con.execute(f"CREATE TEMP TABLE {name} (pair VARCHAR PRIMARY KEY, rate DOUBLE)")
    if rates:
        import pyarrow

        pairs = pyarrow.table({"pair": [f"{d} {c}" for d, c in rates], "rate": list(rates.values())})
        connection.con.register(f"{name}_new", pairs)
        connection.con.execute(f"INSERT INTO {name} SELECT pair, rate FROM {name}_new")
        connection.con.unregister(f"{name}_new")
    own = code == contract.currency
    # A map in one value, looked up by key: the raw table keeps its rows and their order.
    table = connection.table(name)
    lookup = table.aggregate(m=ibis.map(table["pair"].collect(), table["rate"].collect())).as_scalar()
    rate = (
        own.ifelse(1.0, lookup.get(day + " " + code, ibis.null("float64")))
        if rates
        else own.ifelse(1.0, ibis.null("float64"))
    )
    return values["amount"] * rate, [
        Fault("amount", "no currency", code.isnull() | (code == "")),
        Fault("amount", "a currency without a rate", code.notnull() & code.notin([contract.currency, *foreign])),
        Fault("amount", "no rate for the day", code.notnull() & values["event_time"].notnull() & rate.isnull()),
    ]


def _codes(raw: "ir.Table", currency: CurrencyMapping) -> "ir.Value":
    """The ISO 4217 code of each row's amount."""
    import ibis

    if currency.source is None:
        return ibis.literal(currency.constant)
    text = raw[currency.source].cast("string").strip()
    if currency.codes:
        text = text.cases(*currency.codes.items(), else_=text)
    return text.upper()


def _rates(path: Path, stale_days: int) -> dict[tuple[str, str], float]:
    """Rates by (day, currency), days without one filled from at most ``stale_days`` before."""
    found: dict[str, dict[datetime.date, float]] = {}
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            for number, row in enumerate(csv.DictReader(stream), start=1):
                try:
                    day, rate = datetime.date.fromisoformat(row["day"]), float(row["rate"])
                    currency = row["currency"].upper()
                except (KeyError, TypeError, ValueError):
                    raise SourceError(f"Rates {path}: row {number} is not {_LINE}.") from None
                if not (math.isfinite(rate) and rate > 0) or day in found.setdefault(currency, {}):
                    raise SourceError(
                        f"Rates {path}: row {number} has no positive rate, or its day is there twice; {_LINE}."
                    )
                found[currency][day] = rate
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"Rates {path} can't be read.") from error
    filled = {}
    for currency, days in found.items():
        for day in sorted(days):
            for step in range(stale_days + 1):
                later = day + datetime.timedelta(days=step)
                if step and later in days:
                    break
                filled[later.isoformat(), currency] = days[day]
    return filled
