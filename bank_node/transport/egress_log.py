"""Records every message that leaves the bank in a run: when, what, how large, to whom, its digest. Never its content.

The record is made where gRPC turns a message into the bytes it sends, so that nothing can leave past it.
"""

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import grpc
import numpy as np

from protocol import crossbank_pb2 as pb
from protocol.he_parameters import HE_FINGERPRINT

__all__ = ["Outbox", "OutboxEntry", "RecordingChannel", "byte_entropy", "read_outbox", "summarise"]

_SAMPLE_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxEntry:
    """One message: `at` in Unix seconds, `size` in bytes, `sha256` of its bytes, hexadecimal.

    For ciphertexts, `he_fingerprint` names their parameters, `ciphertexts` counts them, and `entropy` is the byte
    entropy in bits (8 is noise) of a sample of the message.
    """

    at: float
    method: str
    kind: str
    size: int
    sha256: str
    destination: str
    step: str = ""
    ciphertexts: int = 0
    he_fingerprint: str = ""
    entropy: float | None = None


def byte_entropy(data: bytes) -> float:
    """Shannon entropy of the bytes in bits, 0 to 8, over a sample of 16 KiB from the middle."""
    start = max(0, (len(data) - _SAMPLE_BYTES) // 2)
    counts = np.bincount(np.frombuffer(data[start : start + _SAMPLE_BYTES], dtype=np.uint8), minlength=256)
    shares = counts[counts > 0] / counts.sum() if counts.sum() else np.ones(1)
    return round(float(-(shares * np.log2(shares)).sum()) + 0.0, 3)


class Outbox:
    """Writes entries to ``outbox.jsonl`` of the run it follows; without one it writes nothing."""

    def __init__(self, destination: str) -> None:
        self._destination = destination
        self._lock = threading.Lock()
        self._file: BinaryIO | None = None
        self._steps = threading.local()
        #: Why a message could not be noted, and so was not sent.
        self.failed: OSError | None = None

    def follow(self, path: Path) -> None:
        """Write to this file from now on."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._lock:
            if self._file is not None:
                self._file.close()
            whole = path.read_bytes().rfind(b"\n") + 1 if path.exists() else 0
            self._file = path.open("ab")
            # A line that a crash or a full disk tore: its message did not leave.
            self._file.truncate(whole)
            self.failed = None

    def close(self) -> None:
        """Stop writing."""
        with self._lock:
            if self._file is not None:
                self._file.close()
            self._file = None

    def record(self, method: str, message: Any, body: bytes) -> None:
        """Note a message whose bytes are about to be sent."""
        if self._file is None:
            return
        kind, ciphertexts = type(message).__name__, 0
        step = getattr(message, "step", "")
        if isinstance(message, pb.SumUpload):
            if message.WhichOneof("part") == "header":
                kind, step = "StepHeader", message.header.step
                self._steps.current = step
            else:
                kind, ciphertexts = "Ciphertexts", len(message.batch.chunks)
                step = getattr(self._steps, "current", "")
        elif isinstance(message, pb.WholeUpload):
            kind, step, ciphertexts = "Ciphertexts", message.header.step, len(message.batch.chunks)
        entry: dict[str, Any] = {
            "at": round(time.time(), 6),
            "method": method.rsplit("/", 1)[-1],
            "kind": kind,
            "size": len(body),
            "sha256": hashlib.sha256(body).hexdigest(),
            "destination": self._destination,
        }
        if step:
            entry["step"] = step
        if ciphertexts:
            entry |= {
                "ciphertexts": ciphertexts,
                "he_fingerprint": HE_FINGERPRINT[:16],
                "entropy": byte_entropy(body),
            }
        line = json.dumps(entry).encode() + b"\n"
        with self._lock:
            if self._file is not None:
                try:
                    self._file.write(line)
                    self._file.flush()
                except OSError as error:
                    # gRPC only says that the message could not be made.
                    self.failed = error
                    raise


def read_outbox(path: Path) -> list[OutboxEntry]:
    """All entries of a run's outbox, oldest first; a last line torn by a crash is left out."""
    if not path.exists():
        return []
    return [OutboxEntry(**json.loads(line)) for line in path.read_bytes().split(b"\n")[:-1]]


class RecordingChannel(grpc.Channel):
    """A channel that shows every request's bytes to an outbox before they are sent."""

    def __init__(self, inner: grpc.Channel, outbox: Outbox) -> None:
        self._inner = inner
        self._outbox = outbox

    def _serializer(self, method: str, serialize: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
        def recorded(message: Any) -> bytes:
            body = serialize(message)
            self._outbox.record(method, message, body)
            return body

        return recorded

    def unary_unary(self, method: str, request_serializer: Any = None, *args: Any, **options: Any) -> Any:
        """One request, one answer."""
        return self._inner.unary_unary(method, self._serializer(method, request_serializer), *args, **options)

    def unary_stream(self, method: str, request_serializer: Any = None, *args: Any, **options: Any) -> Any:
        """One request, many answers."""
        return self._inner.unary_stream(method, self._serializer(method, request_serializer), *args, **options)

    def stream_unary(self, method: str, request_serializer: Any = None, *args: Any, **options: Any) -> Any:
        """Many requests, one answer."""
        return self._inner.stream_unary(method, self._serializer(method, request_serializer), *args, **options)

    def stream_stream(self, method: str, request_serializer: Any = None, *args: Any, **options: Any) -> Any:
        """Many requests, many answers."""
        return self._inner.stream_stream(method, self._serializer(method, request_serializer), *args, **options)

    def subscribe(self, callback: Callable[[grpc.ChannelConnectivity], None], try_to_connect: bool = False) -> None:
        """Watch the connection's state."""
        self._inner.subscribe(callback, try_to_connect)

    def unsubscribe(self, callback: Callable[[grpc.ChannelConnectivity], None]) -> None:
        """Stop watching."""
        self._inner.unsubscribe(callback)

    def close(self) -> None:
        """Close the connection and the record."""
        self._inner.close()
        self._outbox.close()

    def __enter__(self) -> "RecordingChannel":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def summarise(entries: Iterable[OutboxEntry]) -> Mapping[str, tuple[int, int]]:
    """Messages and bytes by kind."""
    found: dict[str, tuple[int, int]] = {}
    for entry in entries:
        count, size = found.get(entry.kind, (0, 0))
        found[entry.kind] = (count + 1, size + entry.size)
    return found
