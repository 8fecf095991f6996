"""A free port: free, and not one that the kernel may give to a connection meanwhile."""

import random
import socket

from simulator.ports import LOOPBACK, _ephemeral, free_port


def test_a_port_is_free_and_below_those_of_connections() -> None:
    ports = {free_port() for _ in range(50)}
    assert len(ports) > 40
    assert all(1024 < port < _ephemeral() for port in ports)
    for port in ports:
        with socket.socket() as server:
            server.bind((LOOPBACK, port))


def test_a_seeded_generator_does_not_make_two_processes_draw_the_same() -> None:
    random.seed(1)
    first = [free_port() for _ in range(4)]
    random.seed(1)
    assert first != [free_port() for _ in range(4)]
