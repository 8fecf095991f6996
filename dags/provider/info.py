"""What Airflow is told about the provider: its connection form, modules and asset scheme. Data only."""

from __future__ import annotations

from typing import Any

__all__ = ["get_provider_info"]

_INTEGRATION = "Crossbank"


def _path_field(label: str, description: str) -> dict[str, Any]:
    return {"label": label, "schema": {"type": ["string", "null"]}, "description": description}


def get_provider_info() -> dict[str, Any]:
    """Returns the provider's description in the shape of Airflow's ``provider_info.schema.json``."""
    return {
        "package-name": "crossbank",
        "name": "Crossbank",
        "description": "Federated, encrypted gradient boosting for banks.",
        "integrations": [{"integration-name": _INTEGRATION, "tags": ["software"]}],
        "hooks": [{"integration-name": _INTEGRATION, "python-modules": ["dags.provider.hook"]}],
        "operators": [{"integration-name": _INTEGRATION, "python-modules": ["dags.provider.operators"]}],
        "triggers": [{"integration-name": _INTEGRATION, "python-modules": ["dags.provider.triggers"]}],
        "asset-uris": [{"schemes": ["crossbank"], "handler": None}],
        "connection-types": [
            {
                "connection-type": "crossbank",
                "hook-name": "Crossbank consortium",
                "hook-class-name": "dags.provider.hook.ConsortiumHook",
                "conn-fields": {
                    "ca": _path_field("CA certificate", "Path of the consortium CA's certificate (PEM)."),
                    "certificate": _path_field("Certificate", "Path of your own certificate (PEM)."),
                    "key": _path_field("Private key", "Path of your private key (PEM, mode 0600). Only the path."),
                },
                "ui-field-behaviour": {
                    "hidden-fields": ["schema", "login", "password", "extra"],
                    "relabeling": {"host": "Aggregator host", "port": "Aggregator port"},
                    "placeholders": {
                        "host": "aggregator.example.org",
                        "port": "8443",
                        "ca": "/etc/crossbank/ca.pem",
                        "certificate": "/etc/crossbank/operator.pem",
                        "key": "/etc/crossbank/operator.key",
                    },
                },
            }
        ],
    }
