"""Puts failed TLS handshakes into the audit log. gRPC's Python server reports them nowhere but on standard error.

gRPC core writes one line for each to file descriptor 2. The node's process hands that descriptor to a pipe, passes
every line on to the real standard error, and records those about handshakes. See docs/adr/0003-failed-handshakes.md.
"""

import os
import re
import threading

from aggregator.persistence.audit import AuditKind, AuditLog

__all__ = ["handshake_failure", "record_failed_handshakes"]

_FAILED = re.compile(r"Handshake failed with error (?P<code>\w+)(?:: (?P<rest>.*))?")
#: What OpenSSL's short names mean to an operator.
_MEANING = (
    ("HTTP_REQUEST", "no TLS: a plain HTTP request"),
    ("WRONG_VERSION_NUMBER", "no TLS: plain bytes"),
    ("PEER_DID_NOT_RETURN_A_CERTIFICATE", "no client certificate"),
    ("certificate has expired", "an expired certificate"),
    ("self signed", "a self-made certificate"),
    ("self-signed", "a self-made certificate"),
    ("unable to get local issuer", "a certificate of another CA"),
    ("certificate signature failure", "a certificate that only claims to be of this CA"),
)


def handshake_failure(line: str) -> str | None:
    """The reason in a line of gRPC's log about a failed handshake; None for any other line."""
    found = _FAILED.search(line)
    if found is None:
        return None
    rest = found.group("rest") or found.group("code")
    meaning = next((text for mark, text in _MEANING if mark in rest), "")
    return f"{meaning} ({rest[:200]})" if meaning else rest[:200]


def record_failed_handshakes(audit: AuditLog) -> None:
    """From now on, record this process's failed handshakes; standard error goes on as before."""
    real = os.dup(2)
    reading, writing = os.pipe()
    os.dup2(writing, 2)
    os.close(writing)

    def copy() -> None:
        with os.fdopen(reading, "rb") as lines:
            for line in lines:
                os.write(real, line)
                reason = handshake_failure(line.decode(errors="replace").rstrip())
                if reason is None:
                    continue
                try:
                    audit.record(AuditKind.HANDSHAKE_REFUSED, detail=reason)
                except Exception as error:
                    # Were this thread to end, the pipe would fill and stop whoever writes to standard error.
                    os.write(real, f"a failed handshake could not be recorded: {type(error).__name__}\n".encode())

    threading.Thread(target=copy, name="handshakes", daemon=True).start()
