"""The ``simulator`` command: thin; it parses, calls, prints."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from protocol.errors import CrossbankError
from protocol.messages import RunView
from protocol.version import add_version

__all__ = ["app", "main", "show_report"]

app = typer.Typer(
    help="A whole consortium on this machine, for trying and measuring.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
add_version(app, "simulator")
screen = Console()


@contextmanager
def _progress(title: str, rounds: int) -> Iterator[Callable[[RunView], None]]:
    """A bar of boosting rounds; gives what a run's views are told to."""
    columns = (TextColumn("{task.description:28s}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, TimeElapsedColumn(), console=screen) as bar:
        task = bar.add_task(title, total=rounds)
        yield lambda view: bar.update(task, description=f"{view.phase.lower()} {view.step}", completed=view.rounds_done)
        bar.update(task, description="done", completed=rounds)


@app.command()
def train(
    table: Annotated[Path, typer.Option(help="Rows of all banks: Parquet or CSV.")],
    bank_column: Annotated[str, typer.Option(help="The column that says whose row it is.")],
    label: Annotated[str, typer.Option(help="The column with 1 for fraud, 0 for not.")],
    features: Annotated[str, typer.Option(help="Numeric columns to learn from, comma-separated.")],
    out: Annotated[Path, typer.Option(help="Where model.json and report.json go.")],
    time_column: Annotated[
        str | None, typer.Option(help="A time; for --train-until, --validate-from, --validation-share.")
    ] = None,
    train_until: Annotated[str | None, typer.Option(help="Train on rows before it, evaluate on the others.")] = None,
    validate_from: Annotated[
        str | None,
        typer.Option(
            help="Rows from it to --train-until judge after each tree instead of training: for early_stopping_rounds."
        ),
    ] = None,
    validation_share: Annotated[
        float | None,
        typer.Option(
            help="Instead of a time: this share of the rows to train on judges; the latest ones, or without a time a "
            "sample by row id."
        ),
    ] = None,
    weight_column: Annotated[str | None, typer.Option(help="What each row weighs in training.")] = None,
    row_id_column: Annotated[
        str | None,
        typer.Option(help="The rows' ids: `subsample` draws rows by a hash of them, whose row it is or not."),
    ] = None,
    warm_start: Annotated[
        Path | None, typer.Option(help="A model.json of an earlier run: n_estimators trees are added to its own.")
    ] = None,
    params: Annotated[
        Path | None,
        typer.Option(help="XGBoost's parameters, YAML. Without it: what suits rare frauds (docs/boosting.md)."),
    ] = None,
    plain: Annotated[bool, typer.Option("--plain", help="Sum in memory, without encryption; nothing is sent.")] = False,
    in_process: Annotated[
        bool, typer.Option("--in-process", help="Banks and aggregator as threads of this process, over TLS.")
    ] = False,
    alert_budget: Annotated[float, typer.Option(help="Share of rows an analyst can look at.")] = 0.005,
    compare: Annotated[bool, typer.Option(help="Also train each bank alone, and all rows pooled.")] = True,
    shards: Annotated[int, typer.Option(min=0, help="Spread each bank's rows over so many Dask workers.")] = 0,
) -> None:
    """Train one model over the banks of a table: encrypted, over real processes, unless told otherwise.

    Example: simulator train --table rows.parquet --bank-column bank --label is_fraud --features amount,hour --out out
    """
    from simulator.harness.tables import read_table
    from simulator.harness.training import check_data, load_params, load_warm, train_consortium

    validated = validate_from is not None or validation_share is not None
    chosen, warm = load_warm(load_params(params, validated=validated), warm_start)
    mode = "plain" if plain else "threads" if in_process else "processes"
    cut = read_table(
        table,
        bank_column=bank_column,
        label=label,
        features=[name.strip() for name in features.split(",") if name.strip()],
        time_column=time_column,
        train_until=train_until,
        validate_from=validate_from,
        validation_share=validation_share,
        weight_column=weight_column,
        row_id_column=row_id_column,
    )
    check_data(chosen, cut)
    with _progress(f"{len(cut.train)} banks, {mode}", chosen.n_estimators) as on_progress:
        report = train_consortium(
            cut,
            chosen,
            out,
            mode=mode,
            alert_budget=alert_budget,
            compare=compare,
            on_progress=on_progress,
            warm=warm,
            shards=shards,
        )
    show_report(report)
    screen.print(f"model:  {out / 'model.json'}\nreport: {out / 'report.json'}")


@app.command()
def tune(
    table: Annotated[Path, typer.Option(help="Rows of all banks: Parquet or CSV.")],
    bank_column: Annotated[str, typer.Option(help="The column that says whose row it is.")],
    label: Annotated[str, typer.Option(help="The column with 1 for fraud, 0 for not.")],
    features: Annotated[str, typer.Option(help="Numeric columns to learn from, comma-separated.")],
    out: Annotated[Path, typer.Option(help="Where the results go; a search that was stopped goes on from here.")],
    search: Annotated[
        Path | None,
        typer.Option(
            help="YAML: `params` that all sets share, `sets` (a list of what they differ in) and `rungs` (numbers of "
            "trees). Default: 12 sets of max_depth, eta and where training starts; rungs 10, 30, 90."
        ),
    ] = None,
    time_column: Annotated[
        str | None, typer.Option(help="A time; for --train-until, --validate-from, --validation-share.")
    ] = None,
    train_until: Annotated[str | None, typer.Option(help="Rows after it are for the last look only.")] = None,
    validate_from: Annotated[str | None, typer.Option(help="Rows from it to --train-until judge the sets.")] = None,
    validation_share: Annotated[
        float | None, typer.Option(help="Instead of a time: this share of the rows to train on judges.")
    ] = None,
    weight_column: Annotated[str | None, typer.Option(help="What each row weighs in training.")] = None,
    row_id_column: Annotated[str | None, typer.Option(help="The rows' ids, for `subsample`.")] = None,
    alert_budget: Annotated[float, typer.Option(help="Share of rows an analyst can look at.")] = 0.005,
) -> None:
    """Search for good parameters by successive halving: all sets start, and at each rung the worse half is dropped.

    Sets are judged by AUC-PR (or `eval_metric: logloss`) on validation rows of all banks. Sums are made in memory: the
    scores are those of an encrypted search to the last bit. A consortium searches in a run of its own, with
    `aggregator open-run --tune FILE`.

    Example: simulator tune --table rows.parquet --bank-column bank --label is_fraud --features amount,hour
    --time-column day --validate-from 2026-02-01 --out search
    """
    from protocol.halving import sets_at_rungs
    from simulator.harness.search import load_search
    from simulator.harness.search import search as run_search
    from simulator.harness.tables import read_table
    from simulator.harness.training import check_data

    params, tuning = load_search(search)
    cut = read_table(
        table,
        bank_column=bank_column,
        label=label,
        features=[name.strip() for name in features.split(",") if name.strip()],
        time_column=time_column,
        train_until=train_until,
        validate_from=validate_from,
        validation_share=validation_share,
        weight_column=weight_column,
        row_id_column=row_id_column,
    )
    for each in tuning.parameters(params):
        check_data(each, cut)
    columns = (TextColumn("{task.description:36s}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, TimeElapsedColumn(), console=screen) as bar:
        task = bar.add_task("searching", total=sum(sets_at_rungs(len(tuning.sets), tuning.rungs)))

        def on_score(number: int, rung: int, score: float) -> None:
            told = f"{tuning.rungs[rung]} trees, set {number + 1}: {score:.4f}"
            bar.update(task, description=told, advance=1)

        report = run_search(cut, params, tuning, out, alert_budget=alert_budget, on_score=on_score)
    shown = Table("set", "parameters", *[f"{trees} trees" for trees in report["rungs"]], title=report["metric"])
    order = sorted(
        enumerate(report["sets"]), key=lambda each: (-len(each[1]["scores"]), -each[1]["scores"][-1], each[0])
    )
    for number, each in order:
        chosen = ", ".join(f"{name} {value}" for name, value in each["params"].items())
        figures = [f"{score:.4f}" for score in each["scores"]] + [""] * (len(report["rungs"]) - len(each["scores"]))
        shown.add_row(str(number + 1), chosen, *figures, style="bold" if number == report["best"] else "")
    screen.print(shown)
    for name in ("best.yaml", "model.json", "tuning.json", "tuning.svg"):
        screen.print(str(out / name), soft_wrap=True)


def show_report(report: dict[str, Any]) -> None:
    """Print a report's table."""
    shown = Table("bank", "rows", "frauds", "AUC-PR alone", "consortium", "pooled", "sent")
    per_bank = report["metrics"]["per_bank"]

    def figure(metrics: dict[str, Any] | None) -> str:
        value = (metrics or {}).get("auc_pr")
        return "-" if value is None else f"{value:.4f}"

    for bank in report["banks"]:
        m = per_bank[bank]
        sent = f"{report['bytes_sent_per_bank'][bank] / 1e6:.1f} MB"
        figures = (figure(m.get("alone")), figure(m["consortium"]), figure(m.get("pooled")))
        shown.add_row(bank, f"{report['rows'][bank]:,}", f"{report['frauds'][bank]:,}", *figures, sent)
    everyone = (figure(report["metrics"]["consortium"]), figure(report["metrics"].get("pooled")))
    rows, frauds = sum(report["rows"].values()), sum(report["frauds"].values())
    shown.add_row("all", f"{rows:,}", f"{frauds:,}", "", *everyone, "")
    screen.print(shown)
    seconds = ", ".join(f"{name} {value:.1f} s" for name, value in report["seconds"].items())
    screen.print(f"{report['mode']}; {seconds}; evaluated on {report['metrics']['evaluated_on']}")
    screen.print(f"model sha256 {report['model_sha256']}")


@app.command()
def generate(
    out: Annotated[Path, typer.Option(help="A folder per bank is made here.")],
    banks: Annotated[int, typer.Option(help="How many.")] = 4,
    seed: Annotated[int, typer.Option(help="Of all that is drawn; the same gives the same payments.")] = 7,
    days: Annotated[int, typer.Option(help="How many days of payments.")] = 120,
) -> None:
    """Generate payments of several banks; see docs/generator.md for what is in them."""
    from simulator.generator import GeneratorSettings
    from simulator.generator import generate as make

    make(GeneratorSettings(banks=banks, days=days, seed=seed), out)
    screen.print(f"payments of {banks} banks in {out}")


@app.command()
def demo(
    data: Annotated[
        Path | None, typer.Option(help="A data set's folder instead of generated payments: card_payments, ...")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where everything goes.")] = Path(".demo"),
    keep: Annotated[bool, typer.Option("--keep", help="Leave Airflow and the aggregator running.")] = False,
    broken_bank: Annotated[
        bool, typer.Option("--broken-bank", help="Break one bank's feed: its quality gate must stop it.")
    ] = False,
    trees: Annotated[int, typer.Option(help="Boosting rounds.")] = 60,
) -> None:
    """Show a whole consortium: banks with their Airflow DAGs, the neutral node, one model. Takes a few minutes."""
    from simulator.demo import run_demo

    run_demo(data, out, keep=keep, trees=trees, broken_bank=broken_bank)


@app.command()
def stop(out: Annotated[Path, typer.Option(help="The demo's folder.")] = Path(".demo")) -> None:
    """Stop what a demo with --keep left running."""
    from simulator.demo import stop_demo

    stop_demo(out)


@app.command()
def bench(
    out: Annotated[Path, typer.Option(help="Where bench.json goes.")] = Path(".bench"),
    banks: Annotated[int, typer.Option(help="How many.")] = 3,
    rows: Annotated[int, typer.Option(help="Rows of each bank.")] = 100_000,
    features: Annotated[int, typer.Option(help="Columns of the random rows.")] = 30,
    trees: Annotated[int, typer.Option(help="Boosting rounds, depth 6.")] = 50,
    repeats: Annotated[int, typer.Option(help="Measurements of each; medians are told.")] = 3,
    data_rows: Annotated[int, typer.Option(help="Rows for the windows and bins.")] = 1_000_000,
    data_only: Annotated[bool, typer.Option("--data-only", help="Measure windows and bins, no training.")] = False,
) -> None:
    """Measure training against pooled XGBoost, and windows and bins against pandas and Polars, as ratios."""
    from simulator.benchmarks.training import bench as run
    from simulator.benchmarks.windows import bench_features

    bench_features(data_rows, repeats=repeats, out=out)
    if not data_only:
        run(out, banks=banks, rows=rows, features=features, trees=trees, repeats=repeats)


@app.command("bench-risk")
def bench_risk_(
    out: Annotated[Path, typer.Option(help="Where bench_risk.json goes.")] = Path(".bench"),
    rows: Annotated[int, typer.Option(help="Payments.")] = 1_000_000,
    entities: Annotated[int, typer.Option(help="Counterparties.")] = 20_000,
    repeats: Annotated[int, typer.Option(help="Measurements of each; medians are told.")] = 3,
) -> None:
    """Measure the shared-risk step (tables and windows) against straightforward pandas and Polars, as ratios."""
    from simulator.benchmarks.risk import bench_risk

    found = bench_risk(rows, entities, repeats, out=out)
    screen.print(
        f"shared risk, {rows:,} payments, {entities:,} counterparties: {found['seconds']:.2f} s, "
        f"pandas {found['pandas_seconds']:.2f} s, ratio {found['ratio']:.2f}; Polars {found['polars_seconds']:.2f} s, "
        f"ratio {found['ratio_to_polars']:.2f}; {found['below_truth']} below the truth"
    )
    shares = ", ".join(f"{name} {share:.2%}" for name, share in found["share_off"].items())
    screen.print(f"values that the sketch puts too high: {shares}")


@app.command("bench-scaling")
def bench_scaling(
    out: Annotated[Path, typer.Option(help="Where scaling.svg and scaling.json go.")] = Path(".bench"),
    most_banks: Annotated[int, typer.Option(help="Banks of the largest training; 2 at least.")] = 100,
    most_rows: Annotated[int, typer.Option(help="Rows of the largest training of one bank.")] = 800_000,
) -> None:
    """Plot how time grows with rows, banks, and ciphertexts at the node. Takes two minutes."""
    from simulator.benchmarks.scaling import scaling

    scaling(out, most_banks=most_banks, most_rows=most_rows)


@app.command("bench-large")
def bench_large_(
    out: Annotated[Path, typer.Option(help="Where payments, features and figures go; kept.")] = Path(".bench/13banks"),
    banks: Annotated[int, typer.Option(help="How many; 3 at least.")] = 13,
    rows: Annotated[int, typer.Option(help="Outgoing payments of all banks together.")] = 10_000_000,
    features: Annotated[int, typer.Option(help="The first so many of the packaged contract's own ones.")] = 40,
    trees: Annotated[int, typer.Option(help="Boosting rounds, depth 6.")] = 100,
    layout: Annotated[str, typer.Option(help="packed or wide.")] = "packed",
) -> None:
    """Measure 13 banks with ten million generated payments, from payments to an encrypted model. Resumes by phase."""
    from simulator.benchmarks.large import bench_large

    bench_large(out, banks=banks, rows=rows, features=features, trees=trees, layout=layout)


@app.command("bank-worker", hidden=True)
def bank_worker(spec: Path) -> None:
    """One simulated bank's process."""
    from simulator.harness.worker import main as work

    work(spec)


def main() -> None:
    """Entry point: a known error is one line and exit code 2, never a traceback."""
    from features.errors import DataError

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        app()
    except (CrossbankError, DataError) as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        raise SystemExit(130) from None
