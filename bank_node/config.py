"""The bank's configuration file. It holds paths to secrets, never secrets; unknown keys are refused."""

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from features.sources.engines import BankTable
from protocol.channel import TlsFiles
from protocol.documents import did_you_mean, read_mapping
from protocol.errors import ConfigError, ProtocolViolation
from protocol.messages import check_id

__all__ = ["AggregatorAddress", "BankConfig", "ShardsConfig", "load_config"]


_PATH, _TABLE = "<path>", "<table>"
"""Which of the forms of ``events`` is meant; a fault in one is told without the other's, and without these words."""


def _form(value: Any) -> str:
    return _TABLE if isinstance(value, dict | BankTable) else _PATH


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AggregatorAddress(_Strict):
    """Where the consortium's node is and who we are to it."""

    address: str = Field("127.0.0.1:7443", description="host:port")
    ca: Path = Field(description="the consortium CA's certificate")
    certificate: Path = Field(description="this bank's certificate")
    key: Path = Field(description="this bank's private key, 0600")
    key_passphrase_file: Path | None = Field(None, description="passphrase of the key, in a 0600 file")

    @property
    def files(self) -> TlsFiles:
        """The TLS files."""
        return TlsFiles(ca=self.ca, certificate=self.certificate, key=self.key, passphrase=self.key_passphrase_file)


class ShardsConfig(_Strict):
    """How a bank whose rows are too many for one process spreads them over Dask workers."""

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


class BankConfig(_Strict):
    """One bank; relative paths are taken from the file's folder."""

    bank_id: str = Field(description="the id in the bank's certificate")
    events: Annotated[Annotated[Path, Tag(_PATH)] | Annotated[BankTable, Tag(_TABLE)], Discriminator(_form)] = Field(
        description="the bank's payments: a file or a folder of them, or a table or view of a database"
    )
    labels: Annotated[Annotated[Path, Tag(_PATH)] | Annotated[BankTable, Tag(_TABLE)], Discriminator(_form)] | None = (
        Field(None, description="labels that come beside the payments, as a case-management export; null if none do")
    )
    work_dir: Path = Field(description="where features, runs, models and alerts go")
    contract: Path | None = Field(None, description="the data contract; null for the packaged one")
    older_contracts: tuple[Path, ...] = Field(
        (), description="earlier versions that the bank still serves, where the contract is a compatible change of them"
    )
    mapping: Path | None = Field(
        None, description="how the bank's columns become the contract's; null if they are named and coded alike"
    )
    identifier_key: Path | None = Field(
        None, description="key of the hashes that stand for identifiers, 0600; null keeps one in work_dir, made at need"
    )
    shared_key: Path | None = Field(
        None, description="the consortium's key for hashes of counterparties that all banks make alike, 0600"
    )
    row_weights: Path | None = Field(
        None,
        description="Parquet/CSV with payment_id and a column of weights, for runs that weigh rows by that column; "
        "payments that it does not have weigh 1",
    )
    scoring_model: Literal["consortium", "personal"] = Field(
        "consortium",
        description="what `bank-node score` uses; personal: what `bank-node personalise` kept, and the consortium's "
        "where it kept none or a newer model was released since",
    )
    alert_cost: float | None = Field(
        None,
        ge=0,
        description="what an alert costs, in the contract's currency: alerts whose probability times amount is less "
        "are left out, and the evaluation tells what the others save; null leaves none out",
    )
    retention_days: int | None = Field(
        None, ge=31, description="rows older than this are purged by `bank-node purge`; null keeps them"
    )
    purge_share: float = Field(
        0.1,
        gt=0,
        le=1,
        description="a purge that would remove a larger share of the rows waits until somebody confirms the number of "
        "rows by `bank-node purge --confirm`, which no DAG does",
    )
    minimum_roster: int = Field(
        3,
        ge=2,
        description="never take part with fewer banks; with 2, each can compute the other's sums from the total",
    )
    encryption_processes: int | None = Field(
        None, ge=0, le=128, description="helper processes that encrypt; null for one a core above two cores, 0 for none"
    )
    shards: ShardsConfig | None = Field(None, description="spread training over Dask workers; null for one process")
    aggregator: AggregatorAddress = Field(description="the consortium's node, and who the bank is to it")

    @field_validator("bank_id")
    @classmethod
    def _id(cls, value: str) -> str:
        try:
            return check_id("bank id", value)
        except ProtocolViolation as error:
            raise ValueError(str(error)) from error

    @property
    def store_dir(self) -> Path:
        """The store of day partitions that `extract` keeps up to date."""
        return self.work_dir / "store"

    @property
    def identifier_key_path(self) -> Path:
        """Where the key of identifiers is."""
        return self.identifier_key or self.work_dir / "keys" / "identifiers.key"

    def run_dir(self, run_id: str) -> Path:
        """Where a run's keys, checkpoints and results are kept."""
        return self.work_dir / "runs" / check_id("run id", run_id)

    @property
    def rows_dir(self) -> Path:
        """Where rows are while a run trains or evaluates."""
        if self.shards is not None and self.shards.folder is not None:
            return self.shards.folder / self.bank_id / "rows"
        return self.work_dir / "rows"

    @property
    def registry(self) -> Path:
        """Where released models are kept."""
        return self.work_dir / "models"


def load_config(path: Path) -> BankConfig:
    """Read and check a bank's YAML file.

    Raises:
        ConfigError: unreadable, not YAML, an unknown or missing key; the text names file and key.
    """
    path = Path(path)
    document = read_mapping(path, "configuration")
    try:
        config = BankConfig.model_validate(document)
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(str(part) for part in e['loc'] if part not in (_PATH, _TABLE))}: {e['msg']}{_meant(e)}"
            for e in error.errors(include_input=False)
        )
        raise ConfigError(f"configuration {path}: {wrong}") from error
    base = path.resolve().parent
    node = config.aggregator
    return config.model_copy(
        update={
            "events": _source_from(base, config.events),
            "labels": None if config.labels is None else _source_from(base, config.labels),
            "work_dir": (base / config.work_dir).resolve(),
            "older_contracts": tuple(base / path for path in config.older_contracts),
            **{
                name: None if path is None else base / path
                for name in ("contract", "mapping", "identifier_key", "shared_key", "row_weights")
                for path in [getattr(config, name)]
            },
            "shards": config.shards
            and config.shards.model_copy(
                update={
                    name: getattr(config.shards, name) and base / getattr(config.shards, name)
                    for name in ("folder", "ca", "certificate", "key")
                }
            ),
            "aggregator": node.model_copy(
                update={
                    "ca": base / node.ca,
                    "certificate": base / node.certificate,
                    "key": base / node.key,
                    "key_passphrase_file": node.key_passphrase_file and base / node.key_passphrase_file,
                }
            ),
        }
    )


def _meant(fault: Mapping[str, Any]) -> str:
    """What an unknown key was probably meant to be: one of the keys of its section."""
    if fault["type"] != "extra_forbidden":
        return ""
    *sections, name = [str(part) for part in fault["loc"] if part not in (_PATH, _TABLE)]
    of: dict[str, type[BaseModel]] = {
        "aggregator": AggregatorAddress,
        "shards": ShardsConfig,
        "events": BankTable,
        "labels": BankTable,
    }
    model = of.get(sections[0], BankConfig) if sections else BankConfig
    return did_you_mean(name, model.model_fields)


def _source_from(base: Path, source: Path | BankTable) -> Path | BankTable:
    """A Spark table's folder of Parquet files is relative to the file, as all paths; an address (s3a://) is not."""
    if isinstance(source, Path):
        return base / source
    if source.parquet is None or "://" in source.parquet:
        return source
    return source.model_copy(update={"parquet": str(base / source.parquet)})
