"""Crossbank's Airflow provider: connection type, operators, deferrable triggers. No DAGs, no training.

Airflow imports this package in every process to learn what the provider offers; it must stay light.
"""

from __future__ import annotations

from dags.provider.info import get_provider_info

__all__ = ["get_provider_info"]
