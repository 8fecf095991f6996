"""The ``features`` command: shows, writes, compares and checks data contracts. Touches no data."""

from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from features.contract.compatibility import changes, check_version, required_level
from features.contract.schema import ColumnSpec, DataContract
from features.errors import ContractError, DataError
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


contract = typer.Typer(help="Show, export, compare and check contract files.", no_args_is_help=True)
app.add_typer(contract, name="contract")

File = Annotated[Path | None, typer.Argument(help="A contract file; default: the packaged one.")]


@contract.command()
def show(path: File = None) -> None:
    """Name, version, fingerprint, currency, label, columns with units and ranges, vocabularies, gate, features."""
    loaded = load_contract(path)
    typer.echo(f"{loaded.name} {loaded.version}\nfingerprint {loaded.fingerprint}\n{loaded.description}\n")
    typer.echo(
        f"currency: every amount is in {loaded.currency}, with {loaded.minor_unit_digits} decimal places. A bank's "
        f"mapping converts others by a table of rates: how many {loaded.currency} one of the other is worth that day.\n"
    )
    typer.echo(f"label: known {loaded.label.delay_days} days after the payment. {loaded.label.description}\n")
    typer.echo("columns:")
    for column in loaded.columns:
        kind = " ".join(filter(None, (column.type, _unit(column, loaded), "or null" if column.nullable else "")))
        words = [f"{kind}{'' if column.required else ', may be left out'}: {column.description}", *_limits(column)]
        typer.echo(f"  {column.name:20s} {' '.join(words)}")
    typer.echo("\nvocabularies:")
    for name, codes in loaded.vocabularies.items():
        used = ", ".join(column.name for column in loaded.columns if column.vocabulary == name) or "no column"
        typer.echo(f"  {name} (of {used}), {len(codes)} codes: {', '.join(codes)}")
    share = f"{loaded.quality.quarantined:.1%}"
    typer.echo(f"\nquality gate: at most {share} of the rows may be quarantined; see docs/data-quality.md\n")
    for feature in loaded.features:
        typer.echo(f"  {feature.name:34s} {feature.grid.kind:6s} {len(feature.grid.edges()):5d}  {feature.description}")


def _unit(column: ColumnSpec, loaded: DataContract) -> str | None:
    return f"in {loaded.currency}" if column.unit == "currency" else column.unit


def _limits(column: ColumnSpec) -> list[str]:
    """A column's range and vocabulary, in words."""
    words = []
    if column.above is not None:
        words.append(f"above {column.above:g}")
    if column.at_most is not None:
        words.append(f"at most {column.at_most:,.0f}")
    if column.allowed is not None:
        words.append(f"one of {', '.join(f'{value:g}' for value in column.allowed)}")
    if column.earliest is not None:
        words.append(f"from {column.earliest.isoformat(' ')}")
    if column.latest is not None:
        words.append(f"to {column.latest.isoformat(' ')}")
    if column.vocabulary is not None:
        words.append(f"codes of the vocabulary {column.vocabulary}")
    return [f"[{', '.join(words)}]"] if words else []


@contract.command()
def export(
    out: Annotated[Path, typer.Option(help="Where the file goes; an existing one is kept.")],
) -> None:
    """Write the packaged contract as a file, with its comments: to start one's own from, or to read.

    Change its name, currency and codes, keep the version's rule (see `features contract check --help`), and agree on it
    with the other banks: a run needs the same contract everywhere. A bank names the file as `contract` in its
    configuration.
    """
    text = resources.files("features").joinpath("contract/packaged/payments_v1.yaml").read_text(encoding="utf-8")
    try:
        with out.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except OSError as error:
        raise ContractError(f"The contract {out} can't be written: {error.strerror}.") from error
    typer.echo(str(out))


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
