"""Commands on the bank's own data, which `bank_node.cli` takes up. Thin; nothing is sent from here."""

import json
from pathlib import Path
from typing import Annotated

import typer

from protocol.errors import LocalError

__all__ = ["extract", "profile"]

Config = Annotated[Path, typer.Option("--config", help="The bank's YAML file.")]


def profile(
    config: Config,
    out: Annotated[Path, typer.Option(help="Where the draft goes; an existing file is kept.")],
) -> None:
    """Look at the bank's own payments and labels, and draft the mapping file with why each column was chosen.

    It reads the first rows of `events`, and of `labels` if the configuration names them: files or tables. Read the
    draft, decide each CHECK, and set confirmed to true.
    """
    from bank_node.config import load_config
    from features import load_contract
    from features.ingestion.profile import draft_mapping

    loaded = load_config(config)
    draft = draft_mapping(loaded.events, load_contract(loaded.contract), loaded.labels)
    try:
        with out.open("x", encoding="utf-8") as stream:
            stream.write(draft.text)
    except OSError as error:
        raise LocalError(f"the draft {out} can't be written: {error.strerror}") from error
    for question in draft.open_questions:
        typer.echo(f"check  {question}")
    typer.echo(str(out))


def extract(config: Config) -> None:
    """Make the bank's feature table from its payments."""
    from bank_node import pipeline

    typer.echo(json.dumps(pipeline.extract(config, log=_log), indent=2))


def _log(text: str) -> None:
    typer.echo(text, err=True)
