"""The aggregator's configuration file. It holds paths to secrets, never secrets; unknown keys are refused."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aggregator.aggregation.adding import default_processes
from protocol.documents import read_mapping
from protocol.errors import ConfigError

__all__ = [
    "LOCAL_HOSTS",
    "AggregatorConfig",
    "OperatorConfig",
    "explain",
    "load_config",
    "load_operator_config",
    "load_run_section",
]


#: How a browser on the node's own machine reaches the page.
LOCAL_HOSTS = ("localhost", "127.0.0.1")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AggregatorConfig(_Strict):
    """``aggregator serve --config FILE``; relative paths are taken from the file's folder."""

    listen: str = Field("127.0.0.1:7443", description="gRPC address, loopback unless you change it")
    console: str | None = Field("127.0.0.1:7480", description="address of the read-only page; null for none")
    console_hosts: tuple[str, ...] = Field(
        (), description="names by which browsers reach the page, besides localhost and the address of `console`"
    )
    ca: Path = Field(description="the consortium CA's certificate")
    certificate: Path = Field(description="this node's certificate")
    key: Path = Field(description="this node's private key, 0600")
    key_passphrase_file: Path | None = Field(None, description="passphrase of the key, in a 0600 file")
    crl: Path | None = Field(None, description="the CA's revocation list; default: crl.pem next to the CA certificate")
    store: str = Field("sqlite:///aggregator.db", description="SQLAlchemy URL")
    adding_processes: int = Field(
        default_factory=default_processes,
        ge=0,
        le=64,
        description="processes that add ciphertexts; default: one a core from three on; 0: none but the node's",
    )

    @property
    def allowed_hosts(self) -> tuple[str, ...]:
        """What a request to the page may name as its host."""
        address = () if self.console is None else (self.console.rpartition(":")[0],)
        return (*LOCAL_HOSTS, *address, *self.console_hosts)

    @property
    def revocation_list(self) -> Path:
        """Where the revocation list is."""
        return self.crl or self.ca.parent / "crl.pem"


class OperatorConfig(_Strict):
    """How an operator's command reaches the aggregator."""

    address: str = Field("127.0.0.1:7443", description="the node's host:port")
    console_hosts: tuple[str, ...] = Field(
        (), description="names by which browsers reach the page, besides localhost and the address of `console`"
    )
    ca: Path = Field(description="the consortium CA's certificate")
    certificate: Path = Field(description="the operator's certificate")
    key: Path = Field(description="the operator's private key, 0600")
    key_passphrase_file: Path | None = Field(None, description="passphrase of the key, in a 0600 file")


def explain(path: Path, error: ValidationError) -> ConfigError:
    """One line per wrong key, naming the file; never the value."""
    lines = "; ".join(f"{'.'.join(str(p) for p in e['loc'])}: {e['msg']}" for e in error.errors(include_input=False))
    return ConfigError(f"configuration {path}: {lines}")


def load_config(path: Path) -> AggregatorConfig:
    """Read and check the aggregator's file.

    Raises:
        ConfigError: unreadable, not YAML, an unknown or missing key; names file and key.
    """
    try:
        config = AggregatorConfig.model_validate(read_mapping(path, "configuration"))
    except ValidationError as error:
        raise explain(path, error) from error
    base = path.resolve().parent
    store = config.store
    if store.startswith("sqlite:///") and not store.startswith("sqlite:////"):
        store = f"sqlite:///{base / store.removeprefix('sqlite:///')}"
    return config.model_copy(
        update={
            "ca": base / config.ca,
            "certificate": base / config.certificate,
            "key": base / config.key,
            "key_passphrase_file": config.key_passphrase_file and base / config.key_passphrase_file,
            "crl": config.crl and base / config.crl,
            "store": store,
        }
    )


def load_operator_config(path: Path) -> OperatorConfig:
    """Read and check an operator's file; it may hold the keys under ``aggregator:`` or at the top."""
    section = _sections(path)[0]
    try:
        config = OperatorConfig.model_validate(section)
    except ValidationError as error:
        raise explain(path, error) from error
    base = path.resolve().parent
    return config.model_copy(
        update={
            "ca": base / config.ca,
            "certificate": base / config.certificate,
            "key": base / config.key,
            "key_passphrase_file": config.key_passphrase_file and base / config.key_passphrase_file,
        }
    )


def load_run_section(path: Path) -> dict[str, Any]:
    """The section ``run`` of an operator's file: what its runs are like unless said otherwise; {} where it has none.

    Raises:
        ConfigError: it is no mapping; its keys are checked by `protocol.run_plan`.
    """
    return _sections(path)[1]


def _sections(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """How to reach the aggregator, and what a run is like."""
    document = read_mapping(path, "configuration")
    run = document.pop("run", None)
    reach = document.pop("aggregator", None)
    if reach is not None and document:
        raise ConfigError(
            f"configuration {path}: unknown key {', '.join(map(str, document))}; known are aggregator, run"
        )
    for name, section in (("aggregator", reach), ("run", run)):
        if not isinstance(section, dict | None):
            raise ConfigError(f"configuration {path}: {name} must be a mapping")
    return document if reach is None else reach, run or {}
