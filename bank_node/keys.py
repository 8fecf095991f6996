"""A run's secrets at the bank: the HE key pair, its sealing to members, the mask seeds, their file. No network.

Keys live for one run; `RunSecrets.wipe` removes them when it ends.
"""

import base64
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

import tenseal as ts
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from bank_node.files import write_secret
from protocol.channel import read_secret_file
from protocol.errors import ConfigError, ProtocolViolation
from protocol.he_parameters import HE_PARAMETERS
from protocol.masks import SecretBytes

__all__ = ["RunSecrets", "make_he_key", "open_he_key", "public_part", "seal_he_key"]


def make_he_key() -> SecretBytes:
    """A fresh BFV context with its secret key, of the protocol's parameters, serialised."""
    context = ts.context(
        ts.SCHEME_TYPE.BFV,
        int(str(HE_PARAMETERS["poly_modulus_degree"])),
        plain_modulus=int(str(HE_PARAMETERS["plain_modulus"])),
        encryption_type=ts.ENCRYPTION_TYPE.SYMMETRIC,
    )
    return SecretBytes(_serialize(context, secret=True))


def public_part(secret_context: SecretBytes) -> bytes:
    """The public context: parameters only, no key of any kind."""
    return _serialize(ts.context_from(secret_context.reveal()), secret=False)


def _serialize(context: ts.Context, *, secret: bool) -> bytes:
    return bytes(
        context.serialize(save_public_key=False, save_secret_key=secret, save_galois_keys=False, save_relin_keys=False)
    )


def _box_key(seed: SecretBytes, recipient: str) -> ChaCha20Poly1305:
    info = b"crossbank/1 seal HE key\0" + recipient.encode()
    return ChaCha20Poly1305(HKDFExpand(algorithm=SHA256(), length=32, info=info).derive(seed.reveal()))


def _bound_to(run_id: str, recipient: str, public_context: bytes) -> bytes:
    return f"{run_id}\0{recipient}\0".encode() + hashlib.sha256(public_context).digest()


def seal_he_key(seed: SecretBytes, run_id: str, recipient: str, secret_context: SecretBytes) -> bytes:
    """Seal the HE secret key to one member, under the seed shared with it (ChaCha20-Poly1305).

    The key is used for this one message, so the nonce is fixed; the run, the recipient and the public context are
    authenticated with it.
    """
    bound = _bound_to(run_id, recipient, public_part(secret_context))
    return _box_key(seed, recipient).encrypt(bytes(12), secret_context.reveal(), bound)


def open_he_key(seed: SecretBytes, run_id: str, recipient: str, box: bytes, public_context: bytes) -> SecretBytes:
    """Open a sealed HE key.

    Raises:
        ProtocolViolation: it is not for us, not for this run, or does not belong to the public context.
    """
    try:
        opened = _box_key(seed, recipient).decrypt(bytes(12), box, _bound_to(run_id, recipient, public_context))
    except InvalidTag as error:
        raise ProtocolViolation(f"run {run_id}: the sealed HE key can't be opened by bank {recipient}") from error
    secret = SecretBytes(opened)
    if not ts.context_from(opened).is_private() or public_part(secret) != public_context:
        raise ProtocolViolation(f"run {run_id}: the sealed HE key does not belong to the public context")
    return secret


@dataclass(slots=True, kw_only=True)
class RunSecrets:
    """What one bank keeps secret for one run, in one 0600 file."""

    path: Path
    x25519: X25519PrivateKey = field(repr=False)
    he_key: SecretBytes | None = field(default=None, repr=False)

    @classmethod
    def load_or_make(cls, path: Path) -> "RunSecrets":
        """Read the file, or make a fresh X25519 key and write it."""
        if not path.exists():
            made = cls(path=path, x25519=X25519PrivateKey.generate())
            made.save()
            return made
        try:
            document = json.loads(read_secret_file(path, "run secrets"))
            key = X25519PrivateKey.from_private_bytes(base64.b64decode(document["x25519"]))
            he_key = SecretBytes(base64.b64decode(document["he_key"])) if document["he_key"] else None
        except (ValueError, KeyError) as error:
            raise ConfigError(f"run secrets {path} are damaged; the bank can't go on with this run") from error
        return cls(path=path, x25519=key, he_key=he_key)

    def save(self) -> None:
        """Write the file, atomically, 0600."""
        document = {
            "x25519": base64.b64encode(self.x25519.private_bytes_raw()).decode(),
            "he_key": base64.b64encode(self.he_key.reveal()).decode() if self.he_key else "",
        }
        write_secret(self.path, json.dumps(document).encode())

    def wipe(self) -> None:
        """Overwrite and remove the file. On copy-on-write storage the old blocks may stay; encrypt the disk."""
        self.he_key = None
        if self.path.exists():
            self.path.write_bytes(bytes(self.path.stat().st_size))
            self.path.unlink()
