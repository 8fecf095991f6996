"""`__all__` is the public surface: what a module defines for others, and nothing that others can't rely on."""

import ast
import importlib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("protocol", "features", "bank_node", "aggregator", "dags", "simulator")


@cache
def modules() -> dict[str, ast.Module]:
    """Every module that is written by hand, parsed."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if "_pb2" not in path.name and path.name != "__main__.py":
                name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
                found[name] = ast.parse(path.read_text())
    return found


def exported(tree: ast.Module) -> list[str]:
    """The names in a module's `__all__`."""
    for statement in tree.body:
        if isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
                return list(ast.literal_eval(statement.value or ast.List([])))
    return []


def is_command(function: ast.stmt) -> bool:
    """Whether the command line calls a function, and no module does."""
    decorators = getattr(function, "decorator_list", ())
    calls = [each.func if isinstance(each, ast.Call) else each for each in decorators]
    return any(isinstance(call, ast.Attribute) and call.attr in ("command", "callback") for call in calls)


def defined(tree: ast.Module) -> set[str]:
    """Classes and functions without an underscore that a module defines, but for commands."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    named = {each.name for each in tree.body if isinstance(each, kinds) and not is_command(each)}
    return {name for name in named if not name.startswith("_")}


def imported_from(tree: ast.Module) -> set[tuple[str, str]]:
    """(module, name) of each name that a module takes from another one of ours, wherever it does."""
    statements = [each for each in ast.walk(tree) if isinstance(each, ast.ImportFrom) and each.level == 0]
    return {(each.module or "", alias.name) for each in statements for alias in each.names}


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_class_and_function_is_in_all(package: str) -> None:
    lost = {
        name: sorted(left)
        for name, tree in modules().items()
        if name.split(".")[0] == package and (left := defined(tree) - set(exported(tree)))
    }
    assert not lost, "give it an underscore, or put it into __all__"


@pytest.mark.parametrize("package", PACKAGES)
def test_a_module_takes_only_public_names_from_others(package: str) -> None:
    taken = {
        (name, source, what)
        for name, tree in modules().items()
        if name.split(".")[0] == package
        for source, what in imported_from(tree)
        if source in modules() and f"{source}.{what}" not in modules() and "_pb2" not in what
        if what not in exported(modules()[source])
    }
    assert not taken


@pytest.mark.parametrize("package", PACKAGES)
def test_what_is_in_all_is_there_once(package: str) -> None:
    for name, tree in modules().items():
        if name.split(".")[0] == package:
            names = exported(tree)
            assert len(names) == len(set(names)), name
            module = importlib.import_module(name)
            assert not [each for each in names if not hasattr(module, each)], name


@pytest.mark.parametrize("package", PACKAGES)
def test_what_a_package_brings_together_is_its_surface(package: str) -> None:
    for name, tree in modules().items():
        is_package = (ROOT / name.replace(".", "/") / "__init__.py").exists()
        if name.split(".")[0] == package and is_package and not defined(tree):
            brought = {what for source, what in imported_from(tree) if source.split(".")[0] in PACKAGES}
            assert {each for each in brought if not each.startswith("_")} == set(exported(tree)), name
