"""A run's secrets at the bank: run keys, the root secret, the HE key pair, their sealing, their file. No network.

One bank draws a root secret and makes the HE key pair; the pair travels encrypted under a key from the root secret,
the root secret sealed by HPKE (RFC 9180: X25519, HKDF-SHA256, ChaCha20-Poly1305) to each member's signed run key.
Keys live for one run; `RunSecrets.wipe` removes them when it ends.
"""

import base64
import hashlib
import json
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

import tenseal as ts
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from bank_node.secure_aggregation.encryption import HeKey
from protocol.channel import read_secret_file
from protocol.errors import DamagedRunFiles, ProtocolViolation
from protocol.he_parameters import HE_PARAMETERS
from protocol.masks import SecretBytes, derive_key
from protocol.private_files import write_secret

__all__ = [
    "RunSecrets",
    "group_secret",
    "make_he_key",
    "open_he_key",
    "open_root",
    "public_part",
    "seal_he_key",
    "seal_root",
]

_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)


def make_he_key() -> HeKey:
    """A fresh BFV context with its secret key, of the protocol's parameters, serialised."""
    context = ts.context(
        ts.SCHEME_TYPE.BFV,
        int(str(HE_PARAMETERS["poly_modulus_degree"])),
        plain_modulus=int(str(HE_PARAMETERS["plain_modulus"])),
        encryption_type=ts.ENCRYPTION_TYPE.SYMMETRIC,
    )
    return HeKey(_serialize(context, secret=True), context)


def public_part(key: HeKey) -> bytes:
    """The public context: parameters only, no key of any kind."""
    return _serialize(key.context, secret=False)


def _serialize(context: ts.Context, *, secret: bool) -> bytes:
    return bytes(
        context.serialize(save_public_key=False, save_secret_key=secret, save_galois_keys=False, save_relin_keys=False)
    )


def group_secret(root: SecretBytes) -> SecretBytes:
    """The secret behind MAC keys, witnesses and states: known to the run's banks, not to the aggregator."""
    return SecretBytes(derive_key(root, "group"))


def _bound_to(run_id: str, public_context: bytes) -> bytes:
    return f"{run_id}\0".encode() + hashlib.sha256(public_context).digest()


def seal_he_key(root: SecretBytes, run_id: str, key: HeKey, public_context: bytes) -> bytes:
    """The HE secret key under a key made from the root secret (ChaCha20-Poly1305).

    That key is used for this one message, so the nonce is fixed; the run and the public context are authenticated.
    """
    box = ChaCha20Poly1305(derive_key(root, "HE key"))
    return box.encrypt(bytes(12), key.reveal(), _bound_to(run_id, public_context))


def open_he_key(root: SecretBytes, run_id: str, sealed: bytes, public_context: bytes) -> HeKey:
    """The inverse of `seal_he_key`.

    Raises:
        ProtocolViolation: it is not for this run, was changed, or does not belong to the public context.
    """
    box = ChaCha20Poly1305(derive_key(root, "HE key"))
    try:
        opened = box.decrypt(bytes(12), sealed, _bound_to(run_id, public_context))
    except InvalidTag as error:
        raise ProtocolViolation(f"run {run_id}: the sealed HE key can't be opened") from error
    key = HeKey(opened)
    try:
        belongs = key.context.is_private() and public_part(key) == public_context
    except Exception as error:
        # TenSEAL and SEAL raise what they like on bytes that are no context.
        raise ProtocolViolation(f"run {run_id}: the sealed HE key is none") from error
    if not belongs:
        raise ProtocolViolation(f"run {run_id}: the sealed HE key does not belong to the public context")
    return key


def _root_info(run_id: str, recipient: str, public_context: bytes) -> bytes:
    return b"crossbank/1 root secret\0" + recipient.encode() + b"\0" + _bound_to(run_id, public_context)


def seal_root(recipient_key: bytes, run_id: str, recipient: str, root: SecretBytes, public_context: bytes) -> bytes:
    """The root secret sealed to one member's X25519 run key by HPKE, bound to run, member and public context."""
    key = X25519PublicKey.from_public_bytes(recipient_key)
    return bytes(_SUITE.encrypt(root.reveal(), key, _root_info(run_id, recipient, public_context)))


def open_root(own: X25519PrivateKey, run_id: str, recipient: str, box: bytes, public_context: bytes) -> SecretBytes:
    """The inverse of `seal_root`.

    Raises:
        ProtocolViolation: it is not for us, not for this run, or was changed.
    """
    try:
        opened = bytes(_SUITE.decrypt(box, own, _root_info(run_id, recipient, public_context)))
    except (InvalidTag, ValueError) as error:
        raise ProtocolViolation(f"run {run_id}: bank {recipient} can't open the key sealed to it") from error
    if len(opened) != 32:
        raise ProtocolViolation(f"run {run_id}: the key sealed to bank {recipient} has a wrong length")
    return SecretBytes(opened)


@dataclass(slots=True, kw_only=True)
class RunSecrets:
    """What one bank keeps secret for one run, in one 0600 file."""

    path: Path
    x25519: X25519PrivateKey = field(repr=False)
    ed25519: Ed25519PrivateKey = field(repr=False)
    root: SecretBytes | None = field(default=None, repr=False)
    he_key: HeKey | None = field(default=None, repr=False)

    @classmethod
    def load_or_make(cls, path: Path) -> "RunSecrets":
        """Read the file, or make fresh run keys and write it."""
        if not path.exists():
            made = cls(path=path, x25519=X25519PrivateKey.generate(), ed25519=Ed25519PrivateKey.generate())
            made.save()
            return made
        try:
            document = json.loads(read_secret_file(path, "run secrets"))
            parts = {name: base64.b64decode(document[name]) for name in ("x25519", "ed25519", "root", "he_key")}
            return cls(
                path=path,
                x25519=X25519PrivateKey.from_private_bytes(parts["x25519"]),
                ed25519=Ed25519PrivateKey.from_private_bytes(parts["ed25519"]),
                root=SecretBytes(parts["root"]) if parts["root"] else None,
                he_key=HeKey(parts["he_key"]) if parts["he_key"] else None,
            )
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedRunFiles(f"run secrets {path} are damaged; the bank can't go on with this run") from error

    def make_shared(self) -> None:
        """Draw the root secret and make the HE key pair, as the key-making bank; keep them."""
        if self.root is None or self.he_key is None:
            self.root, self.he_key = SecretBytes(secrets.token_bytes(32)), make_he_key()
            self.save()

    def save(self) -> None:
        """Write the file, atomically, 0600."""
        document = {
            "x25519": base64.b64encode(self.x25519.private_bytes_raw()).decode(),
            "ed25519": base64.b64encode(self.ed25519.private_bytes_raw()).decode(),
            "root": base64.b64encode(self.root.reveal()).decode() if self.root else "",
            "he_key": base64.b64encode(self.he_key.reveal()).decode() if self.he_key else "",
        }
        write_secret(self.path, json.dumps(document).encode())

    def wipe(self) -> None:
        """Overwrite and remove the file. On copy-on-write storage the old blocks may stay; encrypt the disk."""
        self.root = self.he_key = None
        self.wipe_file(self.path)

    @staticmethod
    def wipe_file(path: Path) -> None:
        """Overwrite and remove a secrets file, if it is there."""
        if path.exists():
            with path.open("r+b") as file:
                file.write(bytes(path.stat().st_size))
                file.flush()
                os.fsync(file.fileno())
            path.unlink()
