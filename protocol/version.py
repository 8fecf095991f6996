"""The ``--version`` of every command: the installed package's, and the wire protocol's. It compares nothing."""

from importlib.metadata import PackageNotFoundError, version

import typer

__all__ = ["WIRE_VERSION", "add_version", "version_line"]

WIRE_VERSION = 1
"""Of docs/protocol.md; parties of one run must have the same."""


def version_line(command: str) -> str:
    """One line: command, package version, protocol version."""
    try:
        installed = version("crossbank")
    except PackageNotFoundError:
        installed = "(not installed)"
    return f"{command} {installed}, protocol {WIRE_VERSION}"


def add_version(app: typer.Typer, command: str) -> None:
    """Give an app the option ``--version``, which prints `version_line` and ends."""

    def show(wanted: bool) -> None:
        if wanted:
            typer.echo(version_line(command))
            raise typer.Exit

    @app.callback()
    def options(
        version: bool = typer.Option(
            False, "--version", callback=show, is_eager=True, help="Show the version and end."
        ),
    ) -> None:
        pass
