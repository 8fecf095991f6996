"""Set rules: each broken feed is found by the rule that is for it, and by no other; a good one passes."""

import dataclasses
from datetime import date, timedelta

import ibis
import pandas as pd
import pytest

from features import load_contract
from features.contract.sections import QualitySpec
from features.quality import DayCounts, daily_counts, judge

SPEC = QualitySpec()
BEGIN = date(2026, 1, 5)


def feed(days: int = 90) -> list[DayCounts]:
    """Fewer payments at weekends, one in 200 a fraud, two in ten without the counterparty's bank."""
    made = []
    for number in range(days):
        day = BEGIN + timedelta(days=number)
        payments = 400 if day.weekday() < 5 else 200
        made.append(
            DayCounts(
                day=day,
                payments=payments,
                received=50,
                labelled=payments if days - number > 7 else 10,
                frauds=payments // 200,
                missing={"counterparty_bank": payments // 5},
            )
        )
    return made


def judged(
    days: list[DayCounts], rows: int = 1000, quarantined: int = 0, until: date | None = BEGIN + timedelta(days=90)
):
    return judge(
        days,
        SPEC,
        label_delay_days=7,
        rows=rows,
        quarantined={"amount: not a number": quarantined},
        expected_until=until,
    )


def changed(days: list[DayCounts], last: int, **factors: float) -> list[DayCounts]:
    """The last so many days with counts multiplied."""

    def one(day: DayCounts) -> DayCounts:
        new = {name: int(getattr(day, name) * factor) for name, factor in factors.items() if name != "missing"}
        if "missing" in factors:
            new["missing"] = {name: int(count * factors["missing"]) for name, count in day.missing.items()}
        return dataclasses.replace(day, **new)

    return days[:-last] + [one(day) for day in days[-last:]]


def broken(report) -> set[str]:
    return {finding.rule for finding in report.bad}


def test_a_good_feed_passes_with_every_rule_judged() -> None:
    report = judged(feed())
    assert report.passed and report.reason == ""
    assert {finding.rule for finding in report.findings if finding.good} == {
        "freshness", "quarantine", "volume", "missing", "label rate", "labels missing",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("report", "rule"),
    [
        (judged(changed(feed(), 5, payments=0.2, labelled=0.2, frauds=0.2, missing=0.2)), "volume"),
        (judged(changed(feed(), 5, payments=3, missing=3, labelled=3, frauds=3)), "volume"),
        (judged(changed(feed(), 14, missing=3)), "missing"),
        (judged(changed(feed(), 40, frauds=60)), "label rate"),
        (judged(changed(feed(), 30, labelled=0.2)), "labels missing"),
        (judged(feed(), until=BEGIN + timedelta(days=96)), "freshness"),
        (judged(feed(), quarantined=51), "quarantine"),
        (judged([]), "freshness"),
    ],
)
def test_a_broken_feed_is_found_by_its_rule(report, rule: str) -> None:
    assert broken(report) == {rule}
    assert not report.passed and report.reason


def test_a_few_odd_days_and_short_histories_stop_nobody() -> None:
    assert judged(changed(feed(), 3, payments=0.1, labelled=0.1, frauds=0.1, missing=0.1)).passed
    short = judged(feed(16), until=None)
    assert short.passed
    assert {f.rule for f in short.findings if f.good is None} >= {"freshness", "volume"}


def test_the_public_reason_has_no_count() -> None:
    report = judged(changed(feed(), 14, missing=3), quarantined=60)
    assert report.public_reason == "data quality gate: rows quarantined, missing values in counterparty_bank"
    assert not any(character.isdigit() for character in report.public_reason)
    assert report.to_mapping()["passed"] is False and len(report.to_mapping()["days"]) == 90


def test_counts_by_day_are_those_of_the_rows() -> None:
    contract = load_contract(None)
    times = pd.to_datetime(["2026-01-05 00:00:00", "2026-01-05 23:59:59", "2026-01-08 12:00:00", "2026-01-08 13:00:00"])
    events = ibis.memtable(
        pd.DataFrame(
            {
                "event_time": times,
                "direction": ["out", "in", "out", "out"],
                "is_fraud": [1.0, None, 0.0, None],
                "counterparty_bank": ["b", None, None, None],
            }
        )
    )
    days = daily_counts(events, contract)
    assert [day.day.isoformat() for day in days] == ["2026-01-05", "2026-01-06", "2026-01-07", "2026-01-08"]
    assert days[0] == DayCounts(
        day=date(2026, 1, 5), payments=1, received=1, labelled=1, frauds=1, missing={"counterparty_bank": 0}
    )
    assert days[1].payments == 0 and days[3].payments == 2 and days[3].labelled == 1
    assert days[3].missing == {"counterparty_bank": 2}
