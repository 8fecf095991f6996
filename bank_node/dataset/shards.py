"""Where a bank's row shards are worked on: Dask workers of its own on this machine, or a cluster it runs. No boosting.

Whoever may speak to a Dask scheduler may run any program on its workers. So workers on this machine speak TLS by
certificates made for the one training, on the loopback address, and a scheduler elsewhere must be reached by TLS with
the bank's own certificates.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bank_node.boosting.dask_rows import DaskShards
from bank_node.boosting.row_files import RowFiles
from bank_node.config import ShardsConfig
from bank_node.warm_up import warm_up
from protocol.channel import read_secret_file
from protocol.errors import ConfigError

__all__ = ["dask_client", "open_shards", "shards_on"]

_CONNECT_SECONDS = 30


@contextmanager
def open_shards(config: ShardsConfig, files: RowFiles) -> Iterator[DaskShards]:
    """The rows in shards on the workers, as long as the block lasts.

    Raises:
        ConfigError: Dask is not installed, or its scheduler can't be reached.
    """
    with dask_client(config) as client, shards_on(client, config, files) as shards:
        yield shards


@contextmanager
def shards_on(client: Any, config: ShardsConfig, files: RowFiles) -> Iterator[DaskShards]:
    """As `open_shards`, on a client that is there."""
    workers = config.workers or max(1, len(client.scheduler_info(n_workers=-1)["workers"]))
    shards = DaskShards(client, files, config.shards or workers)
    try:
        yield shards
    finally:
        shards.close()


@contextmanager
def dask_client(config: ShardsConfig) -> Iterator[Any]:
    """A `distributed.Client` of the workers, which have their kernels ready.

    Raises:
        ConfigError: Dask is not installed, its scheduler can't be reached, or a certificate or key can't be used.
    """
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
                client.run(warm_up)
                yield client
            return
        security = Security()
        if config.ca is not None and config.certificate is not None and config.key is not None:
            for path in (config.ca, config.certificate):
                if not path.is_file():
                    raise ConfigError(f"shards: {path} is not there; it must be a certificate of the Dask cluster")
            read_secret_file(config.key, "key for the Dask cluster")
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
            client.run(warm_up)
            yield client
