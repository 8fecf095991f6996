"""What a party and the operator compare before a certificate is signed: the request's fingerprint. Signs nothing."""

import hashlib

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from protocol.errors import ConfigError

__all__ = ["key_fingerprint", "request_fingerprint"]


def request_fingerprint(request_pem: bytes) -> str:
    """What the party reads out and the operator compares: see `key_fingerprint`, of the request's key.

    Raises:
        ConfigError: the request does not parse.
    """
    try:
        key = x509.load_pem_x509_csr(request_pem).public_key()
    except ValueError as error:
        raise ConfigError("the certificate request does not parse") from error
    return key_fingerprint(
        key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


def key_fingerprint(public_key: bytes) -> str:
    """The first 128 bits of the SHA-256 of a public key (DER), in groups of four hexadecimal digits."""
    digits = hashlib.sha256(public_key).hexdigest()[:32]
    return " ".join(digits[i : i + 4] for i in range(0, 32, 4))
