"""The bank's data quality report: set rules on its own store, as JSON and as a page with plots. It sends nothing.

One report for each newest day, in ``work_dir/quality``; the last one decides at the gate (`bank_node.pipeline.gate`).
"""

import datetime as dt
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import jinja2
import numpy as np
import numpy.typing as npt

from bank_node.boosting import grid_counts
from bank_node.config import BankConfig
from bank_node.consortium import Log, SecureSum
from bank_node.data_governance.drift import (
    RECENT_DAYS,
    SHORT_DAYS,
    drift_of,
    psi,
    recent_and_past,
    split_counts,
)
from bank_node.dtypes import Floats, Integers
from bank_node.files import write_atomic
from features import DataContract
from features.contract.row_rules import SHARED_ID
from features.incremental import read_features
from features.quality import QualityReport, daily_counts, judge, judge_drift
from features.sources.files import engine
from features.store.partitions import FeatureStore
from protocol.run_plan import RunPlan
from protocol.steps import Step

__all__ = ["assess", "expected_until", "plot", "render", "told_of_bins", "write_report"]


_WIDTH, _HEIGHT = 720, 90


def assess(config: BankConfig, contract: DataContract, expected_until: dt.date | None) -> QualityReport:
    """Judge the payments in the bank's store.

    Args:
        expected_until: the date by which a run expects payments; None judges no freshness.
    """
    store = FeatureStore(config.store_dir)
    files = [str(store.partition("events", day)) for day in store.days("events")]
    days = []
    if files:
        with engine() as connection:
            days = daily_counts(connection.read_parquet(files), contract)
    quarantined: dict[str, int] = {}
    rows = 0
    for entry in store.entries().values():
        rows += int(entry["rows"])
        for column, reason, count in entry["quarantined"]:
            name = f"{column or 'line'}: {reason}"
            quarantined[name] = quarantined.get(name, 0) + int(count)
    if others := sum(count for count, _ in store.others().values()):
        name = f"payment_id: {SHARED_ID}"
        quarantined[name] = quarantined.get(name, 0) + others
    report = judge(
        days,
        contract.quality,
        label_delay_days=contract.label.delay_days,
        rows=rows,
        quarantined=quarantined,
        expected_until=expected_until,
    )
    drift = judge_drift(_own_drift(store, contract), contract.quality)
    return replace(report, findings=(*report.findings, *drift))


def expected_until(plan: RunPlan, opened: dt.datetime) -> dt.date:
    """Until which day a run expects payments: as its plan says, or where its training rows end, or when it was opened.

    Args:
        plan: the run's.
        opened: when, UTC.
    """
    if plan.data_until is not None:
        return plan.data_until
    return opened.date() if plan.train_until is None else plan.train_until.date()


def _own_drift(store: FeatureStore, contract: DataContract) -> dict[str, float | None]:
    """PSI of the newest days' features against the days before, by feature; one pass, a day in memory at a time.

    Shared features are not judged here: of the days since the last run the bank has no tables yet.
    """
    names = contract.local_names
    days = [day for day in store.days("features") if store.facts(store.partition("features", day)).get("rows")]
    if not days:
        return {}
    newest, full = days[-1] - dt.timedelta(days=RECENT_DAYS), days[0] + dt.timedelta(days=SHORT_DAYS)
    grids = [feature.grid.edges() for feature in contract.features if feature.name in names]
    found = {which: [np.zeros(len(grid) + 2, dtype=np.int64) for grid in grids] for which in (True, False)}
    edge = newest + dt.timedelta(days=1)
    for first, last, recent in ((full, edge, False), (edge, None, True)):
        for table in read_features(store, contract, since=first, until=last):
            if not len(table):
                continue
            columns = np.column_stack([table[name].to_numpy().astype(np.float32) for name in names])
            for total, counts in zip(found[recent], grid_counts(columns, grids, names), strict=True):
                total += counts
    return {name: psi(new, old) for name, new, old in zip(names, found[True], found[False], strict=True)}


def write_report(config: BankConfig, report: QualityReport) -> Path:
    """Write ``<newest day>.json`` and ``.html``; returns the page's path."""
    name = report.newest.isoformat() if report.newest else "no-payments"
    folder = config.work_dir / "quality"
    write_atomic(folder / f"{name}.json", json.dumps(report.to_mapping(), indent=2).encode())
    path = folder / f"{name}.html"
    write_atomic(path, render(config.bank_id, report).encode())
    return path


def told_of_bins(
    config: BankConfig,
    contract: DataContract,
    times: npt.NDArray[np.datetime64],
    columns: Floats,
    ours: Integers,
    total: Integers,
    secure_sum: SecureSum,
    unit: int,
    run_id: str,
    first_words: str,
    log: Log,
) -> str:
    """Write the bank's drift into the run's folder, sum the counts that the contract publishes; a line for the node.

    Args:
        times, columns: of the rows the bank trains on, in order of time.
        ours, total: our counts of the binning step, and all banks'.
        secure_sum: for the published counts, as step ``bins/<unit>/counts``.
        first_words: what to say before.
        log: told of the drift, whatever the contract publishes.
    """
    grids = [feature.grid.edges() for feature in contract.features]
    sizes = [len(grid) + 2 for grid in grids]
    newest, past = recent_and_past(times)
    drift = drift_of(
        contract.feature_names,
        split_counts(ours, sizes),
        split_counts(total, sizes),
        grid_counts(columns[newest], grids, contract.feature_names),
        grid_counts(columns[past], grids, contract.feature_names),
        contract.quality.growing,
    )
    log(drift.words)
    write_atomic(config.run_dir(run_id) / "drift.json", json.dumps(drift.to_mapping(), indent=2).encode())
    words = [first_words] if first_words else []
    if contract.quality.publish_counts:
        store = FeatureStore(config.store_dir)
        entries = store.entries().values()
        bad = sum(int(count) for entry in entries for *_, count in entry["quarantined"])
        bad += sum(count for count, _ in store.others().values())
        counts = np.array([sum(int(entry["rows"]) for entry in entries), bad], dtype=np.int64)
        read, quarantined = secure_sum(Step.bins(unit, "counts").text, counts).tolist()
        words.append(f"all banks read {read} rows, {quarantined} quarantined")
    if contract.quality.publish_drift:
        words.append(drift.words)
    return "; ".join(words)


def plot(values: Sequence[float | None], labels: Sequence[str]) -> str:
    """Bars as SVG, one a value, None for no bar; each with its label as a tooltip."""
    top = max((value for value in values if value is not None), default=0.0) or 1.0
    step = _WIDTH / max(len(values), 1)
    bars = []
    for place, (value, label) in enumerate(zip(values, labels, strict=True)):
        height = 0.0 if value is None else (_HEIGHT - 4) * value / top
        bars.append(
            f'<rect x="{place * step:.2f}" y="{_HEIGHT - height:.2f}" width="{max(step - 0.5, 0.5):.2f}" '
            f'height="{height:.2f}"><title>{label}</title></rect>'
        )
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">{"".join(bars)}</svg>'


def render(bank: str, report: QualityReport) -> str:
    """The page: verdict, rules, plots by day, quarantined rows. Needs nothing from outside."""
    days = report.days

    def share(count: int, of: int) -> float | None:
        return count / of if of else None

    series: dict[str, list[tuple[float | None, str]]] = {
        "outgoing payments": [(float(each.payments), f"{each.payments}") for each in days],
        "frauds of labelled payments": _shares([share(each.frauds, each.labelled) for each in days]),
        "payments without a label": _shares([share(each.payments - each.labelled, each.payments) for each in days]),
    }
    for name in days[-1].missing if days else ():
        series[f"missing {name}"] = _shares([share(each.missing.get(name, 0), each.payments) for each in days])
    plots = {
        title: plot(
            [value for value, _ in points],
            [f"{each.day.isoformat()}: {label}" for each, (_, label) in zip(days, points, strict=True)],
        )
        for title, points in series.items()
    }
    page = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(_PAGE)
    return page.render(bank=bank, report=report, plots={title: _safe(svg) for title, svg in plots.items()})


def _shares(values: Sequence[float | None]) -> list[tuple[float | None, str]]:
    return [(value, "no row" if value is None else f"{value:.2%}") for value in values]


def _safe(svg: str) -> str:
    # Made above of numbers and dates only.
    from markupsafe import Markup

    return Markup(svg)  # noqa: S704


_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Data quality of {{ bank }}</title>
<style>body{font:15px system-ui,sans-serif;max-width:760px;margin:2em auto;color:#222}table{border-collapse:collapse}
td,th{padding:.25em .7em;text-align:left;border-bottom:1px solid #ddd}.bad{color:#b00020}.good{color:#1b6e3c}
svg{width:100%;height:90px;background:#f6f6f6;fill:#3b6ea5}</style></head><body>
<h1>Data quality of {{ bank }}</h1>
<p class="{{ 'good' if report.passed else 'bad' }}">{{ 'The gate is open.' if report.passed else
 'The gate is closed: ' ~ report.public_reason ~ '.' }}</p>
<p>Up to {{ report.newest or 'no day' }}. {{ report.rows }} rows read.</p>
<table><tbody>{% for each in report.findings %}<tr><td>{{ each.rule }}</td><td>{{ each.subject }}</td>
<td class="{{ 'bad' if each.good == False or each.warning else 'good' if each.good else '' }}">{{ each.verdict
 }}</td><td>{{ each.words }}</td></tr>{% endfor %}</tbody></table>
{% for title, svg in plots.items() %}<h2>{{ title }}, by day</h2>{{ svg }}{% endfor %}
<h2>Quarantined rows</h2>{% if report.quarantined %}<table><tbody>{% for reason, count in report.quarantined.items() %}
<tr><td>{{ reason }}</td><td>{{ count }}</td></tr>{% endfor %}</tbody></table>{% else %}<p>None.</p>{% endif %}
</body></html>
"""
