"""Renders the results of the demo and the benchmarks as Markdown, one function a result. It reads no file."""

from collections.abc import Mapping
from statistics import mean, median
from typing import Any

from docs.generate.markdown import table

__all__ = [
    "calibrations",
    "defaults",
    "demo",
    "kernels",
    "large",
    "layouts",
    "peers",
    "peers_ratios",
    "risk",
    "scaling",
    "shared_benefit",
    "soak",
    "training",
    "training_large",
    "windows",
]

Result = Mapping[str, Any]

#: What the project wants of the two trainings: times pooled XGBoost's, at most.
_GOALS = {"plain federated": None, "secure federated, exact": 5.0, "secure federated, packed": 5.0}
_GOALS_LARGE = {"plain federated": 1.0, "secure federated, exact": 1.5, "secure federated, packed": 1.5}


def demo(result: Result) -> str:
    """What the demo prints of its results, as it was printed."""
    minutes, seconds = divmod(round(result["seconds"]), 60)
    return f"```\n{result['text'].rstrip()}\n```\n\nThis run took {minutes} min {seconds} s after set-up."


def training(result: Result) -> str:
    """The table of `make bench`: three banks."""
    return _training(result, _GOALS)


def training_large(result: Result) -> str:
    """The same of four banks with a million rows."""
    return _training(result, _GOALS_LARGE)


def _training(result: Result, goals: Mapping[str, float | None]) -> str:
    rows = []
    sent, peak, share = result["bytes_per_bank_and_tree"], result["peak_bytes_of_a_bank"], result["checking_share"]
    for name, times in result["seconds"].items():
        ratio, goal = result["ratio_to_pooled"][name], goals.get(name)
        reached = "" if goal is None else f"{goal:g}: {'reached' if ratio <= goal else 'not reached'}"
        more = (
            (f"{sent[name] / 1e6:.2f} MB", f"{peak[name] / 1e6:.0f} MB", f"{share[name]:.1%}")
            if name in sent
            else ("", "", "")
        )
        rows.append((name, f"{median(times):.2f}", f"{ratio:.2f}", reached, *more))
    head = (
        "",
        "seconds",
        "ratio to pooled XGBoost",
        "goal",
        "sent per bank and tree",
        "a bank's peak memory",
        "of it checks",
    )
    repeats = len(next(iter(result["seconds"].values())))
    return (
        f"{result['banks']} banks × {result['rows_per_bank']:,} rows × {result['features']} features × 64 bins, "
        f"{result['trees']} trees, depth 6; medians of {repeats} pairs. A bank's binned rows are "
        f"{result['binned_bytes_of_a_bank'] / 1e6:.0f} MB. *Of it checks*: the share of a bank's training time that "
        f"MACs, witnesses, signatures and states take.\n\n{table(head, rows)}"
    )


def kernels(result: Result) -> str:
    """One core against XGBoost's own monitor."""
    from simulator.benchmarks.kernels import SAME_WORK

    found = result["kernel_seconds"]
    theirs = found["xgboost"]
    pairs = [*SAME_WORK.items(), ("training", "training")]
    rows = [
        (ours, *(f"{found[way][ours]:.2f}" for way in ("exact", "packed")), f"{theirs[name]:.2f}")
        for name, ours in pairs
    ]
    n_rows = result["banks"] * result["rows_per_bank"]
    return f"{n_rows:,} rows, {result['trees']} trees, seconds.\n\n" + table(("", "exact", "packed", "XGBoost"), rows)


def windows(result: Result) -> str:
    """Windows and bins beside Polars and pandas: Crossbank's time, theirs, and ours over theirs."""
    rows = []
    for name, what in (("windows", "24 windows, s"), ("bins", "64 bins of 24 features, s")):
        seconds, ratio = result[name]["seconds"], result[name]["ratio"]
        ours = next(way for way in seconds if way.startswith("Crossbank"))
        rows.append(
            (what, f"{seconds[ours]:.2f}", *(f"{seconds[way]:.2f} ({ratio[way]:.2f})" for way in ("Polars", "pandas")))
        )
    head = ("", "Crossbank", "Polars (Crossbank's time over it)", "pandas (Crossbank's time over it)")
    return f"{result['rows']:,} rows, {result['threads']} cores.\n\n{table(head, rows)}"


def risk(result: Result) -> str:
    """The shared-risk step beside pandas and Polars."""
    rows = [
        ("Crossbank: tables and windows", f"{result['seconds']:.2f}", ""),
        ("Polars", f"{result['polars_seconds']:.2f}", f"{result['ratio_to_polars']:.2f}"),
        ("straightforward pandas", f"{result['pandas_seconds']:.2f}", f"{result['ratio']:.2f}"),
    ]
    off = ", ".join(f"{name.replace('_', ' over ')} {share:.2%}" for name, share in result["share_off"].items())
    return (
        f"{result['rows']:,} payments, {result['entities']:,} counterparties, 120 days.\n\n"
        + table(("", "seconds", "Crossbank's time over it"), rows)
        + f"\nValues below the truth: {result['below_truth']}. Above it, by the sketch's error: {off}."
    )


def large(result: Result) -> str:
    """Thirteen banks, by phase."""
    train, made, extract = result["train"], result["generate"], result["extract"]
    rows = [
        ("generate payments", f"{made['seconds']:.0f}", f"{made['peak_bytes'] / 1e9:.1f} GB"),
        ("features, one bank after the other", f"{extract['seconds']:.0f}", f"{extract['peak_bytes'] / 1e9:.1f} GB"),
    ]
    for name, seconds in train["seconds"].items():
        if name == "total":
            continue
        memory = ""
        if name == "training":
            memory = (
                f"a bank {train['peak_bytes_of_a_bank'] / 1e6:.0f} MB, "
                f"the node {train['peak_bytes_of_the_node'] / 1e6:.0f} MB"
            )
        rows.append((name, f"{seconds:.0f}", memory))
    work = train["bank_seconds"]
    busy = [
        (kind, f"{sum(work[kind]):.0f}", f"{max(work[kind]):.1f}")
        for kind in work
        if kind not in ("waiting in sums", "sums")
    ]
    busy.append(("the node", f"{train['node_processor_seconds']:.0f}", ""))
    waits = work["waiting in sums"]
    return (
        f"{result['banks']} banks, {result['rows']:,} rows, {result['frauds']:,} frauds, {result['features']} "
        f"features, 64 bins, {result['trees']} trees, depth 6, `{result['layout']}`, {result['cores']} cores.\n\n"
        + table(("phase", "seconds", "largest memory of a process"), rows)
        + "\n"
        + table(("processor seconds while training and evaluating", "all banks", "the busiest bank"), busy)
        + f"\nA bank sent {train['bytes_sent_of_a_bank'] / result['trees'] / 1e6:.2f} MB a tree, in "
        f"{max(work['sums']):.0f} sums, and waited {min(waits):.0f} to {max(waits):.0f} s for the others. All "
        f"processes of the training together took {train['peak_bytes_of_the_machine'] / 1e9:.1f} GB."
    )


def scaling(result: Result) -> str:
    """How straight the growth is."""
    rows = []
    for name, found in result.items():
        if name == "run":
            continue
        (first, before), (last, after) = found["points"][0], found["points"][-1]
        grown = f"{last / first:.0f} × the size, {after / before:.1f} × the time"
        rows.append((name, f"{first:,} to {last:,}", grown, f"{found['r2']:.4f}"))
    return table(("processor seconds over", "from, to", "growth", "R² of a line"), rows)


def layouts(result: Result) -> str:
    """AUC-PR of the packed layout minus the wide one's."""
    by_data: dict[str, list[Result]] = {}
    for one in result["figures"]:
        by_data.setdefault(one["data"], []).append(one)
    rows = []
    for name, each in by_data.items():
        sizes, wide = [one["rows"] for one in each], [one["wide"] for one in each]
        seeds = [one["seed"] for one in each]
        rows.append(
            (
                f"{name} ({_span(sizes, ',')} training rows)",
                _span(seeds, ""),
                _span(wide, ".3f"),
                ", ".join(f"{(one['packed'] - one['wide']) * 1e6:+.0f}" for one in each),
                ", ".join("none" if one["same"] == result["trees"] else str(one["same"] + 1) for one in each),
            )
        )
    head = ("data", "seeds", "AUC-PR wide", "packed minus wide, each seed (10⁻⁶)", "first tree with another split")
    return table(head, rows)


def _span(values: list[Any], form: str) -> str:
    low, high = format(min(values), form), format(max(values), form)
    return low if low == high else f"{low} to {high}"


def shared_benefit(result: Result) -> str:
    """Means over the seeds of each data set and way of making features."""
    groups: dict[tuple[str, str], list[Result]] = {}
    for one in result["figures"]:
        groups.setdefault((one["data"], one["features"]), []).append(one)
    rows = []
    for (data, features), each in groups.items():
        three = [_mean(each, name) for name in ("auc_pr", "recall", "recall_targeted")]
        rows.append((f"{data}; means of seeds {_span([one['seed'] for one in each], '')}", features, *three))
    return table(("data", "features", "AUC-PR", "recall", "recall of the targeted frauds"), rows)


def _mean(each: list[Result], name: str) -> str:
    values = [one[name] for one in each if one[name] is not None]
    return f"{mean(values):.3f}" if values else ""


def calibrations(result: Result) -> str:
    """Calibration error and log loss of each way, means over the seeds, split by row and by time."""
    figures = result["figures"]
    data, ways = (list(dict.fromkeys(one[key] for one in figures)) for key in ("data", "way"))
    tables = []
    for split in ("by row", "by time"):
        rows = []
        for way in ways:
            cells = []
            for name in data:
                each = [one for one in figures if (one["data"], one["way"], one["split"]) == (name, way, split)]
                cells.append(f"{mean(one['error'] for one in each):.5f} / {mean(one['log_loss'] for one in each):.5f}")
            rows.append((way, *cells))
        tables.append(table((f"error / log loss, split {split}", *data), rows))
    seeds = len({one["seed"] for one in figures})
    frauds = [one["frauds"] for one in figures if one["split"] == "by row"]
    return (
        f"XGBoost on all banks' rows from the starting parameters; means of {seeds} draws of accounts, "
        f"{min(frauds)} to {max(frauds)} later frauds.\n\n" + "\n".join(tables)
    )


def defaults(result: Result) -> str:
    """What training can start from: AUC-PR and log loss, means over the seeds; the largest leaf and log-odds of all."""
    figures = result["figures"]
    data = list(dict.fromkeys(one["data"] for one in figures))
    settings = [name for name in result["settings"] if any(one["setting"] == name for one in figures)]
    tables = []
    for key, form in (("auc_pr", ".3f"), ("log_loss", ".5f")):
        rows = []
        for setting in settings:
            ours = [one for one in figures if one["setting"] == setting]
            found = {name: [one for one in ours if one["data"] == name] for name in data}
            cells = [format(mean(one[key] for one in each), form) if each else "" for each in found.values()]
            if key == "auc_pr":
                cells += [f"{max(one[of] for one in ours):.2f}" for of in ("largest_leaf", "largest_margin")]
            rows.append((setting, *cells))
        more = ("largest leaf", "largest log-odds") if key == "auc_pr" else ()
        tables.append(table(("AUC-PR" if key == "auc_pr" else "log loss", *data, *more), rows))
    seeds = {name: len({one["seed"] for one in figures if one["data"] == name}) for name in data}
    sizes = ", ".join(
        f"{name} {mean(one['frauds'] for one in figures if one['data'] == name):.0f} ({seeds[name]})" for name in data
    )
    given = ", ".join(f"{name} {value:g}" for name, value in result["before"].items())
    return (
        f"All banks' rows together, XGBoost, each setting in what it differs from {given}; no base score: from the "
        f"share of frauds. Judged on the days after the first 70 % and the label delay. Later frauds judged by (and "
        f"draws of accounts, over which figures are means): {sizes}.\n\n" + "\n".join(tables)
    )


def soak(result: Result) -> str:
    """How honest runs went beside a certificate that misbehaves, and what the node held."""
    runs, calls = result["runs"], result["calls"]
    memory = [one["held"]["memory"] / 1e6 for one in runs]
    seconds = [one["seconds"] for one in runs]
    half = max(1, len(runs) // 2)
    rows = [
        ("time", f"{result['seconds'] / 60:.0f} min"),
        ("honest runs, lost", f"{len(runs)}, {result['lost']}"),
        ("seconds a run: median, most", f"{median(seconds):.1f}, {max(seconds):.1f}"),
        (
            "node's memory: after the first run, most in the first half, after the last",
            f"{memory[0]:.0f}, {max(memory[:half]):.0f}, {memory[-1]:.0f} MB",
        ),
        (
            "node's threads, open files after the last run",
            f"{runs[-1]['held']['threads']}, {runs[-1]['held']['files']}",
        ),
        ("certificates issued to the second party and revoked", f"{result['certificates']}"),
    ]
    for kind in ("garbage", "idle", "flood", "revoked"):
        found = {name.split(": ")[1]: count for name, count in calls.items() if name.startswith(f"{kind}: ")}
        told = ", ".join(f"{count:,} {name}" for name, count in sorted(found.items(), key=lambda each: -each[1]))
        rows.append((f"its calls, {kind}", told))
    return table(("", ""), rows)


def peers(result: Result) -> str:
    """Beside what else could be used: the whole table."""
    from tests.benchmarks.peers import markdown

    s = result["settings"]
    return (
        f"{s['sites']} sites × {s['rows']:,} rows × {s['features']} features, {s['trees']} trees, depth {s['depth']}, "
        f"{s['bins']} bins, eta {s['eta']}.\n\n{markdown(result['results'])}"
    )


def peers_ratios(result: Result) -> str:
    """Training time over pooled XGBoost's, one line a candidate."""
    from tests.benchmarks.peers import CANDIDATES

    s, found = result["settings"], result["results"]
    base = found["pooled"]["training_seconds"]
    rows = []
    for key, one in found.items():
        if key in ("pooled", "local", "plain"):
            continue
        ratio = one.get("failed") or f"{one['training_seconds'] / base:.0f} ×"
        rows.append((CANDIDATES[key].name, ratio, CANDIDATES[key].encrypted))
    head = (f"{s['sites']} × {s['rows']:,} rows, {s['trees']} trees", "training time to pooled XGBoost's", "encrypted")
    return table(head, rows)
