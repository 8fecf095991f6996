"""The DAGs of each bank in CROSSBANK_BANKS_DIR: features, training, scoring, purge. Wiring only.

A bank's config that can't be used makes no DAG here; it is the import error of `bank_config_faults.py`.
"""

from __future__ import annotations

from functools import partial

from airflow.sdk import DAG, Asset

from dags import settings
from dags.defaults import crossbank_dag
from dags.provider.operators import BankStepOperator, WaitForOpenRun

__all__ = ["make_bank_dags"]


def make_bank_dags(bank_id: str, config_path: str, schedule: str | None, paused: bool | None) -> list[DAG]:
    """Makes the four DAGs of one bank.

    A plain function and not ``@dag``: Airflow turns arguments of a ``@dag`` function into placeholders,
    which would garble the assets' names.

    Args:
        bank_id: The bank; part of the DAGs' ids.
        config_path: Path of the bank's config, handed to every task.
        schedule: Schedule of features, scoring and purge; None for runs by hand.
        paused: Whether the DAGs start paused; None leaves it to Airflow.
    """
    features, model, alerts = (
        Asset(name=f"crossbank_{bank_id}_{what}", uri=f"crossbank://{bank_id}/{what}")
        for what in ("features", "model", "alerts")
    )
    new_dag = partial(crossbank_dag, paused=paused, tags=[f"bank:{bank_id}"])
    with new_dag(f"bank_{bank_id}_features", schedule=schedule, doc=_FEATURES_DOC) as features_dag:
        BankStepOperator(task_id="extract", step="extract", config_path=config_path, outlets=[features])

    with new_dag(f"bank_{bank_id}_training", schedule=[features], doc=_TRAINING_DOC) as training_dag:
        wait = WaitForOpenRun(task_id="wait_for_open_run", bank_id=bank_id, config_path=config_path)
        run_id = "{{ ti.xcom_pull(task_ids='wait_for_open_run') }}"
        run_step = partial(BankStepOperator, config_path=config_path, run_id=run_id)
        gate = run_step(task_id="quality_gate", step="gate", inlets=[features])
        train = run_step(task_id="join_and_train", step="train", inlets=[features])
        evaluate = run_step(task_id="evaluate", step="evaluate")
        register = run_step(task_id="register", step="register", outlets=[model])
        wait >> gate >> train >> evaluate >> register

    with new_dag(f"bank_{bank_id}_scoring", schedule=schedule, doc=_SCORING_DOC) as scoring_dag:
        BankStepOperator(
            task_id="score", step="score", config_path=config_path, inlets=[features, model], outlets=[alerts]
        )

    with new_dag(f"bank_{bank_id}_purge", schedule=schedule, doc=_PURGE_DOC) as purge_dag:
        BankStepOperator(task_id="purge", step="purge", config_path=config_path)
    return [features_dag, training_dag, scoring_dag, purge_dag]


_FEATURES_DOC = """
Extracts the features of this bank's payments, as the data contract says, from its own files.
Nothing leaves the bank. Success publishes the features asset, which starts the training DAG.
"""
_TRAINING_DOC = """
Waits, without a worker slot, for a run that invites this bank; judges the bank's feed, and if it is broken stops
here with the reason and tells the consortium that the bank does not join; else joins the run; trains with the other
banks under encryption; evaluates; votes; and puts the released model into this bank's registry.
Every task is safe to retry or clear: the bank goes on with its own unfinished run.
A run that the consortium aborted fails the task at once, because only a new run can help.
If no run opens for twelve hours the DAG run is skipped.
"""
_SCORING_DOC = """
Scores this bank's newest payments with the model in its registry and writes alerts with reason codes.
Nothing leaves the bank.
"""

_PURGE_DOC = """
Removes for good what the bank's `retention_days` and the files in `work_dir/purge_requests` ask for, records it in
`work_dir/purges.jsonl`, and names the released models that had seen the rows. Account numbers are no parameters of this
DAG: Airflow would keep them. Fails if a waiting file is refused, and, with nothing removed, if more than the bank's
`purge_share` of all rows would go: then a person confirms by `bank-node purge`.
"""

for _bank_id, _config_path in settings.bank_configs().paths.items():
    for _dag in make_bank_dags(_bank_id, _config_path, settings.daily_schedule(), settings.paused()):
        globals()[_dag.dag_id] = _dag
