"""Who a bank is: its certificate, signing with its certified key, checking another bank's. No TLS here."""

import datetime as dt
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from bank_node.files import write_secret
from protocol.channel import TlsFiles, read_secret_file
from protocol.errors import ConfigError, ProtocolViolation

__all__ = ["Identity", "make_request"]


class Identity:
    """This bank's certified key, and the consortium CA that other banks' certificates must come from."""

    def __init__(self, files: TlsFiles, bank: str) -> None:
        """Load them.

        Raises:
            ConfigError: a file is missing, open to others, no ECDSA key, or the certificate names another bank.
        """
        try:
            self.certificate_pem = files.certificate.read_bytes()
            certificate = x509.load_pem_x509_certificate(self.certificate_pem)
            self._ca = x509.load_pem_x509_certificate(files.ca.read_bytes())
            key = serialization.load_pem_private_key(read_secret_file(files.key, "private key"), None)
        except OSError as error:
            raise ConfigError(f"{error.filename} can't be read: {error.strerror}") from error
        except ValueError as error:
            raise ConfigError(f"{files.certificate}, {files.ca} or {files.key} is not PEM") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise ConfigError(f"private key {files.key} does not belong to certificate {files.certificate}")
        if _common_name(certificate) != bank:
            raise ConfigError(f"certificate {files.certificate} is not bank {bank}'s")
        self._key = key

    def sign(self, message: bytes) -> bytes:
        """An ECDSA P-256 / SHA-256 signature."""
        return self._key.sign(message, ec.ECDSA(hashes.SHA256()))

    def verify(self, bank: str, certificate_pem: bytes, message: bytes, signature: bytes, now: dt.datetime) -> None:
        """Check that `bank`, certified by our CA as a bank, signed `message`.

        Raises:
            ProtocolViolation: it did not; use nothing of the message.
        """
        try:
            certificate = x509.load_pem_x509_certificate(certificate_pem)
            certificate.verify_directly_issued_by(self._ca)
            key = certificate.public_key()
            if not isinstance(key, ec.EllipticCurvePublicKey):
                raise ProtocolViolation(f"bank {bank}: the certificate's key is not ECDSA")
            role = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)[0].value
            if _common_name(certificate) != bank or role != "bank":
                raise ProtocolViolation(f"bank {bank}: the certificate is somebody else's")
            if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
                raise ProtocolViolation(f"bank {bank}: the certificate is not valid now")
            key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
        except (ValueError, TypeError, IndexError, InvalidSignature) as error:
            raise ProtocolViolation(f"bank {bank}: a message is not signed by the bank's certified key") from error


def _common_name(certificate: x509.Certificate) -> str:
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else ""


def make_request(key_path: Path, bank: str) -> bytes:
    """Make the bank's private key (0600; an existing one is kept) and a certificate request for it (PEM)."""
    if key_path.exists():
        key = serialization.load_pem_private_key(read_secret_file(key_path, "private key"), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ConfigError(f"private key {key_path} is not an ECDSA key")
    else:
        key = ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write_secret(key_path, pem)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, bank)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM)
