"""Who may call: the certificate behind a call, whether it still counts, and what its role allows. No run logic.

TLS has already checked that the certificate comes from the consortium's CA; what TLS does not see is checked here on
every call before anything of it is read (`aggregator.rpc.gate`): revocation (at once, on open connections too), expiry
since the connection was opened, role, deadline, calls at once and calls a second of one certificate. Only that a bank
names itself is checked later, since the message names it. A call that keeps the node waiting is ended.
"""

import datetime as dt
import functools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import grpc
from cryptography import x509
from cryptography.x509.oid import NameOID

from aggregator.persistence.audit import AuditKind, AuditLog
from protocol.errors import ConfigError
from protocol.limits import (
    CALL_BURST,
    CALLS_PER_SECOND,
    MAX_BANKS,
    MAX_CALL_SECONDS,
    MAX_CALLS_PER_IDENTITY,
    MAX_IDLE_SECONDS,
)

__all__ = ["METHOD_ROLES", "AccessControl", "Call", "Caller", "RevocationList"]

_EVERYBODY = frozenset({"bank", "operator", "aggregator"})
_MEMBERS = frozenset({"bank", "operator"})
_BANKS = frozenset({"bank"})
#: Who may call what; a method that is not here is nobody's.
METHOD_ROLES: dict[str, frozenset[str]] = {
    "/crossbank.v1.Consortium/OpenRun": frozenset({"operator"}),
    "/crossbank.v1.Consortium/AbortRun": _MEMBERS,
    "/crossbank.v1.Consortium/ListRuns": _MEMBERS,
    "/crossbank.v1.Consortium/GetRun": _MEMBERS,
    "/crossbank.v1.Consortium/Join": _BANKS,
    "/crossbank.v1.Consortium/AnnounceKey": _BANKS,
    "/crossbank.v1.Consortium/PublishBundle": _BANKS,
    "/crossbank.v1.Consortium/GetKeys": _BANKS,
    "/crossbank.v1.Consortium/SecureSum": _BANKS,
    "/crossbank.v1.Consortium/SumAtOnce": _BANKS,
    "/crossbank.v1.Consortium/AwaitSum": _BANKS,
    "/crossbank.v1.Consortium/Report": _BANKS,
    "/crossbank.v1.Consortium/GetReports": _BANKS,
    "/crossbank.v1.Consortium/GetAuditHead": _MEMBERS,
    "/grpc.health.v1.Health/Check": _EVERYBODY,
    "/grpc.health.v1.Health/Watch": _EVERYBODY,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The party behind a call, from its certificate."""

    identity: str
    role: str
    serial: str
    peer: str


@dataclass(slots=True, kw_only=True, eq=False)
class Call:
    """A call under way: whose it is, and since when the node waits for its caller (0: it does not)."""

    caller: Caller
    method: str
    context: grpc.ServicerContext = field(repr=False)
    waiting_since: float = 0.0


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
    """Checks every call's certificate, and ends the calls of one that is revoked meanwhile or keeps us waiting."""

    def __init__(
        self, revoked: RevocationList, audit: AuditLog, now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC)
    ) -> None:
        self.revoked = revoked
        self.audit = audit
        self.idle_seconds: float = MAX_IDLE_SECONDS
        self._now = now
        self._lock = threading.Lock()
        self._calls: dict[grpc.ServicerContext, Call] = {}
        self._active: dict[str, set[Call]] = {}
        self._clock = time.monotonic
        self._tokens: dict[str, tuple[float, float]] = {}

    def admit(self, context: grpc.ServicerContext, method: str) -> Call:
        """Take a call in before anything of it is read; ends the call if its certificate does not count, or no more."""
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
        roles = METHOD_ROLES.get(method, frozenset())
        if caller.role not in roles:
            whose = " or ".join("a bank" if role == "bank" else "an operator" for role in sorted(roles)) or "nobody"
            self._refuse(context, caller, AuditKind.ACTION_REFUSED, f"only {whose} may do this")
        return self._enter(context, caller, method)

    def caller(self, context: grpc.ServicerContext) -> Caller:
        """The party behind a call that was admitted."""
        with self._lock:
            call = self._calls.get(context)
        if call is None:
            # It ended while we came here, so nobody is told; no call comes by another way than `admit`.
            context.abort(grpc.StatusCode.CANCELLED, "the call is over")
            raise AssertionError("unreachable")
        return call.caller

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

    def waits(self, call: Call, waiting: bool) -> None:
        """Note that the node begins, or ends, to wait for the caller: for its next message, or until it takes one."""
        call.waiting_since = self._clock() if waiting else 0.0

    def enforce(self) -> None:
        """Read the revocation list if it changed; end the calls of certificates on it, and those that idle."""
        self._end_idle()
        if self.revoked.read():
            count = len(self.revoked.serials)
            self.audit.record(AuditKind.REVOCATION_LIST_READ, detail=f"{count} certificates are revoked")
        with self._lock:
            ended = [call for serial in self.revoked.serials for call in self._active.get(serial, ())]
        for call in ended:
            self._end(call, "the certificate is revoked")

    def _end_idle(self) -> None:
        before = self._clock() - self.idle_seconds
        with self._lock:
            idle = [call for call in self._calls.values() if 0.0 < call.waiting_since < before]
        for call in idle:
            self._end(
                call, f"{call.method.rsplit('/', 1)[-1]}: nothing came, or was taken, for {self.idle_seconds:g} s"
            )

    def _end(self, call: Call, why: str) -> None:
        # First the call, then the record: one that can't be written must not keep the call alive.
        call.context.cancel()
        caller = call.caller
        self.audit.record(
            AuditKind.CALL_ENDED, identity=caller.identity, serial=caller.serial, peer=caller.peer, detail=why
        )

    def _refuse(self, context: grpc.ServicerContext, caller: Caller, kind: AuditKind, why: str) -> NoReturn:
        self.audit.record(kind, identity=caller.identity, serial=caller.serial, peer=caller.peer, detail=why)
        status = grpc.StatusCode.PERMISSION_DENIED
        if kind is AuditKind.CERTIFICATE_REFUSED:
            status = grpc.StatusCode.UNAUTHENTICATED
        if kind is AuditKind.CALLS_LIMITED:
            status = grpc.StatusCode.RESOURCE_EXHAUSTED
        context.abort(status, why)
        raise AssertionError("unreachable")

    def _enter(self, context: grpc.ServicerContext, caller: Caller, method: str) -> Call:
        """Caps on what one certificate may ask for: deadlines, calls at once, calls a second."""
        left = context.time_remaining()
        if left is None or left > MAX_CALL_SECONDS:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"a call needs a deadline of {MAX_CALL_SECONDS} s at most")
        now, call = self._clock(), Call(caller=caller, method=method, context=context)
        with self._lock:
            tokens, since = self._tokens.get(caller.serial, (float(CALL_BURST), now))
            tokens = min(float(CALL_BURST), tokens + (now - since) * CALLS_PER_SECOND) - 1
            crowded = len(self._active.get(caller.serial, ())) >= MAX_CALLS_PER_IDENTITY
            self._tokens[caller.serial] = (max(tokens, -1.0), now)
            if not (crowded or tokens < 0):
                self._calls[context] = call
                self._active.setdefault(caller.serial, set()).add(call)
        if crowded or tokens < 0:
            what = f"{MAX_CALLS_PER_IDENTITY} calls at once" if crowded else f"{CALLS_PER_SECOND} calls a second"
            self._refuse(context, caller, AuditKind.CALLS_LIMITED, f"no more than {what}; try again")
        if not context.add_callback(lambda: self._leave(call)):
            self._leave(call)
        return call

    def _leave(self, call: Call) -> None:
        with self._lock:
            self._calls.pop(call.context, None)
            calls = self._active.get(call.caller.serial, set())
            calls.discard(call)
            if not calls:
                self._active.pop(call.caller.serial, None)
