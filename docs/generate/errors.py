"""The reference of every error class: family, gRPC status, meaning and what to do, from the classes. It raises none."""

import grpc

from docs.generate.docstrings import summary
from docs.generate.markdown import table

__all__ = ["families", "known_errors", "reference"]


def known_errors() -> list[type[Exception]]:
    """Every error class that is raised on purpose, the root of each family first."""
    import bank_node.boosting.errors
    import dags.settings
    import features.errors
    import protocol.errors
    import simulator.airflow.rest
    import simulator.airflow.stack

    homes = (
        protocol.errors,
        bank_node.boosting.errors,
        features.errors,
        dags.settings,
        simulator.airflow.rest,
        simulator.airflow.stack,
    )
    return [
        thing
        for home in homes
        for thing in vars(home).values()
        if isinstance(thing, type) and issubclass(thing, Exception) and thing.__module__ == home.__name__
    ]


def families() -> dict[str, str]:
    """Heading to what its errors have in common."""
    return {
        "Our side": "Configuration, files, rows, or a call that the protocol forbids: mended where it is read.",
        "The other side": "Another party, or the way to it: nothing that was refused was used.",
        "The bank's data": "Contract, mapping, payments or features of one bank, mended at that bank.",
        "Airflow": "What the DAG files read, and the demo's own Airflow.",
    }


def _family(kind: type[Exception]) -> str:
    from features.errors import DataError
    from protocol.errors import CrossbankError, LocalError, RemoteError

    if issubclass(kind, RemoteError):
        return "The other side"
    if issubclass(kind, LocalError) or kind is CrossbankError:
        return "Our side"
    return "The bank's data" if issubclass(kind, DataError) else "Airflow"


def _status() -> dict[type[Exception], grpc.StatusCode]:
    from protocol.status import TABLE

    return {row.error: row.writes for row in TABLE}


def _sent_as(kind: type[Exception], status: dict[type[Exception], grpc.StatusCode]) -> str:
    """Of the classes that are in the table only: others never cross the wire."""
    return f"`{status[kind].name}`" if kind in status else ""


def reference() -> str:
    """A table a family.

    Raises:
        LookupError: a class has no docstring.
    """
    status, errors = _status(), known_errors()
    parts = []
    for heading, what in families().items():
        mine = [kind for kind in errors if _family(kind) == heading]
        wire = any(_sent_as(kind, status) for kind in mine)
        head = ("error", "kind of", *(("gRPC status",) if wire else ()), "meaning, and what to do")
        rows = [
            (
                f"`{kind.__name__}`",
                f"`{kind.__bases__[0].__name__}`",
                *((_sent_as(kind, status),) if wire else ()),
                summary(kind),
            )
            for kind in mine
        ]
        parts.append(f"## {heading}\n\n{what}\n\n{table(head, rows)}")
    return "\n".join(parts)
