"""Caps, statuses, calls and messages for docs/protocol.md, from the code and the schema. It sends nothing."""

import ast
import re
from pathlib import Path

from docs.generate.markdown import table

__all__ = ["caps", "messages", "statuses"]

_ROOT = Path(__file__).resolve().parents[2]


def caps() -> str:
    """Every cap with its value and the reason that its comment gives.

    Raises:
        LookupError: a cap has no reason.
    """
    path = _ROOT / "protocol" / "limits.py"
    lines = path.read_text().splitlines()
    from protocol import limits

    rows: list[tuple[str, str, str]] = []
    reason = ""
    for node in ast.parse(path.read_text()).body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        above, line = [], node.lineno - 2
        while lines[line].startswith("#:"):
            above.append(lines[line].removeprefix("#:").strip())
            line -= 1
        # A name straight below another shares its reason.
        reason = " ".join(reversed(above)) or (reason if lines[node.lineno - 2].strip() else "")
        if not reason:
            raise LookupError(f"{node.target.id} has no reason: give it a comment that begins with #:")
        rows.append((f"`{node.target.id}`", _size(node.target.id, getattr(limits, node.target.id)), reason))
    return table(("cap", "value", "why"), rows)


def _size(name: str, value: int) -> str:
    if "BYTES" not in name:
        return f"{value:,}"
    return f"{value // 1024**2} MiB" if value % 1024**2 == 0 else f"{value // 1024} KiB"


def statuses() -> str:
    """Every status that crosses the wire: for which errors the node writes it, and which error a caller has then."""
    from protocol.status import TABLE

    used = [row.writes for row in TABLE] + [status for row in TABLE for status in row.reads]
    rows = []
    for status in dict.fromkeys(used):
        errors = [f"`{row.error.__name__}`" for row in TABLE if row.writes is status]
        written = ", ".join(errors) or "the guard of calls, or gRPC itself"
        read = next(row.error for row in TABLE if status is row.writes or status in row.reads)
        rows.append((f"`{status.name}`", written, f"`{read.__name__}`", "yes" if read.passing else "no"))
    return table(("gRPC status", "written for", "a caller has", "worth a later try"), rows)


def messages() -> str:
    """The calls with what goes up and down, then every message with its fields' names, numbers and types."""
    text = (_ROOT / "protocol" / "proto" / "crossbank.proto").read_text()
    from google.protobuf.descriptor import FieldDescriptor

    from protocol import crossbank_pb2 as pb

    kinds = {
        value: name.removeprefix("TYPE_").lower()
        for name, value in vars(FieldDescriptor).items()
        if name.startswith("TYPE_")
    }

    def kind(field: FieldDescriptor) -> str:
        if field.message_type is not None:
            return field.message_type.name
        return kinds[field.type]

    service = pb.DESCRIPTOR.services_by_name["Consortium"]
    found = re.findall(r"rpc (\w+)\((stream )?\w+\) returns \((stream )?", text)
    streams = {name: (bool(up), bool(down)) for name, up, down in found}
    calls = []
    for method in service.methods:
        up, down = streams[method.name]
        calls.append(
            (
                f"`{method.name}`",
                f"{'stream of ' if up else ''}`{method.input_type.name}`",
                f"{'stream of ' if down else ''}`{method.output_type.name}`",
            )
        )
    rows = []
    for name, message in pb.DESCRIPTOR.message_types_by_name.items():
        said = []
        for field in message.fields:
            repeated = bool(re.search(rf"message {name} \{{[^}}]*\brepeated \w+ {field.name} =", text))
            said.append(f"{field.number} `{field.name}` {'list of ' if repeated else ''}{kind(field)}")
        rows.append((f"`{name}`", ", ".join(said)))
    return table(("call", "up", "down"), calls) + "\n" + table(("message", "fields by number"), rows)
