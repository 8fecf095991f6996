"""Who a bank is: its certificate, signing with its certified key, checking another bank's. No TLS here."""

import datetime as dt
import logging
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from bank_node.files import write_atomic
from protocol.channel import TlsFiles, read_private_key, read_secret_file
from protocol.errors import ConfigError, ProtocolViolation
from protocol.private_files import write_secret

__all__ = ["Identity", "install_certificate", "make_request"]

logger = logging.getLogger(__name__)

_WARN_DAYS = 30


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
            key = serialization.load_pem_private_key(read_private_key(files.key, files.passphrase), None)
        except OSError as error:
            raise ConfigError(f"{error.filename} can't be read: {error.strerror}") from error
        except ValueError as error:
            raise ConfigError(f"{files.certificate}, {files.ca} or {files.key} is not PEM") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise ConfigError(f"private key {files.key} does not belong to certificate {files.certificate}")
        if _common_name(certificate) != bank:
            raise ConfigError(f"certificate {files.certificate} is not bank {bank}'s")
        self._key = key
        self.not_after = certificate.not_valid_after_utc
        left = self.not_after - dt.datetime.now(dt.UTC)
        if left < dt.timedelta(days=_WARN_DAYS):
            logger.warning(
                "bank %s: the certificate %s runs out in %d days; renew it by `bank-node renew`",
                bank,
                files.certificate,
                left.days,
            )

    def sign(self, message: bytes) -> bytes:
        """An ECDSA P-256 / SHA-256 signature."""
        return self._key.sign(message, ec.ECDSA(hashes.SHA256()))

    def verify(
        self,
        bank: str,
        certificate_pem: bytes,
        message: bytes,
        signature: bytes,
        now: dt.datetime,
        crl_pem: bytes,
    ) -> None:
        """Check that `bank`, certified by our CA as a bank and not revoked, signed `message`.

        Args:
            bank: who should have signed.
            certificate_pem: the certificate it shows.
            message, signature: what was signed, and the ECDSA signature.
            now: the time.
            crl_pem: the CA's revocation list, as relayed; it is checked too.

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
            if certificate.serial_number in self._revoked(crl_pem, now):
                raise ProtocolViolation(f"bank {bank}: the certificate is revoked")
            key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
        except (ValueError, TypeError, IndexError, InvalidSignature) as error:
            raise ProtocolViolation(f"bank {bank}: a message is not signed by the bank's certified key") from error

    def _revoked(self, crl_pem: bytes, now: dt.datetime) -> set[int]:
        """Serial numbers on a revocation list that must be our CA's and in force."""
        try:
            found = x509.load_pem_x509_crl(crl_pem)
        except ValueError as error:
            raise ProtocolViolation("the aggregator relays no revocation list of the CA") from error
        if not found.is_signature_valid(self._ca.public_key()):  # type: ignore[arg-type]
            raise ProtocolViolation("the revocation list is not signed by the consortium's CA")
        if found.next_update_utc is None or found.next_update_utc < now:
            raise ProtocolViolation("the revocation list has run out; the operator renews it by `aggregator ca crl`")
        return {entry.serial_number for entry in found}


def _common_name(certificate: x509.Certificate) -> str:
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else ""


def make_request(key_path: Path, bank: str, passphrase: Path | None = None) -> bytes:
    """Make the bank's private key (0600; an existing one is kept) and a certificate request for it (PEM).

    Args:
        key_path: where the key goes.
        bank: the id to ask for.
        passphrase: a 0600 file; the key is encrypted under what it holds.
    """
    if key_path.exists():
        key = serialization.load_pem_private_key(read_private_key(key_path, passphrase), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ConfigError(f"private key {key_path} is not an ECDSA key")
    else:
        key = ec.generate_private_key(ec.SECP256R1())
        lock: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if passphrase is not None:
            secret = read_secret_file(passphrase, "passphrase file").rstrip(b"\r\n")
            if not secret:
                raise ConfigError(f"passphrase file {passphrase} is empty")
            lock = serialization.BestAvailableEncryption(secret)
        write_secret(key_path, key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, lock))
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, bank)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM)


def install_certificate(certificate_pem: bytes, files: TlsFiles, bank: str) -> None:
    """Put a certificate that the operator issued into its place, after checking that it is ours.

    Raises:
        ConfigError: it is not for our key, our id, or not of our CA. The certificate of before stays.
    """
    try:
        ca = x509.load_pem_x509_certificate(files.ca.read_bytes())
    except OSError as error:
        raise ConfigError(
            f"the CA's certificate {files.ca} can't be read: {error.strerror}; put the operator's ca.pem there first"
        ) from error
    except ValueError as error:
        raise ConfigError(f"{files.ca} is no certificate; the operator sends the CA's as ca.pem") from error
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem)
    except ValueError as error:
        raise ConfigError(f"that is no certificate (PEM), so not one of the CA in {files.ca}") from error
    try:
        certificate.verify_directly_issued_by(ca)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise ConfigError(f"that certificate is not one of the CA in {files.ca}") from error
    key = serialization.load_pem_private_key(read_private_key(files.key, files.passphrase), None)
    if key.public_key() != certificate.public_key():
        raise ConfigError(f"that certificate is for another key than {files.key}")
    if _common_name(certificate) != bank:
        raise ConfigError(f"that certificate is not bank {bank}'s")
    write_atomic(files.certificate, certificate_pem)
