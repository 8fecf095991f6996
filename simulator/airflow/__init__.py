"""A local Airflow on loopback, started and driven. Knows nothing of training."""
