"""What every DAG of the project has alike: retries, first day, one run at a time, owner. Holds no DAG.

A DAG file calls `crossbank_dag` and adds its tasks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from airflow.sdk import DAG, Asset, Param

__all__ = ["OWNER", "RETRIES", "RETRY_DELAY", "START_DATE", "crossbank_dag"]

OWNER: Final = "crossbank"
START_DATE: Final = datetime(2026, 1, 1, tzinfo=UTC)
#: A task is tried again this often; errors that no retry mends end it at once (`dags.provider.operators`).
RETRIES: Final = 2
RETRY_DELAY: Final = timedelta(seconds=10)


def crossbank_dag(
    dag_id: str,
    *,
    schedule: str | list[Asset] | None,
    paused: bool | None,
    doc: str,
    tags: Sequence[str],
    params: Mapping[str, Param] | None = None,
) -> DAG:
    """Makes a DAG without tasks, to be filled in a ``with`` block.

    Args:
        dag_id: The DAG's id.
        schedule: A cron expression or preset, the assets that start it, or None for runs by hand.
        paused: Whether it starts paused; None leaves it to Airflow.
        doc: What Airflow's page shows, Markdown.
        tags: Tags beside ``crossbank``.
        params: What a trigger's form asks for.
    """
    return DAG(
        dag_id,
        schedule=schedule,
        start_date=START_DATE,
        catchup=False,
        max_active_runs=1,
        is_paused_upon_creation=paused,
        default_args={"owner": OWNER, "retries": RETRIES, "retry_delay": RETRY_DELAY},
        tags=["crossbank", *tags],
        doc_md=doc,
        params=dict(params) if params else None,
    )
