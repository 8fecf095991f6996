"""Tests of the DAGs, the provider, the stack of Airflow processes and the images."""
