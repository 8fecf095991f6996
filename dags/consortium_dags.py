"""The consortium operator's DAG: opens a run, follows it, reports. Wiring only; sees no data and no model."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG, Param

from dags import settings
from dags.provider.operators import CloseRunOperator, OpenRunOperator, WaitForPhase
from dags.provider.run_settings import jsonable

__all__ = ["make_consortium_dag"]


def make_consortium_dag(config_path: str, paused: bool | None) -> DAG:
    """Makes the DAG ``consortium_run``.

    Args:
        config_path: Path of the operator's config: section ``aggregator``, and ``run`` with the settings
            of a run, which a trigger's conf may replace key by key.
        paused: Whether the DAG starts paused; None leaves it to Airflow.
    """
    with DAG(
        "consortium_run",
        schedule=None,
        start_date=datetime(2026, 1, 1, tzinfo=UTC),
        catchup=False,
        max_active_runs=1,
        is_paused_upon_creation=paused,
        default_args={"owner": "crossbank", "retries": 2, "retry_delay": timedelta(seconds=10)},
        tags=["crossbank", "consortium"],
        doc_md=_DOC,
        params={
            "settings": Param(
                jsonable(settings.read_mapping(config_path).get("run") or {}),
                type="object",
                title="Settings of the run",
                description="Replaces keys of the section `run` of the operator's config.",
            ),
        },
    ) as dag:
        run = {"config_path": config_path, "run_id": "{{ ti.xcom_pull(task_ids='open_run') }}"}
        # The aggregator aborts a run at its own deadlines; this only bounds one that does not.
        wait = {**run, "wait_seconds": 31 * 86_400.0}
        open_run = OpenRunOperator(task_id="open_run", config_path=config_path)
        roster = WaitForPhase(task_id="wait_for_roster", phase="KEYING", **wait)
        watch = WaitForPhase(task_id="watch", phase="RELEASED", fail_on_abort=False, **wait)
        report = CloseRunOperator(task_id="report", trigger_rule="all_done", **run)
        open_run >> roster >> watch >> report
    return dag


_DOC = """
Opens a federated training run, waits for every invited bank to join, follows it to its end and prints
what happened. Fails with the reason if the run is aborted; aborts a run it can no longer follow.
Trigger it with other settings by the form or `{"settings": {...}}`.
"""

if _config_path := settings.consortium_config():
    consortium_run = make_consortium_dag(_config_path, settings.paused())
