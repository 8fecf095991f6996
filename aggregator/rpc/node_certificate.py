"""The node's own certificate, taken up anew when its files change: no restart is needed. It issues nothing."""

import datetime as dt
import logging
import threading
from collections.abc import Callable
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization

from protocol.channel import read_private_key
from protocol.errors import ConfigError

__all__ = ["NodeCertificate"]

logger = logging.getLogger(__name__)

_WARN_DAYS = 30


class NodeCertificate:
    """Key and certificate of the node, as gRPC asks for them at every handshake."""

    def __init__(
        self,
        certificate: Path,
        key: Path,
        passphrase: Path | None,
        ca: Path,
        on_change: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Read them.

        Args:
            certificate, key, passphrase, ca: the files.
            on_change: told what was taken up, or why a changed file was not.

        Raises:
            ConfigError: a file can't be read, or they don't belong together.
        """
        self._certificate, self._key, self._passphrase = certificate, key, passphrase
        self._lock = threading.Lock()
        self._on_change = on_change
        try:
            self._roots = ca.read_bytes()
        except OSError as error:
            raise ConfigError(f"{error.filename} can't be read: {error.strerror}") from error
        self._stamps = self._look()
        self.current = self._read()

    def credentials(self) -> grpc.ServerCredentials:
        """For a port: callers must show a certificate of the CA."""
        return grpc.dynamic_ssl_server_credentials(
            self.current,
            self.fetch,  # type: ignore[arg-type]  # None stands for no change
            require_client_authentication=True,
        )

    def fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """The new configuration if the files changed and hold together; None to go on with the one in force."""
        with self._lock:
            stamps = self._look()
            if stamps == self._stamps:
                return None
            self._stamps = stamps
            try:
                self.current = self._read()
            except ConfigError as error:
                logger.error("the node goes on with the certificate it has: %s", error)
                self._on_change(f"not taken up: {error}")
                return None
            return self.current

    def _look(self) -> tuple[object, ...]:
        def stamp(path: Path) -> tuple[int, int, int]:
            try:
                status = path.stat()
            except OSError:
                return 0, 0, 0
            return status.st_mtime_ns, status.st_size, status.st_ino

        return stamp(self._certificate), stamp(self._key)

    def _read(self) -> grpc.ServerCertificateConfiguration:
        try:
            chain = self._certificate.read_bytes()
        except OSError as error:
            raise ConfigError(f"{error.filename} can't be read: {error.strerror}") from error
        key_pem = read_private_key(self._key, self._passphrase)
        try:
            certificate = x509.load_pem_x509_certificate(chain)
            certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(self._roots))
        except (ValueError, TypeError, InvalidSignature) as error:
            raise ConfigError(f"{self._certificate} is no certificate of the consortium's CA") from error
        if serialization.load_pem_private_key(key_pem, None).public_key() != certificate.public_key():
            raise ConfigError(f"private key {self._key} does not belong to certificate {self._certificate}")
        left = certificate.not_valid_after_utc - dt.datetime.now(dt.UTC)
        if left < dt.timedelta(days=_WARN_DAYS):
            logger.warning("the node's certificate %s runs out in %d days", self._certificate, left.days)
        self._on_change(f"serial {certificate.serial_number:x}, until {certificate.not_valid_after_utc:%Y-%m-%d}")
        return grpc.ssl_server_certificate_configuration([(key_pem, chain)], root_certificates=self._roots)
