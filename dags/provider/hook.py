"""The hook behind connection type `crossbank`: makes a connection a client of the aggregator. No calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook

from dags.provider.endpoint import Endpoint

if TYPE_CHECKING:
    from aggregator.operator.client import OperatorClient

__all__ = ["ConsortiumHook"]


class ConsortiumHook(BaseHook):
    """Reads a connection: host and port of the aggregator, and the paths of the TLS files in its extras.

    Args:
        consortium_conn_id: Id of an Airflow connection of type ``crossbank``.
    """

    conn_name_attr = "consortium_conn_id"
    default_conn_name = "crossbank_default"
    conn_type = "crossbank"
    hook_name = "Crossbank consortium"

    def __init__(self, consortium_conn_id: str = default_conn_name, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.consortium_conn_id = consortium_conn_id

    def endpoint(self) -> Endpoint:
        """Returns where and how to reach the aggregator.

        Raises:
            SettingsError: If the connection lacks the host, the port or a path.
        """
        connection = self.get_connection(self.consortium_conn_id)
        address = f"{connection.host}:{connection.port}" if connection.host and connection.port else ""
        return Endpoint.from_mapping(
            {**connection.extra_dejson, "address": address},
            where=f"The Airflow connection {self.consortium_conn_id}",
        )

    def get_conn(self) -> OperatorClient:
        """Returns an open client of the aggregator."""
        return self.endpoint().client()

    def test_connection(self) -> tuple[bool, str]:
        """Lists the runs once, for the connection form's test button."""
        try:
            with self.get_conn() as client:
                runs = client.list_runs()
        except Exception as error:  # the form shows whatever went wrong
            return False, str(error)
        return True, f"The aggregator answers and knows {len(runs)} runs."
