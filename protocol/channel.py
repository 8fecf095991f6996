"""Mutually authenticated TLS channels to the aggregator. There is no plaintext variant."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from cryptography.hazmat.primitives import serialization

from protocol.errors import ConfigError
from protocol.limits import MAX_MESSAGE_BYTES

__all__ = [
    "CHANNEL_OPTIONS",
    "SERVER_OPTIONS",
    "TlsFiles",
    "open_channel",
    "open_channel_async",
    "read_private_key",
    "read_secret_file",
]

#: What the node answers may be longer than what it takes: a list of runs, or a run with all its events.
_MAX_ANSWER_BYTES = 16 * MAX_MESSAGE_BYTES
_COMMON_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.enable_http_proxy", 0),
)
CHANNEL_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", _MAX_ANSWER_BYTES),
    *_COMMON_OPTIONS,
)
SERVER_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.max_send_message_length", _MAX_ANSWER_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    *_COMMON_OPTIONS,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """Paths to the consortium CA's certificate, our certificate, our private key (0600) and its passphrase, if any."""

    ca: Path
    certificate: Path
    key: Path
    passphrase: Path | None = None


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


def read_private_key(path: Path, passphrase: Path | None = None) -> bytes:
    """A private key as unencrypted PKCS#8 PEM, in memory only.

    Args:
        path: the key's file, 0600.
        passphrase: a 0600 file with the passphrase of an encrypted key; its last newline does not count.

    Raises:
        ConfigError: unreadable, open to others, encrypted without a passphrase, or with another one.
    """
    secret = None if passphrase is None else read_secret_file(passphrase, "passphrase file").rstrip(b"\r\n")
    try:
        key = serialization.load_pem_private_key(read_secret_file(path, "private key"), secret)
    except TypeError as error:
        needs = (
            "is encrypted: name its passphrase file" if secret is None else "is not encrypted: name no passphrase file"
        )
        raise ConfigError(f"private key {path} {needs}") from error
    except ValueError as error:
        raise ConfigError(f"private key {path} is no PEM key, or its passphrase is wrong") from error
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _credentials(files: TlsFiles) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        root_certificates=_read(files.ca, "CA certificate"),
        private_key=read_private_key(files.key, files.passphrase),
        certificate_chain=_read(files.certificate, "certificate"),
    )


def open_channel(address: str, files: TlsFiles) -> grpc.Channel:
    """A synchronous channel to ``host:port``; the server must present a certificate of our CA for that host."""
    return grpc.secure_channel(address, _credentials(files), options=CHANNEL_OPTIONS)


def open_channel_async(address: str, files: TlsFiles) -> grpc.aio.Channel:
    """An asyncio channel to ``host:port``, for triggers."""
    return grpc.aio.secure_channel(address, _credentials(files), options=list(CHANNEL_OPTIONS))
