"""The consortium's certificate authority: makes the CA, signs requests. It never sees a bank's private key.

Certificates are X.509 with ECDSA P-256 keys; the subject's common name is the party's id and its
organisational unit is its role (``bank``, ``operator`` or ``aggregator``). The CA's folder holds ``ca.pem``, ``ca.key``
(0600, encrypted if it was made with a passphrase), ``crl.pem`` (the signed list of revoked certificates, which the node
reads) and ``issued.jsonl`` (every certificate ever signed). Keep it off the node, which needs ca.pem and crl.pem only.
"""

import datetime as dt
import ipaddress
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from protocol.channel import read_private_key, read_secret_file
from protocol.documents import did_you_mean
from protocol.enrolment import request_fingerprint
from protocol.errors import ConfigError
from protocol.messages import check_id
from protocol.private_files import write_atomic, write_secret

__all__ = [
    "ROLES",
    "IssuedCertificate",
    "check_certified",
    "certified_hosts",
    "create_ca",
    "issue_server_certificate",
    "issued_certificates",
    "make_key_and_request",
    "request_identity",
    "revoke",
    "sign_renewal",
    "sign_request",
    "write_crl",
]

ROLES = ("bank", "operator", "aggregator")
_CA_DAYS = 3650
_LEAF_DAYS = 397
_CRL_DAYS = 90


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedCertificate:
    """A line of ``issued.jsonl``: times are ISO 8601, `revoked` is empty for one in force."""

    serial: str
    identity: str
    role: str
    not_after: str
    fingerprint: str
    revoked: str = ""
    reason: str = ""


def _name(common_name: str, role: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, role),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Crossbank"),
        ]
    )


def _pem(key: ec.EllipticCurvePrivateKey, passphrase: Path | None = None) -> bytes:
    lock: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase is not None:
        secret = read_secret_file(passphrase, "passphrase file").rstrip(b"\r\n")
        if not secret:
            raise ConfigError(f"passphrase file {passphrase} is empty")
        lock = serialization.BestAvailableEncryption(secret)
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, lock)


def _load_ca(folder: Path, passphrase: Path | None) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = serialization.load_pem_private_key(read_private_key(folder / "ca.key", passphrase), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError(f"CA key {folder / 'ca.key'} is not an ECDSA key")
    return x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes()), key


def create_ca(folder: Path, passphrase: Path | None = None) -> Path:
    """Make ``ca.pem``, ``ca.key`` and an empty ``crl.pem`` in `folder` unless they are there.

    Args:
        folder: where they go.
        passphrase: a 0600 file; the key is encrypted under what it holds.

    Returns:
        The certificate's path.
    """
    certificate_path, key_path = folder / "ca.pem", folder / "ca.key"
    if certificate_path.exists() and key_path.exists():
        if not (folder / "crl.pem").exists():
            write_crl(folder, passphrase=passphrase)
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
    write_secret(key_path, _pem(key, passphrase))
    certificate_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    write_crl(folder, passphrase=passphrase)
    return certificate_path


def make_key_and_request(key_path: Path, common_name: str, role: str) -> bytes:
    """Make a private key (0600) and return a certificate request (PEM) for it. An existing key is kept and used."""
    if key_path.exists():
        loaded = serialization.load_pem_private_key(read_private_key(key_path), None)
        if not isinstance(loaded, ec.EllipticCurvePrivateKey):
            raise ConfigError(f"private key {key_path} is not an ECDSA key")
        key = loaded
    else:
        key = ec.generate_private_key(ec.SECP256R1())
        write_secret(key_path, _pem(key))
    request = x509.CertificateSigningRequestBuilder().subject_name(_name(common_name, role)).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM)


def request_identity(request_pem: bytes) -> str:
    """The id that a request asks for.

    Raises:
        ConfigError: the request does not parse, or names nobody.
    """
    try:
        names = x509.load_pem_x509_csr(request_pem).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except ValueError as error:
        raise ConfigError("the certificate request does not parse") from error
    if not names:
        raise ConfigError("the certificate request does not say whose it is")
    return str(names[0].value)


def issued_certificates(folder: Path) -> list[IssuedCertificate]:
    """Every certificate the CA has signed, oldest first."""
    path = folder / "issued.jsonl"
    if not path.exists():
        return []
    return [IssuedCertificate(**json.loads(line)) for line in path.read_text().splitlines()]


def check_certified(folder: Path, banks: Sequence[str]) -> None:
    """Check that each bank has a certificate of the CA's that is in force.

    Raises:
        ConfigError: names those that have none.
    """
    now = dt.datetime.now(dt.UTC)
    certified = {
        each.identity
        for each in issued_certificates(folder)
        if each.role == "bank" and not each.revoked and dt.datetime.fromisoformat(each.not_after) > now
    }
    missing = [f"{bank}{did_you_mean(bank, certified)}" for bank in banks if bank not in certified]
    if missing:
        raise ConfigError(f"{folder} has no certificate in force for {', '.join(missing)}")


def _write_issued(folder: Path, certificates: list[IssuedCertificate]) -> None:
    lines = "".join(json.dumps(asdict(certificate)) + "\n" for certificate in certificates)
    write_atomic(folder / "issued.jsonl", lines.encode())


def write_crl(folder: Path, *, days: int = _CRL_DAYS, passphrase: Path | None = None) -> Path:
    """Sign the list of revoked certificates anew; banks refuse one older than `days`."""
    ca, key = _load_ca(folder, passphrase)
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(ca.subject)
        .last_update(now - dt.timedelta(minutes=5))
        .next_update(now + dt.timedelta(days=days))
    )
    for certificate in issued_certificates(folder):
        if certificate.revoked:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(int(certificate.serial, 16))
                .revocation_date(dt.datetime.fromisoformat(certificate.revoked))
                .build()
            )
    write_atomic(folder / "crl.pem", builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    return folder / "crl.pem"


def revoke(folder: Path, who: str, reason: str, *, passphrase: Path | None = None) -> list[IssuedCertificate]:
    """Revoke a certificate by its serial number, or all of a party's by its id, and sign a new list.

    Raises:
        ConfigError: there is no such certificate in force.
    """
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    before = issued_certificates(folder)
    chosen = [c for c in before if not c.revoked and who.lower() in (c.identity, c.serial)]
    if not chosen:
        raise ConfigError(f"no certificate in force has the id or serial number {who}; see `aggregator ca list`")
    serials = {c.serial for c in chosen}
    after = [
        IssuedCertificate(**(asdict(c) | {"revoked": now, "reason": reason})) if c.serial in serials else c
        for c in before
    ]
    _write_issued(folder, after)
    write_crl(folder, passphrase=passphrase)
    return [c for c in after if c.serial in serials]


def sign_renewal(
    folder: Path, request_pem: bytes, old_pem: bytes, signature: bytes, *, passphrase: Path | None = None
) -> bytes:
    """Sign the request for a party's next key without a phone call: its certificate in force vouches for it.

    Args:
        folder: the CA's folder.
        request_pem: the request for the new key.
        old_pem: the party's certificate of now.
        signature: the old key's ECDSA signature over the request.

    Raises:
        ConfigError: the old certificate is not ours, has run out, is revoked, or did not sign the request.
    """
    ca, _ = _load_ca(folder, passphrase)
    try:
        old = x509.load_pem_x509_certificate(old_pem)
        old.verify_directly_issued_by(ca)
        key = old.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise ValueError("not ECDSA")
        key.verify(signature, request_pem, ec.ECDSA(hashes.SHA256()))
    except (ValueError, TypeError, InvalidSignature) as error:
        raise ConfigError("the renewal is not signed by a certificate of this CA") from error
    if not old.not_valid_before_utc <= dt.datetime.now(dt.UTC) <= old.not_valid_after_utc:
        raise ConfigError("the certificate that asks for its renewal has run out; enrol again")
    known = {c.serial: c for c in issued_certificates(folder)}.get(f"{old.serial_number:x}")
    if known is None or known.revoked:
        raise ConfigError("the certificate that asks for its renewal is revoked, or was never issued; enrol again")
    return sign_request(folder, request_pem, known.identity, known.role, passphrase=passphrase)


def sign_request(
    folder: Path,
    request_pem: bytes,
    identity: str,
    role: str,
    hosts: tuple[str, ...] = (),
    *,
    days: int = _LEAF_DAYS,
    passphrase: Path | None = None,
) -> bytes:
    """Sign a certificate request with the CA in `folder`.

    Args:
        folder: where `create_ca` put the CA.
        request_pem: the request; only its public key is taken from it.
        identity: the id to certify; the operator decides it, not the request.
        role: one of `ROLES`.
        hosts: DNS names or addresses, for a server.
        days: how long it is valid; a negative number makes one that ran out, for tests.
        passphrase: the CA key's passphrase file.

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
    ca, ca_key = _load_ca(folder, passphrase)
    now = dt.datetime.now(dt.UTC)
    begin = now - dt.timedelta(minutes=5) + min(dt.timedelta(0), dt.timedelta(days=2 * days))
    serial = x509.random_serial_number()
    usage = ExtendedKeyUsageOID.SERVER_AUTH if role == "aggregator" else ExtendedKeyUsageOID.CLIENT_AUTH
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(identity, role))
        .issuer_name(ca.subject)
        .public_key(request.public_key())
        .serial_number(serial)
        .not_valid_before(begin)
        .not_valid_after(now + dt.timedelta(days=days))
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
    signed = builder.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    issued = IssuedCertificate(
        serial=f"{serial:x}",
        identity=identity,
        role=role,
        not_after=(now + dt.timedelta(days=days)).isoformat(timespec="seconds"),
        fingerprint=request_fingerprint(request_pem),
    )
    _write_issued(folder, [*issued_certificates(folder), issued])
    return signed


def issue_server_certificate(folder: Path, hosts: tuple[str, ...], passphrase: Path | None = None) -> None:
    """Make the aggregator's own key (an existing one is kept) and certificate in `folder`.

    They are ``aggregator.key`` and ``aggregator.pem``; a certificate that is there is replaced.
    """
    request = make_key_and_request(folder / "aggregator.key", "aggregator", "aggregator")
    (folder / "aggregator.pem").write_bytes(
        sign_request(folder, request, "aggregator", "aggregator", hosts, passphrase=passphrase)
    )


def certified_hosts(path: Path) -> tuple[str, ...]:
    """The names and addresses that a server's certificate is for; none if there is no such file.

    Raises:
        ConfigError: the file is no certificate.
    """
    if not path.exists():
        return ()
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    except ValueError as error:
        raise ConfigError(f"{path} is no certificate") from error
    return tuple(str(name.value) for name in names)
