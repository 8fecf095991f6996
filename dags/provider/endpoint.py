"""Where the aggregator is and with which certificate to call it. Paths only, never what is in the files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dags.settings import SettingsError, read_mapping

if TYPE_CHECKING:
    from aggregator.operator.client import OperatorClient

__all__ = ["Endpoint"]

_FIELDS = ("address", "ca", "certificate", "key")
#: What the configs of banks and operators fall back to.
_DEFAULT_ADDRESS = "127.0.0.1:7443"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """The aggregator's address and the caller's TLS files.

    Attributes:
        address: ``host:port``.
        ca: Path of the consortium CA's certificate.
        certificate: Path of the caller's certificate.
        key: Path of the caller's private key; its content is read by `aggregator.operator.client` only.
    """

    address: str
    ca: str
    certificate: str
    key: str

    @classmethod
    def from_config(cls, path: str | Path) -> Endpoint:
        """Reads the ``aggregator`` section of a bank's or the operator's config.

        Relative paths in it are relative to the config file.

        Raises:
            SettingsError: If the section or a key of it is missing or not a text.
        """
        section = read_mapping(path).get("aggregator")
        if not isinstance(section, Mapping):
            raise SettingsError(f"{path} needs a section 'aggregator' with {', '.join(_FIELDS)}.")
        section = {"address": _DEFAULT_ADDRESS, **section}
        return cls.from_mapping(section, where=str(path), folder=Path(path).resolve().parent)

    @classmethod
    def from_mapping(cls, section: Mapping[str, object], *, where: str, folder: Path | None = None) -> Endpoint:
        """Makes an endpoint from its four values; ``where`` is what an error calls their source."""
        values = {}
        for name in _FIELDS:
            value = section.get(name)
            if not isinstance(value, str) or not value:
                raise SettingsError(f"{where} needs a text for '{name}' of the aggregator.")
            values[name] = value if name == "address" or folder is None else str(folder / value)
        return cls(**values)

    def as_arguments(self) -> dict[str, str]:
        """Returns the four values by name, as triggers take them."""
        return {name: getattr(self, name) for name in _FIELDS}

    def client(self) -> OperatorClient:
        """Opens a client; the caller closes it by ``with``."""
        from aggregator.operator.client import OperatorClient
        from protocol.channel import TlsFiles

        files = TlsFiles(ca=Path(self.ca), certificate=Path(self.certificate), key=Path(self.key))
        return OperatorClient(self.address, files)
