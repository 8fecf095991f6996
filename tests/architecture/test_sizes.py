"""How long functions and modules may be. What stands out is named here, with the reason why it is not cut."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("protocol", "features", "bank_node", "aggregator", "dags", "simulator", "docs")
MOST_LINES_OF_A_FUNCTION, MOST_LINES_OF_A_MODULE = 80, 600

#: Functions that may be longer: ``path:name``, and why.
LONG_FUNCTIONS: dict[str, str] = {
    "aggregator/cli.py:open_run": "typer reads a command's options from its signature, and a run has many",
}


def _modules() -> list[Path]:
    found = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    return sorted(path for path in found if "_pb2" not in path.name)


def long_functions(source: str, most: int = MOST_LINES_OF_A_FUNCTION) -> Iterator[tuple[str, int]]:
    """Names and lines of the functions, methods and closures in a module that are longer than that."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > most:
                yield node.name, lines


def test_no_function_is_too_long_but_those_named() -> None:
    found = {
        f"{path.relative_to(ROOT)}:{name}": lines
        for path in _modules()
        for name, lines in long_functions(path.read_text())
    }
    assert not {name: lines for name, lines in found.items() if name not in LONG_FUNCTIONS}
    assert not set(LONG_FUNCTIONS) - set(found), "an exception that is none any more"
    assert all(reason.strip() for reason in LONG_FUNCTIONS.values())


def test_no_module_is_too_long() -> None:
    lines = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in _modules()}
    assert len(lines) > 150
    assert not {name: count for name, count in lines.items() if count > MOST_LINES_OF_A_MODULE}


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_a_long_function_is_seen_wherever_it_stands(kind: str) -> None:
    body = "\n".join(f"            x{n} = {n}" for n in range(80))
    source = f"class A:\n    def outer(self):\n        {kind} inner():\n{body}\n"
    assert dict(long_functions(source)) == {"outer": 82, "inner": 81}
    assert not dict(long_functions(source, 82))
