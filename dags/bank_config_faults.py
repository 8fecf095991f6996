"""Airflow's import error for each wrong bank config in CROSSBANK_BANKS_DIR. It makes no DAG.

A file apart from `bank_dags.py`: Airflow takes away the DAGs of a file that has an import error, all of them, and one
bank's wrong config must not stop the others.
"""

from __future__ import annotations

import logging

from dags import settings

_found = settings.bank_configs()
if _found.others:
    logging.getLogger(__name__).info("no bank's config, left alone: %s", ", ".join(_found.others))
if _found.faults:
    raise settings.SettingsError(" ".join(_found.faults))
