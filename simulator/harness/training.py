"""`simulator train`: a whole consortium on one table, and the comparison with alone and pooled. Prints nothing."""

import hashlib
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import xgboost

from aggregator.config import AggregatorConfig
from aggregator.operator.client import OperatorClient
from aggregator.server import AggregatorServer
from bank_node.boosting import BoostingParameters
from bank_node.boosting.row_files import BankRows
from bank_node.evaluation.metrics import rank_metrics
from bank_node.files import write_atomic
from bank_node.models.local_baseline import margins_of, train_champion
from bank_node.training.checkpoint import TreeFile
from bank_node.training.tuning import STATE, OnScore
from protocol.documents import read_mapping
from protocol.errors import ConfigError, CrossbankError, LocalError, RunAborted
from protocol.messages import RunSettings, RunView
from protocol.process import prepared_process
from protocol.run_plan import RunPlan, TuningPlan
from protocol.run_state import Phase
from protocol.starting_parameters import starting_parameters
from simulator.harness.processes import (
    AggregatorProcess,
    bank_files,
    child_environment,
    make_certificates,
    operator_files,
)
from simulator.harness.tables import SimulatedTable
from simulator.harness.worker import BankJob, PlainSums, load_job, run_bank, run_job, save_job
from simulator.ports import LOOPBACK, free_port

__all__ = [
    "check_data",
    "federate",
    "federate_saved",
    "load_params",
    "load_warm",
    "put_level",
    "the_model",
    "train_consortium",
]

Progress = Callable[[RunView], None]


def load_params(path: Path | None, *, validated: bool = False) -> BoostingParameters:
    """Read a YAML file of training parameters by XGBoost's names (plus ``n_estimators`` and ``max_bin``).

    Args:
        path: the file; without one, what suits rare frauds: `protocol.starting_parameters`.
        validated: there will be validation rows.

    Raises:
        ConfigError: unreadable, or an unknown or wrong parameter; names file and key.
    """
    if path is None:
        return BoostingParameters.from_mapping(starting_parameters(validated=validated))
    document = read_mapping(path, "parameters")
    try:
        return BoostingParameters.from_mapping(document)
    except CrossbankError as error:
        raise ConfigError(f"parameters {path}: {error}") from error


def load_warm(params: BoostingParameters, path: Path | None) -> tuple[BoostingParameters, bytes]:
    """The model to go on from, and the parameters that name it.

    Raises:
        ConfigError: the file can't be read, or the parameters name a model and none or another is given.
    """
    if path is None:
        if params.warm_start:
            raise ConfigError(f"the parameters go on from model {params.warm_start[:12]}: give its file, --warm-start")
        return params, b""
    try:
        model = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"model {path} can't be read: {error.strerror}") from error
    digest = hashlib.sha256(model).hexdigest()
    if params.warm_start not in ("", digest):
        raise ConfigError(f"the parameters go on from model {params.warm_start[:12]}, but {path} is {digest[:12]}")
    return replace(params, warm_start=digest), model


def check_data(params: BoostingParameters, table: SimulatedTable) -> None:
    """Check, before anything is started, that the table has what the parameters need.

    Raises:
        ConfigError: it has no validation rows or no row ids; names the option to give.
    """
    if params.early_stopping_rounds and not table.validation:
        raise ConfigError("early_stopping_rounds needs validation rows: give --validate-from or --validation-share")
    if params.subsample < 1.0 and any(rows.keys is None for rows in table.train.values()):
        raise ConfigError("subsample below 1 needs the rows' ids: give --row-id-column")


def train_consortium(
    table: SimulatedTable,
    params: BoostingParameters,
    out: Path,
    *,
    mode: str = "processes",
    alert_budget: float = 0.005,
    compare: bool = True,
    on_progress: Progress | None = None,
    warm: bytes = b"",
    shards: int = 0,
) -> dict[str, Any]:
    """Run the consortium and write ``model.json`` and ``report.json`` into `out`.

    Args:
        table: the cut table.
        params: training parameters.
        out: folder for the results; made if missing.
        mode: ``processes`` (aggregator and banks as processes over loopback TLS), ``threads`` (the same in this
            process) or ``plain`` (sums in memory, no encryption, no network).
        alert_budget: share of rows for recall at budget.
        compare: also train each bank alone and all rows pooled, by XGBoost.
        on_progress: called with the run's view about five times a second.
        warm: the model that ``params.warm_start`` names, to go on from.
        shards: Dask workers that each bank spreads its rows over; 0 for none, else only with ``processes``.

    Returns:
        The report.
    """
    out.mkdir(parents=True, exist_ok=True)
    results, seconds = federate(
        table,
        params,
        out,
        mode=mode,
        alert_budget=alert_budget,
        on_progress=on_progress,
        warm=warm,
        shards=shards,
    )
    first = the_model(results)
    (out / "model.json").write_text(first["model_json"])
    metrics: dict[str, Any] = {
        "consortium": first["consortium"],
        "per_bank": {bank: {"consortium": result["own"]} for bank, result in results.items()},
        "evaluated_on": "the training rows (no --train-until given)" if table.in_sample else "later rows",
    }
    if compare:
        started = perf_counter()
        _compare(table, params, alert_budget, metrics, warm)
        seconds["comparison"] = perf_counter() - started
    report = {
        "model_sha256": hashlib.sha256(first["model_json"].encode()).hexdigest(),
        "mode": {"processes": "encrypted, processes over TLS", "threads": "encrypted, threads over TLS"}.get(
            mode, "plain, in memory"
        ),
        "banks": sorted(results),
        "rows": {bank: result["rows"] for bank, result in results.items()},
        "frauds": {bank: result["frauds"] for bank, result in results.items()},
        "validation_rows": {bank: len(rows.labels) for bank, rows in table.validation.items()},
        "trees": first["trees"],
        "features": list(table.feature_names),
        "params": params.to_mapping(),
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "bytes_sent_per_bank": {bank: result.get("bytes_sent", 0) for bank, result in results.items()},
        "metrics": metrics,
    }
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    return report


def the_model(results: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """One bank's result, for what all banks have alike.

    Raises:
        LocalError: they did not end with the same model.
    """
    digests = {result["model_sha256"] for result in results.values()}
    if len(digests) != 1:
        raise LocalError(f"the banks ended with {len(digests)} different models")
    return next(iter(results.values()))


def federate(
    table: SimulatedTable,
    params: BoostingParameters,
    out: Path,
    *,
    mode: str,
    alert_budget: float,
    on_progress: Progress | None = None,
    warm: bytes = b"",
    shards: int = 0,
    tuning: TuningPlan | None = None,
    on_score: OnScore | None = None,
    resume: bool = False,
) -> tuple[dict[str, dict[str, Any]], dict[str, float]]:
    """Each bank's result, and seconds by phase: the slowest bank's for each, and ``start`` for making processes.

    Args:
        table: the cut table.
        params: training parameters.
        out: folder for the banks' files while they work.
        mode: ``processes``, ``threads`` or ``plain``, see `train_consortium`.
        alert_budget: share of rows for recall at budget.
        on_progress: called with the run's view about five times a second.
        warm: the model to go on from.
        shards: spread each bank's rows over so many workers.
        tuning: search among parameter sets; told of by `on_score` in plain mode.
        on_score: see `bank_node.training.tuning`.
        resume: plain mode only: go on with what an earlier call left in `out`, and leave it there.
    """
    if shards and mode != "processes":
        raise ConfigError("shards need each bank in a process of its own")
    work = out.resolve() / "work"
    if resume and mode == "plain":
        put_level(work, list(table.train))
    else:
        shutil.rmtree(work, ignore_errors=True)
    jobs = [
        BankJob(
            bank=bank,
            folder=work / bank,
            feature_names=table.feature_names,
            grids=table.grids,
            train=table.train[bank],
            test=table.test[bank],
            validation=table.validation.get(bank),
            warm=warm,
            shards=shards,
            tuning=tuning,
        )
        for bank in table.train
    ]
    started = perf_counter()
    if mode == "plain":
        results = _run_plain(jobs, params, alert_budget, on_score)
    elif mode == "threads":
        results = _run_threads(jobs, params, alert_budget, table.fingerprint, work)
    elif mode == "processes":
        results = _run_processes(jobs, params, alert_budget, table.fingerprint, work, on_progress)
    else:
        raise ValueError(f"unknown mode {mode}")
    seconds = _phases(results, perf_counter() - started)
    if not resume:
        shutil.rmtree(work, ignore_errors=True)
    return results, seconds


def federate_saved(
    banks: dict[str, Path],
    params: BoostingParameters,
    out: Path,
    *,
    alert_budget: float,
    on_progress: Progress | None = None,
    on_end: Callable[[AggregatorProcess], None] = lambda node: None,
) -> tuple[dict[str, dict[str, Any]], dict[str, float]]:
    """As `federate` in processes, over rows that `save_job` left in each bank's folder; this process maps them only.

    Args:
        banks: each bank's folder.
        params: training parameters.
        out: folder for the run.
        alert_budget: share of rows for recall at budget.
        on_progress: called with the run's view about five times a second.
        on_end: called with the aggregator's process before it is stopped.
    """
    work = out.resolve() / "work"
    shutil.rmtree(work, ignore_errors=True)
    jobs = [replace(load_job(folder, bank), folder=work / bank, detailed=True) for bank, folder in banks.items()]

    def link(job: BankJob) -> None:
        job.folder.mkdir(parents=True)
        (job.folder / "rows").symlink_to(banks[job.bank].resolve() / "rows")

    first = jobs[0]
    table = SimulatedTable(feature_names=first.feature_names, grids=first.grids, train={}, test={}, in_sample=True)
    started = perf_counter()
    results = _run_processes(jobs, params, alert_budget, table.fingerprint, work, on_progress, save=link, on_end=on_end)
    seconds = _phases(results, perf_counter() - started)
    shutil.rmtree(work, ignore_errors=True)
    return results, seconds


def _phases(results: dict[str, dict[str, Any]], total: float) -> dict[str, float]:
    phases = {
        name: max(result["seconds"].get(name, 0.0) for result in results.values())
        for name in ("keys", "binning", "training", "evaluation")
    }
    return {"start": max(0.0, total - sum(phases.values()))} | phases | {"total": total}


def _settings(jobs: list[BankJob], params: BoostingParameters, alert_budget: float, fingerprint: str) -> RunSettings:
    plan = RunPlan(params=params.to_mapping(), alert_budget=alert_budget, tuning=jobs[0].tuning)
    return RunSettings(
        title="simulated run",
        roster=tuple(job.bank for job in jobs),
        contract_fingerprint=fingerprint,
        parameters_json=plan.to_json(),
        rounds=plan.rounds,
        enrol_seconds=300,
        step_seconds=600,
        minimum_roster=min(3, len(jobs)),
    )


def put_level(work: Path, banks: Sequence[str]) -> None:
    """Bring what banks left in their folders to where all of them had come, so that they can go on together."""
    homes = [work / bank for bank in banks]
    if any(not (home / "bins.npz").exists() for home in homes):
        shutil.rmtree(work, ignore_errors=True)
        return
    states = {home: json.loads((home / STATE).read_bytes()) if (home / STATE).exists() else {} for home in homes}
    least = min(len(state.get("known", [])) for state in states.values())
    for home, state in states.items():
        write_atomic(home / STATE, json.dumps({"known": state.get("known", [])[:least]}).encode())
    for name in {path.name for home in homes for path in home.glob("set_*")}:
        paths = [home / name / "trees.bin" for home in homes]
        files = {path: TreeFile(path) for path in paths}
        shortest = min(len(file.trees) for file in files.values())
        for path, file in files.items():
            file.close()
            path.unlink()
            again = TreeFile(path)
            for tree in file.trees[:shortest]:
                again.append(tree)
            again.close()


def _run_plain(
    jobs: list[BankJob], params: BoostingParameters, alert_budget: float, on_score: OnScore | None
) -> dict[str, dict[str, Any]]:
    consortium = PlainSums([job.bank for job in jobs])

    def one(job: BankJob) -> dict[str, Any]:
        try:
            job.folder.mkdir(parents=True, exist_ok=True)
            seat, told = consortium.seat(job.bank), {}
            if on_score is not None and job is jobs[0]:
                told["on_score"] = on_score
            return run_bank(job, params, alert_budget, seat, lambda _: None, tuning=job.tuning, **told)
        except BaseException:
            consortium.abort()
            raise

    return _in_threads(jobs, one)


def _run_threads(
    jobs: list[BankJob], params: BoostingParameters, alert_budget: float, fingerprint: str, work: Path
) -> dict[str, dict[str, Any]]:
    certificates = work / "certificates"
    make_certificates(certificates, [job.bank for job in jobs])
    address = f"{LOOPBACK}:{free_port()}"
    server = AggregatorServer(
        AggregatorConfig(
            adding_processes=0,
            listen=address,
            console=None,
            ca=certificates / "ca.pem",
            certificate=certificates / "aggregator.pem",
            key=certificates / "aggregator.key",
            store=f"sqlite:///{work / 'aggregator.db'}",
        )
    )
    server.start()
    try:
        with OperatorClient(address, operator_files(certificates)) as client:
            run_id = client.open_run(_settings(jobs, params, alert_budget, fingerprint))

        def one(job: BankJob) -> dict[str, Any]:
            try:
                files = bank_files(certificates, job.bank)
                return run_job(job, address, files, run_id, fingerprint, lambda _: None)
            except BaseException as error:
                server.coordinator.abort_run(run_id, f"bank {job.bank} failed: {type(error).__name__}")
                raise

        return _in_threads(jobs, one)
    finally:
        server.stop()


def _in_threads(jobs: list[BankJob], work: Callable[[BankJob], dict[str, Any]]) -> dict[str, dict[str, Any]]:
    with prepared_process(), ThreadPoolExecutor(len(jobs)) as pool:
        futures = {job.bank: pool.submit(work, job) for job in jobs}
    errors = [e for f in futures.values() if (e := f.exception()) is not None]
    for error in sorted(errors, key=lambda e: isinstance(e, RunAborted | threading.BrokenBarrierError)):
        raise error
    return {bank: future.result() for bank, future in futures.items()}


def _run_processes(
    jobs: list[BankJob],
    params: BoostingParameters,
    alert_budget: float,
    fingerprint: str,
    work: Path,
    on_progress: Progress | None,
    *,
    save: Callable[[BankJob], None] = save_job,
    on_end: Callable[[AggregatorProcess], None] = lambda node: None,
) -> dict[str, dict[str, Any]]:
    certificates = work / "certificates"
    make_certificates(certificates, [job.bank for job in jobs])
    node = AggregatorProcess(work / "node", certificates)
    node.start()
    workers: dict[str, subprocess.Popen[bytes]] = {}
    try:
        with OperatorClient(node.address, operator_files(certificates)) as client:
            run_id = client.open_run(_settings(jobs, params, alert_budget, fingerprint))
            for job in jobs:
                save(job)
                workers[job.bank] = _start_worker(job, certificates, node.address, run_id, fingerprint)
            while any(worker.poll() is None for worker in workers.values()):
                for bank, worker in workers.items():
                    if worker.poll() not in (None, 0):
                        tail = (work / bank / "worker.log").read_text().strip().splitlines()[-1:]
                        raise LocalError(f"bank {bank} failed: {''.join(tail)}")
                if on_progress is not None:
                    on_progress(client.get_run(run_id, 1 << 61))
                time.sleep(0.2)
            if on_progress is not None:
                on_progress(client.get_run(run_id, 1 << 61))
            for bank, worker in workers.items():
                if worker.returncode != 0:
                    tail = (work / bank / "worker.log").read_text().strip().splitlines()[-1:]
                    raise LocalError(f"bank {bank} failed: {''.join(tail)}")
            if client.get_run(run_id).phase != Phase.RELEASED:
                raise LocalError(f"run {run_id} was not released")
            on_end(node)
        return {job.bank: json.loads((job.folder / "result.json").read_text()) for job in jobs}
    finally:
        for worker in workers.values():
            if worker.poll() is None:
                worker.kill()
                worker.wait()
        node.stop()


def _start_worker(
    job: BankJob, certificates: Path, address: str, run_id: str, fingerprint: str
) -> subprocess.Popen[bytes]:
    files = bank_files(certificates, job.bank)
    spec = {
        "bank": job.bank,
        "address": address,
        "run_id": run_id,
        "fingerprint": fingerprint,
        "shards": job.shards,
        "detailed": job.detailed,
        "ca": str(files.ca),
        "certificate": str(files.certificate),
        "key": str(files.key),
    }
    path = job.folder / "spec.json"
    path.write_text(json.dumps(spec))
    with (job.folder / "worker.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "simulator", "bank-worker", str(path)],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env=child_environment(),
        )


def _compare(
    table: SimulatedTable, params: BoostingParameters, budget: float, metrics: dict[str, Any], warm: bytes
) -> None:
    names = list(table.feature_names)

    def judged(booster: xgboost.Booster | None, rows: BankRows) -> dict[str, Any] | None:
        if booster is None:
            return None
        return rank_metrics(rows.labels, margins_of(booster, rows.columns, threads=0), budget).to_mapping()

    def trained(rows: BankRows, validation: BankRows | None, before: xgboost.Booster | None) -> xgboost.Booster | None:
        return train_champion(
            rows.columns,
            rows.labels,
            params,
            names,
            threads=0,
            weights=rows.weights,
            validation=validation,
            going_on_from=before,
        )

    before = xgboost.Booster(model_file=bytearray(warm)) if warm else None
    validation = table.pooled(table.validation) if table.validation else None
    champion = trained(table.pooled(table.train), validation, before)
    metrics["pooled"] = judged(champion, table.pooled(table.test))
    for bank, rows in table.train.items():
        # A bank alone has no consortium's model to go on from.
        metrics["per_bank"][bank]["alone"] = judged(trained(rows, table.validation.get(bank), None), table.test[bank])
        metrics["per_bank"][bank]["pooled"] = judged(champion, table.test[bank])
