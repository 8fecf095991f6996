"""The ``features`` command: shows, compares and checks data contracts. Touches no data."""

from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from features.contract.compatibility import changes, check_version, required_level
from features.errors import DataError
from features.loading import load_contract

__all__ = ["app", "main"]

app = typer.Typer(help="Data contracts.", no_args_is_help=True, pretty_exceptions_enable=False)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"features {version('crossbank')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and end.")
    ] = False,
) -> None:
    pass


contract = typer.Typer(help="Show, compare and check contract files.", no_args_is_help=True)
app.add_typer(contract, name="contract")

File = Annotated[Path | None, typer.Argument(help="A contract file; default: the packaged one.")]


@contract.command()
def show(path: File = None) -> None:
    """Name, version, fingerprint, label, columns with their units and codes, features."""
    loaded = load_contract(path)
    typer.echo(f"{loaded.name} {loaded.version}\nfingerprint {loaded.fingerprint}\n{loaded.description}\n")
    typer.echo(f"label: known {loaded.label.delay_days} days after the payment. {loaded.label.description}\n")
    for column in loaded.columns:
        codes = f" [{', '.join(loaded.codes(column.name))}]" if column.vocabulary else ""
        kind = " ".join(filter(None, (column.type, column.unit, "or null" if column.nullable else "")))
        typer.echo(f"  {column.name:20s} {kind}: {column.description}{codes}")
    typer.echo("")
    for feature in loaded.features:
        typer.echo(f"  {feature.name:34s} {feature.grid.kind:6s} {len(feature.grid.edges()):5d}  {feature.description}")


@contract.command()
def diff(
    old: Annotated[Path, typer.Argument(help="The contract of before.")],
    new: Annotated[Path, typer.Argument(help="The contract of after.")],
) -> None:
    """What differs, and how great a step of the version each change needs."""
    before, after = load_contract(old), load_contract(new)
    for change in changes(before, after):
        typer.echo(f"{change.level:5s}  {change.place}: {change.what}")
    typer.echo(f"{before.version} to {after.version}: needs a {required_level(before, after)} step")


@contract.command()
def check(
    path: Annotated[Path, typer.Argument(help="The contract to check.")],
    against: Annotated[Path | None, typer.Option(help="The version before it.")] = None,
) -> None:
    """Whether a contract file is valid and, against the version before, whether its version tells what changed."""
    loaded = load_contract(path)
    if against is not None:
        level = check_version(load_contract(against), loaded)
        typer.echo(f"{loaded.name} {loaded.version}: a {level} change")
    typer.echo(f"{loaded.name} {loaded.version}: valid, fingerprint {loaded.fingerprint}")


def main() -> None:
    """Entry point: a known error is one line and exit code 2, never a traceback."""
    try:
        app()
    except DataError as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(2) from None
