"""Crossbank's Airflow DAGs (wiring only) and, in `dags.provider`, its Airflow provider. No training logic."""
