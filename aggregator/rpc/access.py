"""Who may call: the certificate behind a call, whether it still counts, and what its role allows. No run logic.

TLS has already checked that the certificate comes from the consortium's CA; what TLS does not see is checked here on
every call: revocation (at once, on open connections too), expiry since the connection was opened, identity and role.
"""

import datetime as dt
import functools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import grpc
from cryptography import x509
from cryptography.x509.oid import NameOID

from aggregator.persistence.audit import AuditKind, AuditLog
from protocol.errors import ConfigError
from protocol.limits import CALL_BURST, CALLS_PER_SECOND, MAX_BANKS, MAX_CALL_SECONDS, MAX_CALLS_PER_IDENTITY

__all__ = ["AccessControl", "Caller", "RevocationList"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The party behind a call, from its certificate."""

    identity: str
    role: str
    serial: str
    peer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Party:
    """What a certificate says."""

    identity: str
    role: str
    serial: str
    begins: dt.datetime
    ends: dt.datetime


@functools.lru_cache(maxsize=4 * MAX_BANKS)
def _party(pem: bytes) -> _Party:
    # TLS has checked the certificate's signature; whether it still counts is checked on every call, not here.
    certificate = x509.load_pem_x509_certificate(pem)
    names = certificate.subject
    return _Party(
        identity=str(names.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value),
        role=str(names.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)[0].value),
        serial=f"{certificate.serial_number:x}",
        begins=certificate.not_valid_before_utc,
        ends=certificate.not_valid_after_utc,
    )


class RevocationList:
    """The CA's list of revoked certificates, read again whenever its file changes."""

    def __init__(self, path: Path, ca: Path) -> None:
        """Read it.

        Raises:
            ConfigError: there is none, or it is not signed by the CA: without it, nobody could be refused.
        """
        self._path = path
        try:
            self._ca = x509.load_pem_x509_certificate(ca.read_bytes())
        except (OSError, ValueError) as error:
            raise ConfigError(f"CA certificate {ca} can't be read") from error
        self._stamp = (0, 0)
        self.pem = b""
        self.serials: frozenset[str] = frozenset()
        self.read()

    def read(self) -> bool:
        """Read the file if it has changed; True if it had.

        Raises:
            ConfigError: it can't be read, or is not the CA's. What was read before stays in force.
        """
        try:
            status = self._path.stat()
            stamp = (status.st_mtime_ns, status.st_size)
            if stamp == self._stamp:
                return False
            pem = self._path.read_bytes()
            found = x509.load_pem_x509_crl(pem)
        except OSError as error:
            raise ConfigError(
                f"revocation list {self._path} can't be read: {error.strerror}; `aggregator ca crl` makes one"
            ) from error
        except ValueError as error:
            raise ConfigError(f"revocation list {self._path} is not one") from error
        if not found.is_signature_valid(self._ca.public_key()):  # type: ignore[arg-type]
            raise ConfigError(f"revocation list {self._path} is not signed by the consortium's CA")
        self.pem, self._stamp = pem, stamp
        self.serials = frozenset(f"{entry.serial_number:x}" for entry in found)
        return True


class AccessControl:
    """Checks every call's certificate, and ends the calls of one that is revoked meanwhile."""

    def __init__(
        self, revoked: RevocationList, audit: AuditLog, now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC)
    ) -> None:
        self.revoked = revoked
        self.audit = audit
        self._now = now
        self._lock = threading.Lock()
        self._active: dict[str, set[grpc.ServicerContext]] = {}
        self._clock = time.monotonic
        self._tokens: dict[str, tuple[float, float]] = {}

    def caller(self, context: grpc.ServicerContext) -> Caller:
        """The party behind a call; ends the call if its certificate does not count."""
        try:
            party = _party(context.auth_context()["x509_pem_cert"][0])
            caller = Caller(identity=party.identity, role=party.role, serial=party.serial, peer=context.peer())
        except (KeyError, IndexError, ValueError):
            self.audit.record(AuditKind.CERTIFICATE_REFUSED, peer=context.peer(), detail="not a party's certificate")
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "a certificate of the consortium is needed")
        if caller.serial in self.revoked.serials:
            self._refuse(context, caller, AuditKind.CERTIFICATE_REFUSED, "the certificate is revoked")
        if not party.begins <= self._now() <= party.ends:
            self._refuse(context, caller, AuditKind.CERTIFICATE_REFUSED, "the certificate has run out")
        self._admit(context, caller)
        self._follow(context, caller)
        return caller

    def bank(self, context: grpc.ServicerContext, bank: str) -> str:
        """The calling bank's id, which must be the one the message names."""
        caller = self.caller(context)
        if caller.role != "bank" or caller.identity != bank:
            self._refuse(context, caller, AuditKind.ACTION_REFUSED, "a bank can act only as itself")
        return caller.identity

    def operator(self, context: grpc.ServicerContext) -> str:
        """The calling operator's id."""
        caller = self.caller(context)
        if caller.role != "operator":
            self._refuse(context, caller, AuditKind.ACTION_REFUSED, "only an operator may do this")
        return caller.identity

    def enforce(self) -> None:
        """Read the revocation list if it changed, and end the calls under way of certificates on it."""
        if self.revoked.read():
            count = len(self.revoked.serials)
            self.audit.record(AuditKind.REVOCATION_LIST_READ, detail=f"{count} certificates are revoked")
        with self._lock:
            ended = [(serial, call) for serial in self.revoked.serials for call in self._active.get(serial, ())]
        for serial, call in ended:
            self.audit.record(
                AuditKind.CALL_ENDED, serial=serial, peer=call.peer(), detail="the certificate is revoked"
            )
            call.cancel()

    def _refuse(self, context: grpc.ServicerContext, caller: Caller, kind: AuditKind, why: str) -> NoReturn:
        self.audit.record(kind, identity=caller.identity, serial=caller.serial, peer=caller.peer, detail=why)
        status = grpc.StatusCode.PERMISSION_DENIED
        if kind is AuditKind.CERTIFICATE_REFUSED:
            status = grpc.StatusCode.UNAUTHENTICATED
        context.abort(status, why)
        raise AssertionError("unreachable")

    def _admit(self, context: grpc.ServicerContext, caller: Caller) -> None:
        """Caps on what one certificate may ask for: deadlines, calls at once, calls a second."""
        left = context.time_remaining()
        if left is None or left > MAX_CALL_SECONDS:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"a call needs a deadline of {MAX_CALL_SECONDS} s at most")
        now = self._clock()
        with self._lock:
            tokens, since = self._tokens.get(caller.serial, (float(CALL_BURST), now))
            tokens = min(float(CALL_BURST), tokens + (now - since) * CALLS_PER_SECOND) - 1
            crowded = len(self._active.get(caller.serial, ())) >= MAX_CALLS_PER_IDENTITY
            self._tokens[caller.serial] = (max(tokens, -1.0), now)
        if crowded or tokens < 0:
            what = f"{MAX_CALLS_PER_IDENTITY} calls at once" if crowded else f"{CALLS_PER_SECOND} calls a second"
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"no more than {what}; try again")

    def _follow(self, context: grpc.ServicerContext, caller: Caller) -> None:
        with self._lock:
            self._active.setdefault(caller.serial, set()).add(context)

        def over() -> None:
            with self._lock:
                calls = self._active.get(caller.serial, set())
                calls.discard(context)
                if not calls:
                    self._active.pop(caller.serial, None)

        if not context.add_callback(over):
            over()
