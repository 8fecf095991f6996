"""The catalogue once more in slow, plain Python, straight from each feature's description. Used by tests alone."""

import math
from datetime import datetime, timedelta
from typing import Any

from features.contract.standards import COUNTRIES

SPANS = {
    "1h": timedelta(hours=1),
    "1d": timedelta(days=1),
    "7d": timedelta(days=7),
    "30d": timedelta(days=30),
}
NAN = math.nan


def cents(row: dict[str, Any]) -> int:
    return math.floor(row["amount"] * 100 + 0.5)


def known_time(row: dict[str, Any]) -> datetime:
    """When the row's label became known: 7 days after the payment, where the bank does not say."""
    return row["label_time"] if row["label_time"] is not None else row["event_time"] + timedelta(days=7)


def oracle_features(
    rows: list[dict[str, Any]], row: dict[str, Any], channels: list[str], categories: list[str]
) -> dict[str, float]:
    """Every feature of the catalogue for one outgoing row, looking at each earlier row in turn."""
    now: datetime = row["event_time"]
    country = row.get("counterparty_country")
    earlier = [other for other in rows if other["event_time"] < now]
    mine = [other for other in earlier if other["account_id"] == row["account_id"]]
    paid = [other for other in mine if other["direction"] == "out"]
    received = [other for other in mine if other["direction"] == "in"]
    theirs = [
        other for other in earlier if other["counterparty_id"] == row["counterparty_id"] and other["direction"] == "out"
    ]
    pair = [other for other in paid if other["counterparty_id"] == row["counterparty_id"]]

    features: dict[str, float] = {
        "amount": cents(row) / 100,
        "hour_of_day": now.hour,
        "day_of_week": now.weekday(),
        "is_night": float(now.hour in (22, 23, 0, 1, 2, 3, 4, 5)),
        "is_weekend": float(now.strftime("%a") in ("Sat", "Sun")),
        "channel_code": channels.index(row["channel"]),
        "category_code": categories.index(row["category"]),
        "counterparty_country_code": NAN if country is None else COUNTRIES.index(country),
    }
    for owner, history in (("account", paid), ("received", received), ("counterparty", theirs)):
        for name, span in SPANS.items():
            inside = [cents(other) for other in history if other["event_time"] >= now - span]
            features[f"{owner}_count_{name}"] = len(inside)
            features[f"{owner}_sum_{name}"] = sum(inside) / 100
            if owner != "received":
                features[f"{owner}_max_{name}"] = max(inside) / 100 if inside else NAN
                features[f"{owner}_mean_{name}"] = sum(inside) / 100 / len(inside) if inside else NAN

    for owner, key in (("account", "account_id"), ("counterparty", "counterparty_id")):
        for days in (7, 30) if owner == "account" else (1, 7, 30):
            features[f"{owner}_fraud_count_{days}d"] = sum(
                other["direction"] == "out"
                and other[key] == row[key]
                and other["is_fraud"] == 1
                and now - timedelta(days=days) <= known_time(other) < now
                for other in rows
            )

    for days in (1, 7, 30):
        reported, made = features[f"counterparty_fraud_count_{days}d"], features[f"counterparty_count_{days}d"]
        features[f"counterparty_risk_{days}d"] = reported / (made + 20)
    features["seconds_since_payment"] = _seconds_since(paid, now)
    features["seconds_since_pair"] = _seconds_since(pair, now)
    features["is_new_counterparty"] = float(not pair)
    features["pair_count"] = len(pair)
    month = [cents(other) for other in paid if other["event_time"] >= now - SPANS["30d"]]
    features["amount_to_mean_30d"] = cents(row) * len(month) / sum(month) if sum(month) else NAN
    features["amount_to_max_30d"] = cents(row) / max(month) if month and max(month) else NAN
    day_out = sum(cents(other) for other in paid if other["event_time"] >= now - SPANS["1d"])
    day_in = sum(cents(other) for other in received if other["event_time"] >= now - SPANS["1d"])
    features["pass_through_1d"] = (day_out + cents(row)) / day_in if day_in else NAN
    first = min((other["event_time"] for other in mine), default=None)
    features["history_days"] = NAN if first is None else (now - first) / timedelta(days=1)
    return features


def _seconds_since(history: list[dict[str, Any]], now: datetime) -> float:
    if not history:
        return NAN
    return (now - max(other["event_time"] for other in history)) / timedelta(seconds=1)
