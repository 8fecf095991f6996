"""Keyed hashes instead of customers' and counterparties' identifiers, and the file that holds the key. Keeps no map.

An identifier becomes the first 128 bits of HMAC-SHA256 under the bank's own key, in hex. Equal identifiers have equal
hashes, so windows work on hashes; without the key nobody can try out account numbers. The bank finds a payment behind
a hash by hashing its own identifiers again (`hashed`). The hash of each kind of identifier is its own.

Where the consortium has a key of its own, accounts, counterparties and devices also get a hash that every bank makes
alike: knowledge about them can then be added up over banks. That hash stays in the bank's store, too.
"""

import hashlib
import hmac
import os
import secrets
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from features.errors import KeyFileError

if TYPE_CHECKING:
    import ibis.expr.types as ir
    from ibis.backends.duckdb import Backend

__all__ = ["HASH_CHARACTERS", "KINDS", "SHARED", "IdentifierKey", "create_key", "hash_column", "hashed", "load_key"]

KEY_BYTES = 32
HASH_CHARACTERS = 32
"""128 bits: among a billion identifiers two collide with probability 2⁻⁶⁹."""

KINDS = {
    "payment_id": "payment",
    "account_id": "party",
    "counterparty_id": "party",
    "counterparty_bank": "bank",
    "device_id": "device",
}
"""Columns that are replaced, and what they identify: an account is the same party on either side of a payment."""

SHARED = {"account_id": "shared_account", "counterparty_id": "shared_counterparty", "device_id": "shared_device"}
"""Columns of which the consortium's key makes a second hash, and the columns that hold it; null without that key."""

_BLOCK = 64


@dataclass(frozen=True, slots=True)
class IdentifierKey:
    """The bank's secret for identifiers."""

    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.secret) != KEY_BYTES:
            raise KeyFileError(f"The key of identifiers must have {KEY_BYTES} bytes.")

    @property
    def fingerprint(self) -> str:
        """Tells two keys apart and gives neither away."""
        return hmac.new(self.secret, b"crossbank identifier key", hashlib.sha256).hexdigest()


def create_key(path: Path) -> IdentifierKey:
    """Make a new key, readable by its owner alone; an existing one is never replaced.

    Raises:
        KeyFileError: the file is there already or can't be written.
    """
    secret = secrets.token_bytes(KEY_BYTES)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as stream:
            stream.write(secret.hex() + "\n")
    except OSError as error:
        raise KeyFileError(f"The key of identifiers {path} can't be made: {error.strerror}.") from error
    return IdentifierKey(secret)


def load_key(path: Path) -> IdentifierKey:
    """Read the key.

    Raises:
        KeyFileError: no such file, others may read it (chmod 600 it), or it is not 64 hex digits.
    """
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise KeyFileError(f"The key of identifiers {path} may be read by others; chmod 600 it.")
        return IdentifierKey(bytes.fromhex(path.read_text(encoding="ascii").strip()))
    except OSError as error:
        raise KeyFileError(f"The key of identifiers {path} can't be read: {error.strerror}.") from error
    except ValueError as error:
        if isinstance(error, KeyFileError):
            raise
        raise KeyFileError(f"The key of identifiers {path} is not {2 * KEY_BYTES} hex digits.") from None


def hashed(key: IdentifierKey, column: str, values: Iterable[str]) -> list[str]:
    """The hashes of identifiers of a column of `KINDS`: the plain twin of `hash_column`, and the bank's way back."""
    prefix = f"{KINDS[column]}:"
    return [
        hmac.new(key.secret, (prefix + value).encode(), hashlib.sha256).hexdigest()[:HASH_CHARACTERS]
        for value in values
    ]


def hash_column(connection: "Backend", key: IdentifierKey, column: str, value: "ir.Value") -> "ir.Value":
    """The same inside the engine, null for null. The key goes in as a variable, so no query's text holds it."""
    import ibis

    # HMAC as RFC 2104 has it, for a key no longer than a block: two hashes over the padded, masked key and the text.
    variable = f"identifier_{key.fingerprint[:16]}"
    for side, mask in (("inner", 0x36), ("outer", 0x5C)):
        padded = bytes(byte ^ mask for byte in key.secret.ljust(_BLOCK, b"\0"))
        connection.con.execute(f"SET VARIABLE {variable}_{side} = ?::BLOB", [padded])

    # Ibis has no functions of bytes: these are DuckDB's own, by their names there.
    @ibis.udf.scalar.builtin(signature=(("string",), "binary"))
    def getvariable(variable): ...  # type: ignore[no-untyped-def]

    @ibis.udf.scalar.builtin(signature=(("string",), "binary"))
    def encode(text): ...  # type: ignore[no-untyped-def]

    @ibis.udf.scalar.builtin(signature=(("binary", "binary"), "binary"))
    def concat(left, right): ...  # type: ignore[no-untyped-def]

    @ibis.udf.scalar.builtin(signature=(("binary",), "string"))
    def sha256(content): ...  # type: ignore[no-untyped-def]

    @ibis.udf.scalar.builtin(signature=(("string",), "binary"))
    def unhex(digits): ...  # type: ignore[no-untyped-def]

    message = encode(ibis.literal(f"{KINDS[column]}:") + value)
    digest = sha256(
        concat(getvariable(f"{variable}_outer"), unhex(sha256(concat(getvariable(f"{variable}_inner"), message))))
    )
    return value.notnull().ifelse(digest.substr(0, HASH_CHARACTERS), ibis.null("string"))
