"""The demo: banks with real Airflow DAGs, the neutral node's process, one model; then a table of what it brought.

It orchestrates; every step of a bank is run by Airflow's scheduler, as in a deployment.
"""

import hashlib
import io
import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xgboost
import yaml
from rich.console import Console, RenderableType
from rich.live import Live
from rich.table import Table

import dags
from aggregator.operator.client import OperatorClient
from bank_node.boosting import BoostingParameters
from bank_node.config import load_config
from bank_node.dataset.feature_tables import feature_rows
from bank_node.evaluation.metrics import rank_metrics
from bank_node.models.local_baseline import train_champion
from features import labelled_split, load_contract
from protocol.errors import ConfigError, LocalError
from protocol.messages import RunView
from protocol.private_files import write_secret
from protocol.starting_parameters import starting_parameters
from simulator.airflow.rest import AirflowRest
from simulator.airflow.stack import AirflowStack, stop_stack
from simulator.datasets import contract_for, thins_out, unlike_life
from simulator.harness.measuring import provenance
from simulator.harness.processes import (
    AggregatorProcess,
    bank_files,
    child_environment,
    make_certificates,
    operator_files,
)

__all__ = ["run_demo", "stop_demo"]

# Logs and CI have no width of their own; a terminal does.
screen = Console(width=None if Console().is_terminal else 120)
_PATIENCE = 1500.0


def run_demo(data: Path | None, out: Path, *, keep: bool, trees: int, broken_bank: bool = False) -> None:
    """Run the whole story in `out` and print it.

    Args:
        data: folder of an outside data set; None generates payments of four banks.
        out: everything the demo makes; what an earlier demo left there is removed.
        keep: leave Airflow and the aggregator running at the end.
        trees: boosting rounds.
        broken_bank: break the last bank's feed, to show that its quality gate stops it and the others go on.

    Raises:
        LocalError: a step failed; the text names the DAG and task and ends with its log.
    """
    begun = time.monotonic()
    if broken_bank and data is not None and thins_out(data):
        raise ConfigError(f"a broken feed can't be told apart on {data}, whose last weeks thin out: use other data")
    out = _emptied(out)
    events = _payments(data, out)
    banks = sorted(events)
    broken = banks[-1] if broken_bank else None
    contract = None if data is None else contract_for(data, out / "contract.yaml")
    if data is not None and contract is not None:
        screen.print(f"  {unlike_life(data)}")
    configs, consortium, settings = _configure(out, events, trees, contract)
    if broken:
        _break_feed(events[broken])
        screen.print(f"  [red]{broken}'s feed is broken[/]: nine in ten payments of its last ten days are missing")
    node = AggregatorProcess(out / "node", out / "certificates", port=_port(configs[banks[0]]))
    node.start()
    (out / "node" / "pid").write_text(str(node.pid))
    stack = _airflow(out, consortium, len(banks), keep=keep)
    report = Console(width=120, file=io.StringIO(), record=True)
    done = False
    try:
        screen.print(f"[bold]2[/] starting the neutral node ({node.address}) and Airflow, on loopback only")
        with stack, stack.rest() as rest, OperatorClient(node.address, operator_files(out / "certificates")) as client:
            screen.print(f"  Airflow       {stack.url}  user {stack.username}  password {stack.password}")
            screen.print(f"  operator page {node.console}")
            rest.wait_for_dags(["consortium_run", *(f"bank_{b}_{d}" for b in banks for d in _BANK_DAGS)], timeout=120)
            _orchestrate(rest, client, banks, broken)
            if broken:
                _show_gate(rest, client, out, broken)
                banks.remove(broken)

            def tell(what: RenderableType) -> None:
                screen.print(what, highlight=False)
                report.print(what, highlight=False)

            screen.print("[bold]4[/] what it brought, on each bank's own later rows (never trained on)")
            _show_results(out, configs, banks, settings, tell)
            tell("")
            _show_alerts(out, banks[0], tell)
            screen.print(f"\nmodel: {out / 'model.json'} (load it with xgboost.Booster)")
            done = True
    finally:
        if not (keep and done):
            node.stop()
    took = time.monotonic() - begun
    of = {"data": "generated" if data is None else data.name, "trees": trees, "broken_bank": broken_bank}
    written = {"run": provenance(), **of, "seconds": took, "text": report.export_text()}
    (out / "report.json").write_text(json.dumps(written, indent=2) + "\n")
    _say_end(stack, node, took, keep=keep)


def _emptied(out: Path) -> Path:
    """The folder without an earlier demo; what that left running is stopped."""
    out = out.resolve()
    stop_demo(out)
    for name in ("data", "banks", "work", "node", "airflow", "certificates"):
        shutil.rmtree(out / name, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    # `make docs-figures` must not take it for this one's if this one fails.
    (out / "report.json").unlink(missing_ok=True)
    return out


def _airflow(out: Path, consortium: Path, banks: int, *, keep: bool) -> AirflowStack:
    """One Airflow for the DAGs of all banks and of the consortium, not started yet."""
    return AirflowStack(
        out / "airflow",
        Path(dags.__file__).parent,
        env={k: v for k, v in child_environment().items() if k.endswith("_NUM_THREADS")}
        | {
            "CROSSBANK_BANKS_DIR": str(out / "banks"),
            "CROSSBANK_CONSORTIUM_CONFIG": str(consortium),
            "CROSSBANK_DAILY_SCHEDULE": "none",
            "NUMBA_CACHE_DIR": os.environ.get("NUMBA_CACHE_DIR", str(out / "numba")),
        },
        parallelism=2 * banks + 4,
        paused=False,
        keep=keep,
        log=lambda line: screen.print(f"  {line}", style="dim"),
    )


def _say_end(stack: AirflowStack, node: AggregatorProcess, took: float, *, keep: bool) -> None:
    minutes, seconds = divmod(int(took), 60)
    if keep:
        screen.print(
            f"left running: Airflow {stack.url} ({stack.username} / {stack.password}), operator {node.console}"
        )
        screen.print("stop them with `make clean` or `.venv/bin/simulator stop`")
    else:
        screen.print(f"everything is stopped; KEEP=1 leaves Airflow ({stack.url}) and {node.console} running")
    screen.print(f"the demo took {minutes} min {seconds} s")


def stop_demo(out: Path) -> None:
    """Stop what a demo with ``--keep`` left running in `out`; harmless if there is nothing."""
    out = out.resolve()
    if (out / "airflow").exists():
        stop_stack(out / "airflow")
    pid_file = out / "node" / "pid"
    if pid_file.exists():
        pid = int(pid_file.read_text())
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            if b"aggregator" in command:
                os.kill(pid, signal.SIGTERM)
        except OSError:
            pass
        pid_file.unlink()


_BANK_DAGS = ("features", "training", "scoring")


def _payments(data: Path | None, out: Path) -> dict[str, Path]:
    if data is None:
        from simulator.generator import GeneratorSettings, generate

        screen.print("[bold]1[/] generating payments of four banks (seed 7; see docs/generator.md)")
        made = generate(GeneratorSettings(banks=4, seed=7), out / "data")
    else:
        from simulator.datasets import load_dataset

        screen.print(f"[bold]1[/] reading {data} and giving each bank its side")
        made = load_dataset(data, out / "data")
    return {bank: Path(path) for bank, path in made.events.items()}


def _configure(
    out: Path, events: dict[str, Path], trees: int, contract_path: Path | None
) -> tuple[dict[str, Path], Path, dict[str, Any]]:
    from simulator.ports import LOOPBACK, free_port

    banks = sorted(events)
    make_certificates(out / "certificates", banks)
    address = f"{LOOPBACK}:{free_port()}"
    configs: dict[str, Path] = {}
    (out / "banks").mkdir(exist_ok=True)
    for bank in banks:
        # Made-up payments need no secret keys. The bank's own makes the order of rows, and the consortium's which
        # counterparties share a cell of the sums: with keys that never change every demo has the same model.
        keys = out / "work" / bank / "keys"
        for name, owner in (("identifiers.key", bank), ("consortium.key", "the consortium")):
            write_secret(keys / name, hashlib.sha256(f"demo of {owner}".encode()).hexdigest().encode())
        files = bank_files(out / "certificates", bank)
        configs[bank] = out / "banks" / f"{bank}.yaml"
        document = {
            "bank_id": bank,
            "events": str(events[bank]),
            "work_dir": str(out / "work" / bank),
            "contract": None if contract_path is None else str(contract_path),
            "shared_key": str(keys / "consortium.key"),
            "aggregator": {
                "address": address,
                "ca": str(files.ca),
                "certificate": str(files.certificate),
                "key": str(files.key),
            },
        }
        configs[bank].write_text(yaml.safe_dump(document, sort_keys=False))
    first = min(pd.read_parquet(p, columns=["event_time"])["event_time"].min() for p in events.values())
    last = max(pd.read_parquet(p, columns=["event_time"])["event_time"].max() for p in events.values())
    # Split by time: train on the first 70 % of days, leave the label delay, evaluate on the rest.
    until = (first + 0.7 * (last - first)).normalize()
    contract = load_contract(contract_path)
    settings = {
        "title": "demo",
        "roster": banks,
        "contract_fingerprint": contract.fingerprint,
        "params": starting_parameters() | {"n_estimators": trees},
        "train_until": until.isoformat(),
        "data_until": last.date().isoformat(),
        "alert_budget": contract.alert_budget,
    }
    operator = operator_files(out / "certificates")
    consortium = out / "consortium.yaml"
    node = {
        "address": address,
        "ca": str(operator.ca),
        "certificate": str(operator.certificate),
        "key": str(operator.key),
    }
    consortium.write_text(yaml.safe_dump({"aggregator": node, "run": settings}, sort_keys=False))
    return configs, consortium, settings


def _port(config: Path) -> int:
    return int(yaml.safe_load(config.read_text())["aggregator"]["address"].rpartition(":")[2])


def _break_feed(path: Path) -> None:
    """Drop nine in ten rows of the last ten days: each row that is left is right, the feed is not."""
    table = pd.read_parquet(path)
    recent = table["event_time"] > table["event_time"].max() - pd.Timedelta(days=10)
    kept = np.random.default_rng(0).random(len(table)) < 0.1
    table[~recent | kept].to_parquet(path, index=False)


def _show_gate(rest: AirflowRest, client: OperatorClient, out: Path, bank: str) -> None:
    """What Airflow and the operator's page say about the bank that was stopped, and the bank's own report."""
    view = client.get_run(client.list_runs(1)[0].run_id)
    told = next(event.text for event in view.events if event.bank == bank and "does not join" in event.text)
    ours = rest.failure(f"bank_{bank}_training", str(rest.runs(f"bank_{bank}_training", limit=1)[0]["dag_run_id"]))
    reason = next((line for line in ours.splitlines() if "QualityGateClosed" in line), ours.splitlines()[0])
    screen.print(f"  [red]{bank} was stopped at its gate[/], the others went on")
    screen.print(f"    in its Airflow:  {reason.strip()[:400]}", highlight=False)
    screen.print(f"    at the console:  {bank} {told}", highlight=False)
    page = sorted((out / "work" / bank / "quality").glob("*.html"))[-1]
    screen.print(f"    its own report:  {page}", highlight=False)


def _orchestrate(rest: AirflowRest, client: OperatorClient, banks: list[str], broken: str | None) -> None:
    """Start the DAGs as a day would, and show how they go on."""
    training = {bank: "failed" if bank == broken else "success" for bank in banks}
    screen.print("[bold]3[/] Airflow runs every bank's DAGs and the consortium's")
    consortium = rest.trigger("consortium_run")
    for bank in banks:
        rest.trigger(f"bank_{bank}_features")
    deadline = time.monotonic() + _PATIENCE
    with Live(console=screen, refresh_per_second=4, transient=True) as live:
        while True:
            states = _states(rest, banks)
            views = client.list_runs(1)
            live.update(_progress(states, views[0] if views else None, banks))
            failed = [(dag, run) for dag, (run, state) in states.items() if state == "failed"]
            failed = [(dag, run) for dag, run in failed if dag != f"bank_{broken}_training"]
            if failed:
                raise LocalError(rest.failure(*failed[0]))
            if rest.state("consortium_run", consortium) == "success" and all(
                states.get(f"bank_{bank}_training", ("", ""))[1] == end for bank, end in training.items()
            ):
                break
            if time.monotonic() > deadline:
                raise LocalError(f"the demo's DAGs did not end within {_PATIENCE:.0f} s: {states}")
            time.sleep(1.0)
    view = client.get_run(views[0].run_id)
    screen.print(_progress(states, view, banks))
    screen.print(f"  run {view.run_id}: {view.phase}, {view.bytes_received / 1e6:.0f} MB of ciphertext added")
    for event in view.events:
        if "shared risk" in event.text and event.bank == view.joined[0]:
            screen.print(f"  {event.bank} {event.text}", highlight=False)
    scoring = {bank: rest.trigger(f"bank_{bank}_scoring") for bank in banks if bank != broken}
    for bank, run in scoring.items():
        if rest.wait(f"bank_{bank}_scoring", run, timeout=300) != "success":
            raise LocalError(rest.failure(f"bank_{bank}_scoring", run))


def _states(rest: AirflowRest, banks: list[str]) -> dict[str, tuple[str, str]]:
    states = {}
    for dag in ["consortium_run", *(f"bank_{b}_{d}" for b in banks for d in ("features", "training"))]:
        runs = rest.runs(dag, limit=1)
        if runs:
            states[dag] = (str(runs[0]["dag_run_id"]), str(runs[0]["state"]))
    return states


_MARKS = {"success": "[green]done[/]", "running": "[cyan]running[/]", "failed": "[red]failed[/]"}


def _progress(states: dict[str, tuple[str, str]], view: RunView | None, banks: list[str]) -> Table:
    table = Table("bank", "features DAG", "training DAG", "in the run", title=_headline(view), title_justify="left")
    for bank in banks:
        marks = [states.get(f"bank_{bank}_{dag}", ("", "waiting"))[1] for dag in ("features", "training")]
        joined = "joined" if view and bank in view.joined else ""
        table.add_row(bank, *(_MARKS.get(mark, mark) for mark in marks), joined)
    return table


def _headline(view: RunView | None) -> str:
    if view is None:
        return "no run yet"
    return f"run {view.phase}, boosting round {view.rounds_done} of {view.rounds_total} {view.reason}".rstrip()


def _show_results(
    out: Path,
    configs: dict[str, Path],
    banks: list[str],
    settings: dict[str, Any],
    tell: Callable[[RenderableType], None],
) -> None:
    """Per bank: alone, consortium, pooled, on the bank's own later rows."""
    contract = load_contract(load_config(configs[banks[0]]).contract)
    names = list(contract.feature_names)
    params = BoostingParameters.from_mapping(settings["params"])
    until = pd.Timestamp(settings["train_until"])
    training, later, evaluations = [], {}, {}
    for bank in banks:
        table = feature_rows(load_config(configs[bank]), contract)
        early, late = labelled_split(table, until, contract)
        training.append(early)
        later[bank] = late
        found = sorted((out / "work" / bank / "runs").glob("*/evaluation.json"))
        evaluations[bank] = json.loads(found[-1].read_text())
    pool = pd.concat(training)
    pooled = train_champion(
        pool[names].to_numpy(np.float32), (pool["is_fraud"] > 0.5).to_numpy(), params, names, threads=0
    )
    if pooled is None:
        raise ConfigError("no bank has a fraud to learn from")
    digests = {(out / "work" / bank / "models" / "current.json").read_bytes() for bank in banks}
    if len(digests) != 1:
        raise LocalError("the banks hold different models")
    (out / "model.json").write_bytes(digests.pop())

    budget = settings["alert_budget"]
    shown = Table(
        title=f"AUC-PR, and recall when {budget:.1%} of rows are alerted: the bank alone, with Crossbank, pooled"
    )
    for name in (
        "bank",
        "rows",
        "frauds",
        "AUC-PR alone",
        "consortium",
        "pooled",
        "recall alone",
        "consortium",
        "pooled",
    ):
        shown.add_column(name, no_wrap=name == "bank", justify="left" if name == "bank" else "right")
    rows = []
    for bank in banks:
        result, late = evaluations[bank], later[bank]
        matrix = xgboost.DMatrix(late[names].to_numpy(np.float32), feature_names=names)
        ideal = rank_metrics(late["is_fraud"].to_numpy(), pooled.predict(matrix, output_margin=True), budget)
        three = [result["alone"] or {}, result["own"], ideal.to_mapping()]
        figures = [_figure(m.get(key)) for key in ("auc_pr", "recall_at_budget") for m in three]
        shown.add_row(bank, f"{result['rows']:,}", f"{result['frauds']:,}", *figures)
        rows.append({"bank": bank, "rows": result["rows"], "frauds": result["frauds"]} | _flat(three))
    tell(shown)
    everyone = evaluations[banks[0]]["consortium"]
    tell(
        f"  all banks, by secure sum: AUC-PR {_figure(everyone['auc_pr'])}, AUC-ROC {_figure(everyone['auc_roc'])}, "
        f"recall {_figure(everyone['recall_at_budget'])} over {everyone['rows']:,} rows, {everyone['frauds']:,} frauds"
    )
    (out / "results.json").write_text(json.dumps({"banks": rows, "consortium": everyone}, indent=2) + "\n")


def _flat(three: list[dict[str, Any]]) -> dict[str, Any]:
    names = ("alone", "consortium", "pooled")
    return {
        f"{key}_{name}": metrics.get(key)
        for name, metrics in zip(names, three, strict=True)
        for key in ("auc_pr", "recall_at_budget")
    }


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _show_alerts(out: Path, bank: str, tell: Callable[[RenderableType], None]) -> None:
    path = out / "work" / bank / "alerts" / "alerts.csv"
    alerts = pd.read_csv(path).head(5).fillna("")
    shown = Table("time", "score", "reasons (SHAP, log-odds)", title=f"top alerts of {bank} in its last week")
    for _, alert in alerts.iterrows():
        reasons = ", ".join(filter(None, (str(alert[f"reason_{i}"]) for i in (1, 2, 3))))
        shown.add_row(str(alert["event_time"])[:19], f"{alert['score']:.3f}", reasons)
    tell(shown)
    screen.print(f"all of them: {path}")
