"""The tables of rooms in docs/architecture.md: layers from pyproject.toml, purposes and imports from the code."""

import tomllib
from collections import defaultdict
from pathlib import Path

import grimp

from docs.generate.docstrings import words
from docs.generate.markdown import table

__all__ = ["PACKAGES", "layers", "tables"]

_ROOT = Path(__file__).resolve().parents[2]

PACKAGES = ("bank_node", "features", "aggregator", "simulator", "dags", "protocol")


def layers(package: str) -> list[str]:
    """The rooms of a package, the one that may import all others first; empty where pyproject.toml has none."""
    contracts = tomllib.loads((_ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    for contract in contracts:
        if contract["type"] == "layers" and contract["containers"] == [package]:
            return list(contract["layers"])
    return []


def tables() -> str:
    """A table for each package: its rooms in the order of the layers, else its modules by name."""
    graph = grimp.build_graph(*sorted(PACKAGES), cache_dir=None, exclude_type_checking_imports=True)
    used: dict[str, set[str]] = defaultdict(set)
    for module in graph.modules:
        used[_room(module)] |= {_room(other) for other in graph.find_modules_directly_imported_by(module)}
    parts = []
    for package in PACKAGES:
        order = layers(package)
        rooms = [name.strip() for line in order for name in line.split("|")] or _modules(package)
        rows = []
        for room in rooms:
            if room == "__main__":
                continue
            imports = used[f"{package}.{room}"] - {f"{package}.{room}", package}
            own = [other for other in rooms if f"{package}.{other}" in imports]
            foreign = sorted({name.split(".")[0] for name in imports} - {package})
            rows.append((f"`{room}`", _purpose(f"{package}.{room}"), ", ".join(own), ", ".join(foreign)))
        beside = "; `a | b` there: neither the other" if any("|" in line for line in order) else ""
        rule = f"A room may import those below it, by the layers in pyproject.toml{beside}"
        head = f"**{package}.** {rule}." if order else f"**{package}.** Modules by name; no circle among them."
        parts.append(f"{head}\n\n{table(('room', 'what it is', 'imports here', 'imports of others'), rows)}")
    return "\n".join(parts)


def _room(module: str) -> str:
    return ".".join(module.split(".")[:2])


def _modules(package: str) -> list[str]:
    folder = _ROOT / package
    names = [path.stem for path in folder.glob("*.py") if path.stem not in ("__init__", "__main__")]
    names += [path.parent.name for path in folder.glob("*/__init__.py")]
    return sorted(name for name in names if "_pb2" not in name)


def _purpose(module: str) -> str:
    """A module's first line.

    Raises:
        LookupError: it has none.
    """
    # A file that Airflow parses makes DAGs when it is imported: its text is enough.
    path = _ROOT.joinpath(*module.split("."))
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    first = source.read_text().lstrip("\n").split("\n", 1)[0].strip('"')
    if not first:
        raise LookupError(f"{module} has no docstring")
    return words(first)
