"""The consortium's certificate authority: makes the CA, signs requests. It never sees a bank's private key.

Certificates are X.509 with ECDSA P-256 keys; the subject's common name is the party's id and its
organisational unit is its role (``bank``, ``operator`` or ``aggregator``).
"""

import datetime as dt
import ipaddress
import os
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from protocol.channel import read_secret_file
from protocol.errors import ConfigError
from protocol.messages import check_id

__all__ = ["ROLES", "create_ca", "issue_server_certificate", "make_key_and_request", "sign_request", "write_secret"]

ROLES = ("bank", "operator", "aggregator")
_CA_DAYS = 3650
_LEAF_DAYS = 397


def write_secret(path: Path, data: bytes) -> None:
    """Write a file that only its owner may read (0600 from the first byte)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


def _name(common_name: str, role: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, role),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Crossbank"),
        ]
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def create_ca(folder: Path) -> Path:
    """Make ``ca.pem`` and ``ca.key`` in `folder` unless they are there; return the certificate's path."""
    certificate_path, key_path = folder / "ca.pem", folder / "ca.key"
    if certificate_path.exists() and key_path.exists():
        return certificate_path
    key = ec.generate_private_key(ec.SECP256R1())
    now = dt.datetime.now(dt.UTC)
    name = _name("crossbank-ca", "ca")
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(days=_CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    write_secret(key_path, _pem(key))
    certificate_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return certificate_path


def make_key_and_request(key_path: Path, common_name: str, role: str) -> bytes:
    """Make a private key (0600) and return a certificate request (PEM) for it. An existing key is kept and used."""
    if key_path.exists():
        loaded = serialization.load_pem_private_key(read_secret_file(key_path, "private key"), None)
        if not isinstance(loaded, ec.EllipticCurvePrivateKey):
            raise ConfigError(f"private key {key_path} is not an ECDSA key")
        key = loaded
    else:
        key = ec.generate_private_key(ec.SECP256R1())
        write_secret(key_path, _pem(key))
    request = x509.CertificateSigningRequestBuilder().subject_name(_name(common_name, role)).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM)


def sign_request(folder: Path, request_pem: bytes, identity: str, role: str, hosts: tuple[str, ...] = ()) -> bytes:
    """Sign a certificate request with the CA in `folder`.

    Args:
        folder: where `create_ca` put the CA.
        request_pem: the request; only its public key is taken from it.
        identity: the id to certify; the operator decides it, not the request.
        role: one of `ROLES`.
        hosts: DNS names or addresses, for a server.

    Returns:
        The certificate, PEM.

    Raises:
        ConfigError: the request is malformed or not signed by its own key, or the role or id is not allowed.
    """
    if role not in ROLES:
        raise ConfigError(f"a role must be one of {', '.join(ROLES)}, not {role!r}")
    check_id("bank id", identity)
    try:
        request = x509.load_pem_x509_csr(request_pem)
    except ValueError as error:
        raise ConfigError("the certificate request does not parse") from error
    if not request.is_signature_valid:
        raise ConfigError("the certificate request is not signed by its own key")
    ca = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
    ca_key = serialization.load_pem_private_key(read_secret_file(folder / "ca.key", "CA key"), None)
    if not isinstance(ca_key, ec.EllipticCurvePrivateKey):
        raise ConfigError(f"CA key {folder / 'ca.key'} is not an ECDSA key")
    now = dt.datetime.now(dt.UTC)
    usage = ExtendedKeyUsageOID.SERVER_AUTH if role == "aggregator" else ExtendedKeyUsageOID.CLIENT_AUTH
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(identity, role))
        .issuer_name(ca.subject)
        .public_key(request.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(days=_LEAF_DAYS))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    )
    if hosts:
        names: list[x509.GeneralName] = []
        for host in hosts:
            try:
                names.append(x509.IPAddress(ipaddress.ip_address(host)))
            except ValueError:
                names.append(x509.DNSName(host))
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def issue_server_certificate(folder: Path, hosts: tuple[str, ...]) -> None:
    """Make the aggregator's own key and certificate (``aggregator.key``, ``aggregator.pem``) in `folder`."""
    request = make_key_and_request(folder / "aggregator.key", "aggregator", "aggregator")
    (folder / "aggregator.pem").write_bytes(sign_request(folder, request, "aggregator", "aggregator", hosts))
