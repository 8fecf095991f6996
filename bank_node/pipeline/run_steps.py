"""The steps of one run at a bank: gate, train, evaluate, register. Each is safe to call again.

State is kept in the bank's ``work_dir``, so that a retry, in another process, goes on where the last one stopped.
"""

import datetime as dt
import hashlib
import json
import logging
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from bank_node.config import BankConfig, load_config
from bank_node.consortium import Log
from bank_node.files import write_atomic
from bank_node.pipeline.data_steps import extract
from bank_node.pipeline.results import Evaluated, Judged, Registered, Trained
from bank_node.pipeline.working import client_of, step_to_run_first, working_on
from protocol.errors import LocalError, OutOfOrder, QualityGateClosed
from protocol.run_choice import run_for_bank
from protocol.run_plan import announced_plan
from protocol.run_state import Phase
from protocol.steps import Point

if TYPE_CHECKING:
    from bank_node.training.federated import FederatedModel

__all__ = ["evaluate", "gate", "open_run", "register", "train"]

logger = logging.getLogger(__name__)


def open_run(config_path: Path | str) -> str | None:
    """The id of the run that this bank should work on, see `protocol.run_choice`; None if there is none."""
    config = load_config(Path(config_path))
    client = client_of(config, patience_seconds=10.0)
    try:
        view = run_for_bank(client.runs(), config.bank_id)
    finally:
        client.close()
    return None if view is None else view.run_id


def gate(config_path: Path | str, run_id: str, *, log: Log = logger.info) -> Judged:
    """Judge the bank's feed as a whole before it joins a run; write the day's quality report.

    Raises:
        QualityGateClosed: a rule is broken; the consortium has been told which, without counts. Mend the feed, extract
            again, and clear the task while the run still waits.
    """
    from bank_node.data_governance.quality_report import assess, expected_until, write_report
    from features import load_contract

    config = load_config(Path(config_path))
    contract = load_contract(config.contract)
    with working_on(config, run_id, "gate", log) as session:
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


def train(config_path: Path | str, run_id: str, *, log: Log = logger.info) -> Trained:
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
        session = ends.enter_context(working_on(config, run_id, "train", log))
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


def evaluate(config_path: Path | str, run_id: str, *, log: Log = logger.info) -> Evaluated:
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
        session = ends.enter_context(working_on(config, run_id, "evaluate", log))
        plan = announced_plan(session.view.settings)
        contract = contract_for_run(config, session.view.settings.contract_fingerprint, log)
        held = ends.enter_context(held_rows(config, own_contract, contract, plan, run_id))
        model = _reload(config, run_id)
        session.exchange_keys()
        ours = held.training.part()
        result: Evaluated = {
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


def register(config_path: Path | str, run_id: str, *, log: Log = logger.info) -> Registered:
    """Vote for the model and, once all banks have, put it into the bank's registry as the current one."""
    from bank_node.dataset.run_contract import contract_for_run
    from bank_node.models.calibrated import kept_sidecar
    from bank_node.models.registry import keep_released
    from bank_node.secure_aggregation.ledger_audit import vote_evidence
    from bank_node.training.release import vote

    config = load_config(Path(config_path))
    with working_on(config, run_id, "register", log) as session:
        model = _reload(config, run_id).model_json
        digest = hashlib.sha256(model).hexdigest()
        if session.view.model_sha256 and session.view.model_sha256 != digest:
            raise LocalError(f"run {run_id} is about another model than bank {config.bank_id} trained")
        if not session.reported(Phase.TRAINING):
            raise OutOfOrder(step_to_run_first(config, run_id, "train", "has not ended training"))
        if not session.reported(Phase.EVALUATING):
            raise OutOfOrder(step_to_run_first(config, run_id, "evaluate", "has not evaluated the model"))
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


def _figure(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"


def _reload(config: BankConfig, run_id: str) -> "FederatedModel":
    """The trained model of a run from the bank's own files."""
    from bank_node.boosting import cuts_from_bytes, read_booster
    from bank_node.boosting.errors import BoostingError
    from bank_node.training.checkpoint import reading
    from bank_node.training.federated import BINS, FederatedModel

    folder = config.run_dir(run_id)
    if not (folder / "model.json").exists():
        raise OutOfOrder(step_to_run_first(config, run_id, "train", "has not ended training"))
    model_json = (folder / "model.json").read_bytes()
    try:
        model = read_booster(model_json)
    except BoostingError as error:
        # Made from the run's trees, which are kept apart.
        raise OutOfOrder(step_to_run_first(config, run_id, "train", "has a damaged model.json")) from error
    with reading(folder / BINS):
        cuts = cuts_from_bytes((folder / BINS).read_bytes())
    return FederatedModel(
        trees=list(model.trees),
        cuts=cuts,
        base_score=model.base_score,
        model_json=model_json,
        seconds={},
    )
