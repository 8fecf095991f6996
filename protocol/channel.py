"""Mutually authenticated TLS channels to the aggregator. There is no plaintext variant."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from protocol.errors import ConfigError
from protocol.limits import MAX_MESSAGE_BYTES

__all__ = ["CHANNEL_OPTIONS", "TlsFiles", "open_channel", "open_channel_async", "read_secret_file"]

CHANNEL_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", 16 * MAX_MESSAGE_BYTES),  # a run's view with all its events
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.enable_http_proxy", 0),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """Paths to the consortium CA's certificate, our certificate and our private key (0600)."""

    ca: Path
    certificate: Path
    key: Path


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{what} {path} can't be read: {error.strerror}") from error


def read_secret_file(path: Path, what: str) -> bytes:
    """Read a secret file that no other user may read.

    Raises:
        ConfigError: it can't be read, or group or others have any right on it (chmod 600 it).
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise ConfigError(f"{what} {path} can't be read: {error.strerror}") from error
    if mode & 0o077:
        raise ConfigError(f"{what} {path} is open to other users (mode {mode & 0o777:o}); chmod 600 it")
    return _read(path, what)


def _credentials(files: TlsFiles) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        root_certificates=_read(files.ca, "CA certificate"),
        private_key=read_secret_file(files.key, "private key"),
        certificate_chain=_read(files.certificate, "certificate"),
    )


def open_channel(address: str, files: TlsFiles) -> grpc.Channel:
    """A synchronous channel to ``host:port``; the server must present a certificate of our CA for that host."""
    return grpc.secure_channel(address, _credentials(files), options=CHANNEL_OPTIONS)


def open_channel_async(address: str, files: TlsFiles) -> grpc.aio.Channel:
    """An asyncio channel to ``host:port``, for triggers."""
    return grpc.aio.secure_channel(address, _credentials(files), options=list(CHANNEL_OPTIONS))
