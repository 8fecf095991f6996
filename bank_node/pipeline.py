"""What a scheduled task calls: extract, train, evaluate, register, score, purge. Each is safe to call again.

Every function takes the path of the bank's configuration and returns a small JSON-able mapping. State is kept in
the bank's ``work_dir``, so that a retry, in another process, goes on where the last one stopped.
"""

import datetime as dt
import functools
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import pandas as pd

from bank_node.config import BankConfig, load_config
from bank_node.consortium import Log
from bank_node.files import named_when_full, one_at_a_time, storage_full, write_atomic
from protocol.errors import LocalError, OutOfOrder, QualityGateClosed, StorageFull
from protocol.run_choice import run_for_bank
from protocol.run_plan import announced_plan
from protocol.run_state import Phase
from protocol.steps import Point

if TYPE_CHECKING:
    from bank_node.secure_aggregation.session import RunSession
    from bank_node.training.federated import FederatedModel
    from bank_node.transport.client import BankClient

__all__ = ["evaluate", "extract", "gate", "open_run", "personalise", "purge", "register", "score", "train", "wipe_keys"]

logger = logging.getLogger(__name__)


P = ParamSpec("P")
T = TypeVar("T")


def _told_when_full(step: Callable[P, T]) -> Callable[P, T]:
    """A full disk ends the step by its name, not by whatever a library makes of it."""

    @functools.wraps(step)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        with named_when_full(f"{step.__name__} by {args[0]}", Path("work_dir")):
            return step(*args, **kwargs)

    return wrapped


@_told_when_full
def extract(config_path: Path | str, *, log: Log = logger.info) -> dict[str, Any]:
    """Bring the bank's store of features up to date with its payments: only what is new or changed is read.

    Raises:
        features.errors.TooManyQuarantined: all was extracted that could be, and more rows were set aside than the
            contract's quality gate lets pass; mend the mapping, see `bank-node quarantine`, and extract again.
        features.errors.DataError: a file of payments can't be used; the features of before stay.
    """
    from bank_node.data_governance.set_aside import warn_of_quarantine
    from bank_node.dataset.feature_tables import identifier_keys
    from bank_node.shared_risk.rows import link_noted
    from features import load_contract
    from features.contract.mapping import load_mapping
    from features.incremental import extract_days
    from features.store.partitions import FeatureStore

    config = load_config(Path(config_path))
    wipe_keys(config, log=log)
    contract = load_contract(config.contract)
    mapping = None if config.mapping is None else load_mapping(config.mapping, contract)
    started = perf_counter()
    log(f"bank {config.bank_id}: extracting features by contract {contract.name} {contract.version}")
    key, shared_key = identifier_keys(config)
    done = extract_days(
        contract,
        config.events,
        FeatureStore(config.store_dir),
        key=key,
        shared_key=shared_key,
        mapping=mapping,
        labels=config.labels,
    )
    link_noted(config, shared_key)
    quarantined = {f"{column or 'line'}: {reason}": count for (column, reason), count in done.quarantined.items()}
    log(
        f"{len(done.taken)} files read; of {done.rows} rows {done.stored} kept, {done.repeated} repeated, "
        f"{sum(quarantined.values())} quarantined; {len(done.built)} days built, {len(done.relabelled)} relabelled"
    )
    if config.labels is not None:
        bad = sum(done.labels.quarantined.values())
        log(
            f"labels: of {done.labels.rows} rows {done.labels.applied} applied, {done.labels.waiting} wait for their "
            f"payment, {done.labels.repeated} repeated, {bad} quarantined"
        )
    log(f"{done.feature_rows} rows, {done.frauds} known frauds, {perf_counter() - started:.1f} s")
    result: dict[str, Any] = {
        "rows": done.feature_rows,
        "frauds": done.frauds,
        "path": str(config.store_dir),
        "payments": {
            "read": done.rows,
            "kept": done.stored,
            "repeated": done.repeated,
            "purged": done.purged,
            "quarantined": quarantined,
        },
        "labels": {
            "read": done.labels.rows,
            "applied": done.labels.applied,
            "waiting": done.labels.waiting,
            "repeated": done.labels.repeated,
            "quarantined": {f"{column}: {reason}": n for (column, reason), n in done.labels.quarantined.items()},
        },
        "days": {"built": len(done.built), "relabelled": len(done.relabelled)},
    }
    shares = {
        "payments": (done.rows, sum(quarantined.values())),
        "labels": (done.labels.rows, sum(done.labels.quarantined.values())),
    }
    warn_of_quarantine(config, contract, shares, result, log)
    return result


def open_run(config_path: Path | str) -> str | None:
    """The id of the run that this bank should work on, see `protocol.run_choice`; None if there is none."""
    config = load_config(Path(config_path))
    client = _client(config, patience_seconds=10.0)
    try:
        view = run_for_bank(client.runs(), config.bank_id)
    finally:
        client.close()
    return None if view is None else view.run_id


def gate(config_path: Path | str, run_id: str, *, log: Log = logger.info) -> dict[str, Any]:
    """Judge the bank's feed as a whole before it joins a run; write the day's quality report.

    Raises:
        QualityGateClosed: a rule is broken; the consortium has been told which, without counts. Mend the feed, extract
            again, and clear the task while the run still waits.
    """
    from bank_node.data_governance.quality_report import assess, expected_until, write_report
    from features import load_contract

    config = load_config(Path(config_path))
    contract = load_contract(config.contract)
    with _working_on(config, run_id, "gate", log) as session:
        plan = announced_plan(session.view.settings)
        opened = dt.datetime.fromtimestamp(session.view.created_at, dt.UTC)
        report = assess(config, contract, expected_until(plan, opened))
        page = write_report(config, report)
        for finding in report.findings:
            words = f": {finding.words}" if finding.warning else ""
            log(f"{' '.join(filter(None, (finding.rule, finding.subject)))}: {finding.verdict}{words}")
        if not report.passed and config.bank_id not in session.view.joined:
            session.decline(contract.fingerprint, report.public_reason)
            raise QualityGateClosed(f"bank {config.bank_id} does not join run {run_id}: {report.reason}; see {page}")
        return {"run_id": run_id, "passed": report.passed, "report": str(page)}


def train(config_path: Path | str, run_id: str, *, log: Log = logger.info) -> dict[str, Any]:
    """Join a run, exchange keys, agree on bins and train the consortium's model."""
    from bank_node.data_governance.quality_report import told_of_bins
    from bank_node.dataset.run_contract import contract_for_run
    from bank_node.dataset.run_rows import HeldRows, held_rows
    from bank_node.dataset.shards import dask_client, shards_on
    from bank_node.models.lineage import note_trained_on
    from bank_node.models.registry import released_model
    from bank_node.shared_risk.rows import share_risk
    from bank_node.training.training_input import Beginning, TrainingInput
    from bank_node.training.tuning import train_or_tune, tuned_parameters
    from bank_node.warm_up import warm_up
    from features import load_contract
    from protocol.process import prepared_process

    config = load_config(Path(config_path))
    own = load_contract(config.contract)
    with ExitStack() as ends:
        session = ends.enter_context(_working_on(config, run_id, "train", log))
        plan = announced_plan(session.view.settings)
        contract = contract_for_run(config, session.view.settings.contract_fingerprint, log)

        def hold() -> HeldRows:
            return ends.enter_context(held_rows(config, own, contract, plan, run_id))

        # What can be wrong with our rows is found before the others wait for us.
        plan.check_features(contract.feature_names)
        held = hold()
        warm = released_model(config, plan.boosting.warm_start)
        log(f"kernels are ready ({warm_up():.1f} s)")
        workers = ends.enter_context(dask_client(config.shards)) if config.shards else None
        session.join(contract.fingerprint, own_contract="" if contract == own else f"{own.name} {own.version}")
        note_trained_on(config, run_id, contract, plan.train_until, warm_start=plan.boosting.warm_start)
        session.exchange_keys()
        shared = share_risk(config, contract, session, run_id, lambda: extract(config_path, log=log), log)
        if shared is not None:
            held = hold()
        unit, words = (shared.next_unit, shared.words) if shared else (0, "")
        rows = held.training.part()
        beginning = Beginning(
            anchor=shared.anchor if shared else Point.keys().text,
            unit=unit,
            on_bins=lambda ours, total: told_of_bins(
                config, contract, held.times, rows.columns, ours, total, session.secure_sum, unit, run_id, words, log
            ),
        )
        folder, params = config.run_dir(run_id), plan.boosting
        ends.enter_context(prepared_process())
        given = TrainingInput(
            rows=rows,
            feature_names=contract.feature_names,
            grids=[feature.grid.edges() for feature in contract.features],
            params=params,
            validation=held.judging,
            warm=warm,
            shards=(
                ends.enter_context(shards_on(workers, config.shards, held.training))
                if config.shards and workers
                else None
            ),
            beginning=beginning,
        )
        model, _ = train_or_tune(given, plan.tuning, session, folder, log)
        return {
            "run_id": run_id,
            "contract": f"{contract.name} {contract.version}",
            "model_sha256": model.sha256,
            "trees": len(model.trees),
            "rows": len(rows.labels),
            "frauds": int(rows.labels.sum()),
            "params": tuned_parameters(folder, params, plan.tuning).to_mapping(),
            "validation_rows": 0 if held.validation is None else held.validation.n_rows,
            "seconds": model.seconds,
            "bytes_sent": session.costs.bytes_sent,
        }


def evaluate(config_path: Path | str, run_id: str, *, log: Log = logger.info) -> dict[str, Any]:
    """Evaluate the model on later rows: all banks' by secure sum, our own, and the local champion's on our own.

    A run without ``train_until`` has no later rows: nothing is evaluated, and the result says so.
    """
    from bank_node.dataset.run_contract import contract_for_run
    from bank_node.dataset.run_rows import held_rows
    from bank_node.evaluation.metrics import rank_metrics
    from bank_node.models.calibrated import SIDECAR, calibration_report
    from bank_node.models.local_baseline import margins_of, train_champion
    from bank_node.training.release import NO_EVALUATION, evaluate_model, pass_over_evaluation
    from bank_node.training.tuning import tuned_parameters
    from features import load_contract

    config = load_config(Path(config_path))
    own_contract = load_contract(config.contract)
    with ExitStack() as ends:
        session = ends.enter_context(_working_on(config, run_id, "evaluate", log))
        plan = announced_plan(session.view.settings)
        contract = contract_for_run(config, session.view.settings.contract_fingerprint, log)
        held = ends.enter_context(held_rows(config, own_contract, contract, plan, run_id))
        model = _reload(config, run_id)
        session.exchange_keys()
        ours = held.training.part()
        result: dict[str, Any] = {
            "run_id": run_id,
            "bank": config.bank_id,
            "rows": len(ours.labels),
            "frauds": int(ours.labels.sum()),
            "consortium": None,
            "own": None,
            "alone": None,
        }
        path = config.run_dir(run_id) / "evaluation.json"
        if plan.train_until is None:
            pass_over_evaluation(session, log)
            result["evaluation"] = NO_EVALUATION
            write_atomic(path, json.dumps(result, indent=2).encode())
            return result
        rows = held.test.part()
        judged = evaluate_model(model, rows, plan.budget(contract.alert_budget), session, log)
        everyone, own = judged.consortium, judged.own
        write_atomic(config.run_dir(run_id) / SIDECAR, judged.sidecar)
        champion = train_champion(
            ours.columns,
            ours.labels,
            tuned_parameters(config.run_dir(run_id), plan.boosting, plan.tuning),
            contract.feature_names,
            weights=ours.weights,
            validation=held.judging,
        )
        alone = None
        if champion is not None:
            alone = rank_metrics(rows.labels, margins_of(champion, rows.columns), plan.budget(contract.alert_budget))
        result |= {
            "consortium": everyone.to_mapping(),
            "own": own.to_mapping(),
            "alone": alone.to_mapping() if alone else None,
            "calibration": calibration_report(config, contract.feature_names, model.trees, rows, judged),
        }
        write_atomic(path, json.dumps(result, indent=2).encode())
        if own.auc_pr is None:
            log(
                f"nothing of our own to judge by: of our {own.rows} labelled rows after {plan.train_until.date()} and "
                f"the label delay {own.frauds} are frauds; consortium: AUC-PR {_figure(everyone.auc_pr)}"
            )
        else:
            log(
                f"AUC-PR on our later rows ({own.rows}, of which {own.frauds} frauds): "
                f"alone {_figure(None if alone is None else alone.auc_pr)}, consortium {_figure(own.auc_pr)}"
            )
        return result


def register(config_path: Path | str, run_id: str, *, log: Log = logger.info) -> dict[str, Any]:
    """Vote for the model and, once all banks have, put it into the bank's registry as the current one."""
    from bank_node.dataset.run_contract import contract_for_run
    from bank_node.models.calibrated import kept_sidecar
    from bank_node.models.registry import keep_released
    from bank_node.secure_aggregation.ledger_audit import vote_evidence
    from bank_node.training.release import vote

    config = load_config(Path(config_path))
    with _working_on(config, run_id, "register", log) as session:
        model = _reload(config, run_id).model_json
        digest = hashlib.sha256(model).hexdigest()
        if session.view.model_sha256 and session.view.model_sha256 != digest:
            raise LocalError(f"run {run_id} is about another model than bank {config.bank_id} trained")
        if not session.reported(Phase.TRAINING):
            raise OutOfOrder(_first(config, run_id, "train", "has not ended training"))
        if not session.reported(Phase.EVALUATING):
            raise OutOfOrder(_first(config, run_id, "evaluate", "has not evaluated the model"))
        if not session.reported(Phase.VOTING):
            session.exchange_keys()
            vote(session, digest, log)
        settings = session.view.settings
        contract = contract_for_run(config, settings.contract_fingerprint, log)
        session.end()
        keep_released(
            config,
            model,
            run_id=run_id,
            contract=f"{contract.name} {contract.version}",
            contract_fingerprint=contract.fingerprint,
            trained_until=announced_plan(settings).train_until,
            evidence=vote_evidence(config.run_dir(run_id)),
            now=dt.datetime.now(dt.UTC),
            calibration=kept_sidecar(config, run_id, announced_plan(settings)),
        )
        log(f"run {run_id} is released; model {digest[:12]} is now the bank's current one; the run's keys are wiped")
        return {"run_id": run_id, "model_path": str(config.registry / "current.json"), "model_sha256": digest}


@_told_when_full
def score(config_path: Path | str, *, log: Log = logger.info) -> dict[str, Any]:
    """Score the newest rows with the bank's current model, or its own, and write alerts with reason codes."""
    from bank_node.dataset.feature_tables import feature_rows, last_day
    from bank_node.models.calibrated import AMOUNT, current_calibration, worth_their_cost
    from bank_node.models.personal import personal_model
    from bank_node.models.registry import current_model
    from bank_node.models.scoring import load_model, make_alerts, score_rows
    from features import load_contract

    config = load_config(Path(config_path))
    wipe_keys(config, log=log)
    contract = load_contract(config.contract)
    personal = personal_model(config) if config.scoring_model == "personal" else None
    if config.scoring_model == "personal" and personal is None:
        log("no personalised model of the current one was kept; scoring with the consortium's")
    calibration = None
    if personal is None:
        model, record = current_model(config)
        booster = load_model(model, config.registry / "current.json")
        log(f"model {record.model_sha256[:12]} of run {record.run_id}, trained on rows until {record.trained_until}")
        calibration = current_calibration(config, record)
    else:
        booster = load_model(*personal)
    table = feature_rows(config, contract, since=last_day(config) - dt.timedelta(days=8))
    newest = table["event_time"].max() - pd.Timedelta(days=7)
    recent = table[table["event_time"] > newest].reset_index(drop=True)
    if calibration is None or calibration.why:
        log("scores are the model's own: they rank, and are not calibrated as probabilities")
    scores = score_rows(booster, recent, calibration)
    within = make_alerts(booster, recent, scores, contract.alert_budget, amount=AMOUNT)
    alerts = worth_their_cost(within, config.alert_cost, log)
    path = config.work_dir / "alerts" / "alerts.csv"
    write_atomic(path, alerts.to_csv(index=False).encode())
    log(f"{len(recent)} rows of the last 7 days scored, {len(alerts)} alerts in {path}")
    return {
        "alerts_path": str(path),
        "alerts": len(alerts),
        "rows": len(recent),
        "model": "consortium" if personal is None else "personal",
        "calibrated": calibration is not None and not calibration.why,
        "left_out_by_cost": len(within) - len(alerts),
    }


@_told_when_full
def personalise(
    config_path: Path | str,
    *,
    trees: int = 100,
    eta: float = 0.1,
    max_depth: int = 4,
    until: dt.datetime | None = None,
    log: Log = logger.info,
) -> dict[str, Any]:
    """Boost on from the consortium's model on the bank's own rows; keep what is better; `models.personal`."""
    from bank_node.boosting import BoostingParameters
    from bank_node.dataset.feature_tables import feature_rows
    from bank_node.models.personal import make_personal
    from features import load_contract

    config = load_config(Path(config_path))
    contract = load_contract(config.contract)
    params = BoostingParameters(n_estimators=trees, eta=eta, max_depth=max_depth, max_bin=255, early_stopping_rounds=10)
    return make_personal(config, contract, feature_rows(config, contract), params, until=until, log=log)


@_told_when_full
def purge(
    config_path: Path | str,
    *,
    accounts: Path | None = None,
    since: dt.date | None = None,
    until: dt.date | None = None,
    reason: str = "",
    dry_run: bool = False,
    confirm: int | None = None,
    log: Log = logger.info,
) -> dict[str, Any]:
    """Remove customers' rows, a period's, and what retention and waiting requests ask for.

    Args:
        accounts: a 0600 file of account numbers, one a line.
        dry_run: only say what would go.
        confirm: the number of rows that somebody agreed to, see `purge_share` of the configuration.
    """
    from bank_node.data_governance.purge import purge_rows, read_accounts
    from features import load_contract

    config = load_config(Path(config_path))
    wipe_keys(config, log=log)
    if since is not None and until is None:
        raise LocalError("a period to purge needs its end")
    return purge_rows(
        config,
        load_contract(config.contract),
        now=dt.datetime.now(dt.UTC),
        accounts=() if accounts is None else read_accounts(accounts),
        periods=[] if until is None else [(since, until)],
        reason=reason,
        dry_run=dry_run,
        confirm=confirm,
        log=log,
    )


def _client(config: BankConfig, patience_seconds: float = 60.0) -> "BankClient":
    from bank_node.transport.client import BankClient

    return BankClient(config.aggregator, config.bank_id, patience_seconds=patience_seconds)


@contextmanager
def _working_on(config: BankConfig, run_id: str, step: str, log: Log) -> Iterator[Any]:
    """A session of a run, ours alone as long as the block lasts: two of them would write one ledger.

    An error by which the bank can't go on with the run is told to the others, who then go on at once.

    Raises:
        AlreadyRunning: another process of this bank works on the run.
    """
    from features.errors import DataError

    what = f"bank {config.bank_id}, run {run_id}: {step}"
    with named_when_full(what, config.work_dir), one_at_a_time(config.run_dir(run_id) / ".lock", what):
        wipe_keys(config, log=log, held=run_id)
        session, room = None, config.run_dir(run_id) / ".room"
        try:
            # Named here already: a full disk is one of the errors by which a bank may leave.
            with named_when_full(what, config.work_dir):
                room.write_bytes(os.urandom(_ROOM_BYTES))
                session = _session(config, run_id, log)
                yield session
        except (LocalError, DataError) as error:
            room.unlink(missing_ok=True)
            late = step == "gate" and session is not None and config.bank_id in session.view.joined
            if not late and (isinstance(error, DataError | StorageFull) or error.leaves):
                _leave(config, run_id, error, log)
            raise
        finally:
            room.unlink(missing_ok=True)
            if session is not None:
                session.close()


_ROOM_BYTES = 16384
"""Held back in a run's folder, as random bytes, so that a bank whose disk is full can still note that it leaves."""


def _leave(config: BankConfig, run_id: str, error: Exception, log: Log) -> None:
    """Leave a run by an error. By a full disk only one that has not begun: later the bank may come back."""
    from bank_node.secure_aggregation.leaving import leave_run, told_of

    full, folder = isinstance(error, StorageFull), config.run_dir(run_id)
    with closing(_client(config, patience_seconds=30.0)) as client:
        try:
            # What can't be noted is not sent.
            client.outbox.follow(folder / "outbox.jsonl")
            leave_run(client, run_id, folder, told_of(error), log, begun=not full)
        except OSError as refused:
            if not storage_full(refused):
                raise
            log(f"run {run_id}: bank {config.bank_id} could not say that it leaves: there is no room to note it")


def wipe_keys(config: BankConfig | Path | str, *, log: Log = logger.info, held: str = "") -> dict[str, Any]:
    """Wipe the keys of all runs that have ended without this bank's process; every step does this first.

    Args:
        config: the bank's, or its path.
        held: a run that the caller has the lock of.
    """
    from bank_node.secure_aggregation.leaving import wipe_ended_runs

    found = config if isinstance(config, BankConfig) else load_config(Path(config))
    runs = found.work_dir / "runs"
    wiped = wipe_ended_runs(runs, found.rows_dir, lambda: _client(found, patience_seconds=5.0), log, held=held)
    return {"wiped": wiped}


def _first(config: BankConfig, run_id: str, step: str, why: str) -> str:
    return f"bank {config.bank_id} {why} in run {run_id}; first run `bank-node {step} --config … --run {run_id}`"


def _figure(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"


def _session(config: BankConfig, run_id: str, log: Log) -> "RunSession":
    from bank_node.secure_aggregation.cipher_pool import default_processes
    from bank_node.secure_aggregation.session import RunSession
    from bank_node.transport.identity import Identity

    identity = Identity(config.aggregator.files, config.bank_id)
    return RunSession(
        _client(config, patience_seconds=300.0),
        identity,
        run_id,
        config.run_dir(run_id),
        log,
        minimum_roster=config.minimum_roster,
        encryption_processes=default_processes()
        if config.encryption_processes is None
        else config.encryption_processes,
    )


def _reload(config: BankConfig, run_id: str) -> "FederatedModel":
    """The trained model of a run from the bank's own files."""
    from bank_node.boosting import cuts_from_bytes, read_booster
    from bank_node.boosting.errors import BoostingError
    from bank_node.training.checkpoint import reading
    from bank_node.training.federated import BINS, FederatedModel

    folder = config.run_dir(run_id)
    if not (folder / "model.json").exists():
        raise OutOfOrder(_first(config, run_id, "train", "has not ended training"))
    model_json = (folder / "model.json").read_bytes()
    try:
        model = read_booster(model_json)
    except BoostingError as error:
        # Made from the run's trees, which are kept apart.
        raise OutOfOrder(_first(config, run_id, "train", "has a damaged model.json")) from error
    with reading(folder / BINS):
        cuts = cuts_from_bytes((folder / BINS).read_bytes())
    return FederatedModel(
        trees=list(model.trees),
        cuts=cuts,
        base_score=model.base_score,
        model_json=model_json,
        seconds={},
    )
