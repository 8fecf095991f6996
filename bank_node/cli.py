"""The ``bank-node`` command: thin; it parses, calls the pipeline, prints."""

import json
import logging
from pathlib import Path
from typing import Annotated

import typer

from protocol.errors import CrossbankError, LocalError

__all__ = ["app", "main"]

app = typer.Typer(
    help="The bank's side of a consortium: extract features, train together, evaluate, score. "
    "Nothing but ciphertexts, public keys, signatures and declared metadata leaves the bank.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

Config = Annotated[Path, typer.Option("--config", help="The bank's YAML file.")]
Run = Annotated[str, typer.Option("--run", help="The run's id; default: the open run this bank is invited to.")]


def _say(result: dict[str, object]) -> None:
    typer.echo(json.dumps(result, indent=2))


def _run_id(config: Path, run: str) -> str:
    from bank_node import pipeline

    found = run or pipeline.open_run(config)
    if found is None:
        raise LocalError("no open run invites this bank; ask the operator, or name one with --run")
    return found


def _log(text: str) -> None:
    typer.echo(text, err=True)


@app.command()
def enroll(
    key: Annotated[Path, typer.Option(help="Where the bank's private key goes (0600); an existing one is kept.")],
    bank: Annotated[str, typer.Option(help="The bank's id.")],
    out: Annotated[Path, typer.Option(help="Where the certificate request goes; send it to the operator.")],
) -> None:
    """Make the bank's key and a certificate request. The private key never leaves the bank."""
    from bank_node.identity import make_request

    out.write_bytes(make_request(key, bank))
    typer.echo(str(out))


@app.command()
def contract(
    path: Annotated[Path | None, typer.Argument(help="A contract file; default: the packaged one.")] = None,
) -> None:
    """Show the data contract's name, version, fingerprint and features."""
    from features import load_contract

    loaded = load_contract(path)
    typer.echo(f"{loaded.name} {loaded.version}\nfingerprint {loaded.fingerprint}")
    for feature in loaded.features:
        typer.echo(f"  {feature.name:34s} {feature.description}")


@app.command()
def extract(config: Config) -> None:
    """Make the bank's feature table from its payments."""
    from bank_node import pipeline

    _say(pipeline.extract(config, log=_log))


@app.command()
def train(config: Config, run: Run = "") -> None:
    """Join a run and train the consortium's model; repeat it after a failure, it goes on where it stopped."""
    from bank_node import pipeline

    _say(pipeline.train(config, _run_id(config, run), log=_log))


@app.command()
def evaluate(config: Config, run: Run = "") -> None:
    """Evaluate the trained model: the whole consortium by secure sum, our rows, and our local champion."""
    from bank_node import pipeline

    _say(pipeline.evaluate(config, _run_id(config, run), log=_log))


@app.command()
def register(config: Config, run: Run = "") -> None:
    """Vote for the model; once all banks have, it becomes the bank's current one."""
    from bank_node import pipeline

    _say(pipeline.register(config, _run_id(config, run), log=_log))


@app.command()
def score(config: Config) -> None:
    """Score the newest rows with the current model and write alerts with reason codes."""
    from bank_node import pipeline

    _say(pipeline.score(config, log=_log))


def main() -> None:
    """Entry point: a known error is one line and exit code 2, never a traceback."""
    from features.errors import DataError

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        app()
    except (CrossbankError, DataError) as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(2) from None
