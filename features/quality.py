"""Set rules: whether a bank's payments as a whole look as they did. Counts by day in, findings out; stops nothing.

Row rules say whether a row is right (`features.engineering.validation`); a feed may be made of right rows and be
broken all the same: half of it missing, a column empty since Tuesday, no label for weeks, nothing new. Findings hold
counts and shares, never a value of the data.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from statistics import median
from typing import TYPE_CHECKING, Any

from features.contract.label_time import is_settled
from features.contract.sections import QualitySpec

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from features.contract.schema import DataContract

__all__ = ["DayCounts", "Finding", "QualityReport", "daily_counts", "judge", "judge_drift", "quarantine_finding"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DayCounts:
    """Counts of one day's payments.

    Attributes:
        payments: outgoing ones, which the other counts are of.
        missing: by column that may be null, without the label's.
    """

    day: date
    payments: int
    received: int = 0
    labelled: int = 0
    frauds: int = 0
    missing: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One rule's outcome.

    Attributes:
        rule: its name.
        subject: the column, or "" for the table.
        good: None where the rule could not be judged.
        words: what was found, with counts and shares; stays at the bank.
        public: what the consortium may be told if it is bad: rule and column, no count.
        warning: whether it holds, but is worth a look.
    """

    rule: str
    subject: str
    good: bool | None
    words: str
    public: str
    warning: bool = False

    @property
    def verdict(self) -> str:
        """One word: broken, holds, not judged; or a warning."""
        if self.good is None:
            return "not judged"
        return "broken" if not self.good else "warning" if self.warning else "holds"


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityReport:
    """What the set rules say of a bank's payments up to a day."""

    newest: date | None
    findings: tuple[Finding, ...]
    days: tuple[DayCounts, ...]
    rows: int
    quarantined: Mapping[str, int]

    @property
    def bad(self) -> tuple[Finding, ...]:
        """The broken rules."""
        return tuple(finding for finding in self.findings if finding.good is False)

    @property
    def passed(self) -> bool:
        """Whether no rule is broken."""
        return not self.bad

    @property
    def reason(self) -> str:
        """For the bank's own log: every broken rule with its counts."""
        return "; ".join(finding.words for finding in self.bad)

    @property
    def public_reason(self) -> str:
        """For the consortium: the broken rules' names and columns."""
        return "data quality gate: " + ", ".join(dict.fromkeys(finding.public for finding in self.bad))

    def to_mapping(self) -> dict[str, Any]:
        """A plain mapping, for JSON."""
        return {
            "newest": self.newest.isoformat() if self.newest else None,
            "passed": self.passed,
            "rows": self.rows,
            "quarantined": dict(self.quarantined),
            "findings": [
                {
                    "rule": each.rule,
                    "subject": each.subject,
                    "good": each.good,
                    "warning": each.warning,
                    "words": each.words,
                }
                for each in self.findings
            ],
            "days": [
                {
                    "day": each.day.isoformat(),
                    "payments": each.payments,
                    "received": each.received,
                    "labelled": each.labelled,
                    "frauds": each.frauds,
                    "missing": dict(each.missing),
                }
                for each in self.days
            ],
        }


def daily_counts(events: "ir.Table", contract: "DataContract") -> list[DayCounts]:
    """Counts by day, in order, from a table of payments: one scan. A day without any payment is there with zeros."""
    columns = [
        column.name
        for column in contract.columns
        if column.nullable and column.name not in (contract.label.column, contract.label.time_column)
    ]
    columns = [name for name in columns if name in events.columns]
    out = events["direction"] == "out"
    counted = events.group_by(day_=events["event_time"].date()).aggregate(
        payments_=out.sum(),
        received_=(~out).sum(),
        labelled_=(out & events["is_fraud"].notnull()).sum(),
        frauds_=(out & (events["is_fraud"] == 1)).sum(),
        **{f"missing_{name}": (out & events[name].isnull()).sum() for name in columns},
    )
    frame = counted.order_by("day_").to_pandas().fillna(0)
    found: dict[date, DayCounts] = {}
    for row in frame.to_dict("records"):
        day = row["day_"] if isinstance(row["day_"], date) else row["day_"].date()
        day = date(day.year, day.month, day.day)
        found[day] = DayCounts(
            day=day,
            payments=int(row["payments_"]),
            received=int(row["received_"]),
            labelled=int(row["labelled_"]),
            frauds=int(row["frauds_"]),
            missing={name: int(row[f"missing_{name}"]) for name in columns},
        )
    if not found:
        return []
    first, last = min(found), max(found)
    every = [first + timedelta(days=number) for number in range((last - first).days + 1)]
    return [found.get(day, DayCounts(day=day, payments=0, missing=dict.fromkeys(columns, 0))) for day in every]


def judge(
    days: Sequence[DayCounts],
    spec: QualitySpec,
    *,
    label_delay_days: int,
    rows: int,
    quarantined: Mapping[str, int],
    expected_until: date | None,
) -> QualityReport:
    """The set rules' findings.

    Args:
        days: every day from the first to the newest, in order.
        spec: the contract's limits.
        label_delay_days: labels of younger payments are not looked at.
        rows: rows that the bank's files have.
        quarantined: how many of them could not be read, by reason.
        expected_until: the date by which a run expects payments; None judges no freshness.
    """
    newest = days[-1].day if days else None
    recent, history = list(days[-spec.recent_days :]), list(days[: -spec.recent_days])[-spec.history_days :]
    findings = [
        _freshness(newest, spec, expected_until),
        quarantine_finding(rows, sum(quarantined.values()), spec),
        _volume(recent, history, spec),
        *(_missing(name, recent, history, spec) for name in (days[-1].missing if days else ())),
        *_labels(days, spec, label_delay_days),
    ]
    return QualityReport(
        newest=newest, findings=tuple(findings), days=tuple(days), rows=rows, quarantined=dict(quarantined)
    )


def _freshness(newest: date | None, spec: QualitySpec, expected: date | None) -> Finding:
    def finding(good: bool | None, words: str) -> Finding:
        return Finding(rule="freshness", subject="", good=good, words=words, public="freshness")

    if newest is None:
        return finding(False, "there is no payment at all")
    if expected is None:
        return finding(None, f"the newest payment is of {newest}; no run announces until when payments are expected")
    age = (expected - newest).days
    return finding(
        age <= spec.stale_days,
        f"the newest payment is of {newest}, {age} days before {expected}; {spec.stale_days} may be",
    )


def judge_drift(indices: Mapping[str, float | None], spec: QualitySpec) -> list[Finding]:
    """What the features' drift against the bank's own past comes to: a finding for each that is worth one.

    Args:
        indices: population stability index by feature; None where there are too few rows.
        spec: the contract's limits; its growing features are not judged.
    """
    known = {name: value for name, value in indices.items() if value is not None and name not in spec.growing}
    if not known:
        return [Finding(rule="drift", subject="", good=None, words="too few rows to compare", public="drift")]
    findings = []
    for name, value in sorted(known.items(), key=lambda each: -each[1]):
        if value >= spec.drift_warn:
            findings.append(
                Finding(
                    rule="drift",
                    subject=name,
                    good=value < spec.drift_stop,
                    words=f"feature {name}: PSI {value:.2f} against the days before; a warning from "
                    f"{spec.drift_warn:g} on, no joining from {spec.drift_stop:g} on",
                    public=f"drift of {name}" if spec.publish_drift else "drift",
                    warning=True,
                )
            )
    if not findings:
        worst = max(known, key=lambda name: known[name])
        words = f"largest PSI against the days before: {known[worst]:.2f} ({worst})"
        findings.append(Finding(rule="drift", subject="", good=True, words=words, public="drift"))
    return findings


def quarantine_finding(rows: int, bad: int, spec: QualitySpec) -> Finding:
    """Whether no more rows were set aside than the contract lets pass."""
    share = bad / rows if rows else 0.0
    words = f"{bad} of {rows} rows ({share:.1%}) were quarantined; {spec.quarantined:.1%} may be"
    return Finding(
        rule="quarantine", subject="", good=share <= spec.quarantined, words=words, public="rows quarantined"
    )


def _volume(recent: Sequence[DayCounts], history: Sequence[DayCounts], spec: QualitySpec) -> Finding:
    by_weekday: dict[int, list[int]] = {}
    for each in history:
        by_weekday.setdefault(each.day.weekday(), []).append(each.payments)
    usual = {weekday: median(counts) for weekday, counts in by_weekday.items()}
    if len(history) < 7 or not any(usual.values()):
        return Finding(rule="volume", subject="", good=None, words="too little history", public="volume")
    bad = []
    for each in recent:
        before = usual.get(each.day.weekday(), 0)
        ratio = each.payments / before if before else None
        if ratio is not None and not spec.volume_low <= ratio <= spec.volume_high:
            bad.append((each.day, ratio))
    words = f"{len(bad)} of the last {len(recent)} days have a volume outside {spec.volume_low:g} to "
    words += f"{spec.volume_high:g} times the usual of their weekday; {spec.bad_days} may"
    if bad:
        words += f" (first: {bad[0][0]}, {bad[0][1]:.2f} times)"
    return Finding(rule="volume", subject="", good=len(bad) <= spec.bad_days, words=words, public="volume")


def _share(counts: Sequence[int], of: Sequence[int]) -> float | None:
    return sum(counts) / sum(of) if sum(of) else None


def _missing(name: str, recent: Sequence[DayCounts], history: Sequence[DayCounts], spec: QualitySpec) -> Finding:
    now = _share([each.missing.get(name, 0) for each in recent], [each.payments for each in recent])
    before = _share([each.missing.get(name, 0) for each in history], [each.payments for each in history])
    public = f"missing values in {name}"
    if now is None or before is None:
        return Finding(rule="missing", subject=name, good=None, words=f"{name}: too little history", public=public)
    words = f"column {name}: {now:.1%} missing in the last {len(recent)} days, {before:.1%} before; "
    words += f"a rise of {spec.missing_rise:.0%} may be"
    return Finding(rule="missing", subject=name, good=now - before <= spec.missing_rise, words=words, public=public)


def _labels(days: Sequence[DayCounts], spec: QualitySpec, delay: int) -> list[Finding]:
    settled = [each for each in days if is_settled(each.day, days[-1].day, delay)]
    recent, history = settled[-spec.recent_days :], settled[: -spec.recent_days][-spec.history_days :]
    rate = _share([each.frauds for each in recent], [each.labelled for each in recent])
    words = "no settled label" if rate is None else f"{rate:.2%} of recent settled labels are frauds; "
    words += "" if rate is None else f"{spec.label_rate_high:.0%} may be"
    findings = [
        Finding(
            rule="label rate",
            subject="is_fraud",
            good=None if rate is None else rate <= spec.label_rate_high,
            words=words,
            public="label rate",
        )
    ]
    now = _share([each.payments - each.labelled for each in recent], [each.payments for each in recent])
    before = _share([each.payments - each.labelled for each in history], [each.payments for each in history])
    good = None if now is None or before is None else now - before <= spec.unlabelled_rise
    words = (
        "too little history" if good is None else f"{now:.1%} of settled payments have no label, {before:.1%} before"
    )
    findings.append(Finding(rule="labels missing", subject="is_fraud", good=good, words=words, public="labels missing"))
    return findings
