"""A free TCP port of the loopback interface. Starts no server and keeps nothing reserved."""

import random
import socket
from pathlib import Path

__all__ = ["LOOPBACK", "free_port"]

LOOPBACK = "127.0.0.1"

_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST = 16_384
_TRIES = 200


def free_port() -> int:
    """A port that nobody uses now and that the kernel gives to no outgoing connection.

    A server binds it a moment later. A port that the kernel chooses (bind to 0) lies in the range it also takes
    connections' own ports from, and tests that run side by side open many: one may get it meanwhile. Below that
    range only another call of this function can, by drawing the same number in the same moment. Where that range is
    full the kernel chooses.
    """
    # Not the shared generator: tests seed it, and two processes would draw the same ports.
    draw = random.SystemRandom()
    for _ in range(_TRIES):
        port = draw.randrange(_LOWEST, max(_ephemeral(), _LOWEST + 1))
        with socket.socket() as probe:
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return port
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _ephemeral() -> int:
    """The first port that the kernel gives to connections; Linux's default where it can't be read."""
    try:
        return int(_RANGE.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 32_768
