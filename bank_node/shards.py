"""Where a bank's row shards are worked on: Dask workers of its own on this machine, or a cluster it runs. No boosting.

Whoever may speak to a Dask scheduler may run any program on its workers. So workers on this machine speak TLS by
certificates made for the one training, on the loopback address, and a scheduler elsewhere must be reached by TLS with
the bank's own certificates.
"""

import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, model_validator

from bank_node.boosting.dask_rows import DaskShards
from bank_node.boosting.row_files import RowFiles
from protocol.errors import ConfigError

__all__ = ["ShardsConfig", "dask_client", "open_shards"]

_CONNECT_SECONDS = 30


class ShardsConfig(BaseModel):
    """How a bank whose rows are too many for one process spreads them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    workers: int | None = Field(None, ge=1, le=256, description="worker processes on this machine")
    scheduler: str | None = Field(
        None, description="instead: address of the bank's Dask scheduler, tls://host:port; tcp:// on loopback only"
    )
    shards: int | None = Field(None, ge=1, le=4096, description="how many shards; null for one a worker")
    folder: Path | None = Field(
        None, description="where rows are while a run trains; all workers must be able to read it; null for work_dir"
    )
    ca: Path | None = Field(None, description="certificate of the CA of the bank's Dask cluster")
    certificate: Path | None = Field(None, description="our certificate for that cluster")
    key: Path | None = Field(None, description="its private key, 0600")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.workers is None) == (self.scheduler is None):
            raise ValueError("give either workers or scheduler")
        given = [self.ca is not None, self.certificate is not None, self.key is not None]
        if any(given) and not all(given):
            raise ValueError("ca, certificate and key go together")
        if self.scheduler is None:
            if any(given):
                raise ValueError("certificates are for a scheduler; workers on this machine get theirs by themselves")
            return self
        address = urlsplit(self.scheduler)
        if address.scheme not in ("tcp", "tls") or not address.hostname or not address.port:
            raise ValueError("the scheduler's address must be tls://host:port")
        if address.scheme == "tls" and not all(given):
            raise ValueError("tls:// needs ca, certificate and key")
        if address.scheme == "tcp" and not _loopback(address.hostname):
            raise ValueError("a scheduler on another machine must be reached by tls://")
        return self


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextmanager
def open_shards(config: ShardsConfig, files: RowFiles) -> Iterator[DaskShards]:
    """The rows in shards on the workers, as long as the block lasts.

    Raises:
        ConfigError: Dask is not installed, or its scheduler can't be reached.
    """
    with dask_client(config) as client:
        workers = config.workers or max(1, len(client.scheduler_info(n_workers=-1)["workers"]))
        shards = DaskShards(client, files, config.shards or workers)
        try:
            yield shards
        finally:
            shards.close()


@contextmanager
def dask_client(config: ShardsConfig) -> Iterator[Any]:
    """A `distributed.Client` of the workers."""
    try:
        import dask
        from distributed import Client, LocalCluster
        from distributed.security import Security
    except ImportError as error:
        raise ConfigError("shards need Dask: install crossbank[dask]") from error
    # A stolen call would open its shard anew on the thief.
    with dask.config.set({"distributed.scheduler.work-stealing": False}):
        if config.scheduler is None:
            security = Security.temporary()
            with (
                LocalCluster(
                    n_workers=config.workers,
                    threads_per_worker=1,
                    processes=True,
                    host="tls://127.0.0.1",
                    protocol="tls://",
                    security=security,
                    dashboard_address=None,
                    worker_dashboard_address=None,
                    # Pages of mapped files would count.
                    memory_limit=0,
                ) as cluster,
                Client(cluster, security=security) as client,
            ):
                yield client
            return
        security = Security()
        if config.ca is not None:
            security = Security(
                tls_ca_file=str(config.ca),
                tls_client_cert=str(config.certificate),
                tls_client_key=str(config.key),
                require_encryption=True,
            )
        try:
            client = Client(config.scheduler, security=security, timeout=_CONNECT_SECONDS)
        except (OSError, TimeoutError) as error:
            raise ConfigError(f"the Dask scheduler {config.scheduler} can't be reached") from error
        with client:
            yield client
