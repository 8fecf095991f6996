"""The consortium operator's DAG: opens a run, follows it, reports. Wiring only; sees no data and no model."""

from __future__ import annotations

from functools import partial

from airflow.sdk import DAG, Param

from dags import settings
from dags.defaults import crossbank_dag
from dags.provider.operators import CloseRunOperator, OpenRunOperator, WaitForPhase

__all__ = ["make_consortium_dag"]


def make_consortium_dag(config_path: str, paused: bool | None) -> DAG:
    """Makes the DAG ``consortium_run``.

    Args:
        config_path: Path of the operator's config: section ``aggregator``, and ``run`` with the settings
            of a run, which a trigger's conf may replace key by key.
        paused: Whether the DAG starts paused; None leaves it to Airflow.
    """
    with crossbank_dag(
        "consortium_run",
        schedule=None,
        paused=paused,
        tags=["consortium"],
        doc=_DOC,
        params={
            "settings": Param(
                settings.jsonable(settings.read_mapping(config_path).get("run") or {}),
                type="object",
                title="Settings of the run",
                description="Replaces keys of the section `run` of the operator's config.",
            ),
        },
    ) as dag:
        run_id = "{{ ti.xcom_pull(task_ids='open_run') }}"
        # The aggregator aborts a run at its own deadlines; the wait only bounds one that does not.
        wait_for = partial(WaitForPhase, config_path=config_path, run_id=run_id, wait_seconds=31 * 86_400.0)
        open_run = OpenRunOperator(task_id="open_run", config_path=config_path)
        roster = wait_for(task_id="wait_for_roster", phase="KEYING")
        watch = wait_for(task_id="watch", phase="RELEASED", fail_on_abort=False)
        report = CloseRunOperator(task_id="report", trigger_rule="all_done", config_path=config_path, run_id=run_id)
        open_run >> roster >> watch >> report
    return dag


_DOC = """
Opens a federated training run, waits for every invited bank to join, follows it to its end and prints
what happened. Fails with the reason if the run is aborted; aborts a run it can no longer follow.
Trigger it with other settings by the form or `{"settings": {...}}`.
"""

if _config_path := settings.consortium_config():
    consortium_run = make_consortium_dag(_config_path, settings.paused())
