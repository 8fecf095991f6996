"""The reference of every command and option, from the typer applications. It runs no command."""

import inspect
import re
from collections.abc import Iterator
from typing import Any

import typer

from docs.generate.docstrings import words
from docs.generate.markdown import table

__all__ = ["EXIT_CODES", "applications", "commands", "reference"]

EXIT_CODES = {
    0: "done",
    1: "`verify` and `audit --verify`: something does not hold; also an unexpected fault, with a traceback to report",
    2: "a known error, told in one line that begins with `error:` ([errors](errors.md)); or a wrong option",
    130: "interrupted (`simulator`)",
}


def applications() -> dict[str, typer.Typer]:
    """The commands that the package installs, by name."""
    from aggregator.cli import app as aggregator
    from bank_node.cli import app as bank_node
    from features.cli import app as features
    from simulator.cli import app as simulator

    return {"bank-node": bank_node, "aggregator": aggregator, "features": features, "simulator": simulator}


def commands(name: str, app: typer.Typer) -> Iterator[tuple[str, Any]]:
    """Every command under its whole name; hidden ones, which are not for people, left out."""
    yield from _walk(name, typer.main.get_command(app))


def _walk(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    inner = getattr(command, "commands", None)
    if inner is None:
        yield name, command
        return
    for word, each in inner.items():
        if not each.hidden:
            yield from _walk(f"{name} {word}", each)


def reference() -> str:
    """All commands with their options.

    Raises:
        LookupError: a command or an option has no help text; names it.
    """
    parts = []
    for name, app in applications().items():
        parts.append(f"## {name}\n\n{words(app.info.help or '')}\n")
        for whole, command in commands(name, app):
            parts.append(_command(whole, command))
    parts.append("## Exit codes\n\n" + table(("code", "meaning"), [(code, what) for code, what in EXIT_CODES.items()]))
    return "\n".join(parts)


def _command(name: str, command: Any) -> str:
    if not command.help:
        raise LookupError(f"`{name}` has no help text: give its function a docstring")
    told = [words(part) for part in re.split(r"\n\s*\n", inspect.cleandoc(command.help))]
    rows = [_option(name, param) for param in command.params if param.name not in ("help", "install_completion")]
    text = f"### {name}\n\n" + "\n\n".join(told) + "\n"
    return text if not rows else text + "\n" + table(("option", "default", "meaning"), rows)


def _option(command: str, param: Any) -> tuple[str, str, str]:
    positional = param.param_type_name == "argument"
    names = [param.name.upper()] if positional else [*param.opts, *param.secondary_opts]
    written = ", ".join(f"`{name}`" for name in names)
    if not param.help:
        raise LookupError(f"`{command}`: {param.name} has no help text")
    if param.required:
        default = "**required**"
    elif param.default in (None, "", False, ()):
        default = ""
    else:
        default = f"`{str(param.default).lower() if isinstance(param.default, bool) else param.default}`"
    return written, default, words(param.help)
