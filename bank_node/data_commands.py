"""Commands on the bank's own data, which `bank_node.cli` takes up. Thin; nothing is sent from here."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from protocol.errors import LocalError
from protocol.tables import print_table

if TYPE_CHECKING:
    from bank_node.config import BankConfig
    from features import DataContract
    from features.contract.mapping import Mapping
    from features.ingestion.profile.trial import Trial
    from features.ingestion.quarantine import SetAside

__all__ = ["TOO_MANY_QUARANTINED", "extract", "profile", "quarantine"]

TOO_MANY_QUARANTINED = 4
"""Exit code when more rows are set aside than the contract's quality gate lets pass."""

Config = Annotated[Path, typer.Option("--config", help="The bank's YAML file.")]


def profile(
    config: Config,
    out: Annotated[Path, typer.Option(help="Where the draft goes; an existing file is kept. The page goes beside it.")],
    try_: Annotated[
        bool,
        typer.Option("--try", help="Try the mapping on the first rows; one that is there is tried as it stands."),
    ] = False,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Look at the bank's own payments and labels, and draft the mapping file with why each column was chosen.

    It reads the first rows of `events`, and of `labels` if the configuration names them: files or tables. Beside the
    draft lies a page (.html) about what is in each column. Read both, decide each CHECK, and set confirmed to true.

    With --try it shows what extraction would keep, find repeated, and quarantine, by column and reason; edit the
    mapping and try again until that is right. Ends with 4 if more would be quarantined than the quality gate lets pass.
    """
    from bank_node.config import load_config
    from features import load_contract

    loaded = load_config(config)
    contract = load_contract(loaded.contract)
    if not (try_ and out.exists()):
        _draft(loaded, contract, out, open_)
    if try_:
        _try(loaded, contract, out)


def _draft(config: "BankConfig", contract: "DataContract", out: Path, open_: bool) -> None:
    from features.ingestion.profile import draft_mapping, profile_page

    if out.exists():
        raise LocalError(f"the draft {out} can't be written: it exists; --try tries it as it stands")
    draft = draft_mapping(config.events, contract, config.labels)
    page = out.with_suffix(".html")
    try:
        with out.open("x", encoding="utf-8") as stream:
            stream.write(draft.text)
        # What is in the columns is for whoever drafts, and for nobody else on the machine.
        with os.fdopen(os.open(page, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as stream:
            stream.write(profile_page(draft, contract))
    except OSError as error:
        raise LocalError(f"the draft {out} can't be written: {error.strerror}") from error
    for question in draft.open_questions:
        typer.echo(f"check  {question}")
    typer.echo(f"{out}\n{page}")
    if open_:
        typer.launch(str(page.resolve()))


def _try(config: "BankConfig", contract: "DataContract", path: Path) -> None:
    from features.contract.mapping import load_mapping
    from features.ingestion.profile.trial import tried
    from features.quality import quarantine_finding

    mapping = load_mapping(path, contract, draft=True)
    trial = tried(config.events, contract, mapping)
    _show(trial, mapping)
    if not mapping.confirmed:
        typer.echo(f"{path} is a draft: set confirmed to true when every CHECK in it is decided")
    finding = quarantine_finding(trial.rows, trial.quarantined, contract.quality)
    if not finding.good:
        typer.echo(f"error: {finding.words}", err=True)
        raise typer.Exit(TOO_MANY_QUARANTINED)


def _show(trial: "Trial", mapping: "Mapping") -> None:
    from rich.console import Console
    from rich.markup import escape

    from features.ingestion.advice import advice

    screen = Console()
    rows = f"the first {trial.rows:,} rows" if trial.more else f"all {trial.rows:,} rows"
    screen.print(
        f"{rows} of {escape(trial.where)}: {trial.kept:,} kept, {trial.repeated:,} repeated, {trial.quarantined:,} "
        f"quarantined ({trial.share:.1%})"
    )
    span = f" from {trial.first} to {trial.last} UTC" if trial.first else ""
    screen.print(f"kept: {trial.outgoing:,} outgoing, {trial.frauds:,} of them known frauds{span}")
    if not trial.faults:
        return
    heads = ("column", "reason", "rows", "first rows", "what would mend it")
    lines = []
    for fault in trial.faults:
        mend = advice(fault.column, fault.reason, mapping.columns.get(fault.column))
        first = ", ".join(str(number) for number in fault.first)
        lines.append((fault.column or "line", fault.reason, f"{fault.rows:,}", first, mend))
    screen.print("would be quarantined:")
    print_table(screen, heads, lines, whole=("column", "rows"))


def extract(config: Config) -> None:
    """Make the bank's feature table from its payments.

    Ends with 0 when it went well, 2 when a file or the configuration can't be used (the features of before stay), 3
    when the disk is full, and 4 when all was extracted that could be but more rows were quarantined than the contract's
    quality gate lets pass.
    """
    from bank_node import pipeline
    from features.errors import TooManyQuarantined

    try:
        typer.echo(json.dumps(pipeline.extract(config, log=_log), indent=2))
    except TooManyQuarantined as error:
        typer.echo(json.dumps(error.result, indent=2))
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(TOO_MANY_QUARANTINED) from None


def quarantine(
    config: Config,
    file: Annotated[str, typer.Option(help="Only this source file, as the list names it.")] = "",
    rows: Annotated[int, typer.Option(min=1, help="How many row numbers to show for each reason.")] = 5,
    values: Annotated[
        bool,
        typer.Option(
            "--values",
            help="Show the bank's own values too, read again from its files: PERSONAL DATA on this screen. Only of the "
            "columns at fault.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List the rows that the last extraction set aside: by file, column and reason, with counts and row numbers.

    Each reason comes with what in the mapping would mend it. Row numbers count the rows that can be read, from 1, the
    header left out. Without --values no value of the data is shown.
    """
    from dataclasses import asdict

    from bank_node.config import load_config
    from features import load_contract
    from features.contract.mapping import identity_mapping, load_mapping
    from features.ingestion.quarantine import set_aside
    from features.store.partitions import FeatureStore

    loaded = load_config(config)
    contract = load_contract(loaded.contract)
    mapping = load_mapping(loaded.mapping, contract, draft=True) if loaded.mapping else identity_mapping(contract)
    store = FeatureStore(loaded.store_dir)
    if not store.entries():
        raise LocalError(f"nothing was extracted into {store.root} yet; run `bank-node extract` first")
    groups = [group for group in set_aside(store, mapping, first=rows) if file in ("", group.source, group.name)]
    if file and not groups and not any(file == name for name in store.entries()):
        raise LocalError(f"no source file is called {file}; without --file all are listed")
    if as_json:
        for group in groups:
            typer.echo(json.dumps(asdict(group) | {"source": group.name}, sort_keys=True))
        return
    _list(groups, sum(int(entry["rows"]) for entry in store.entries().values()))
    if values:
        _values(loaded, contract, mapping, groups)


def _list(groups: "list[SetAside]", rows: int) -> None:
    from rich.console import Console

    screen = Console()
    bad = sum(group.rows for group in groups)
    screen.print(f"{bad:,} of {rows:,} rows are quarantined ({bad / rows if rows else 0:.1%})")
    if not groups:
        return
    heads = ("file", "column", "reason", "rows", "share", "first rows", "what would mend it")
    lines = []
    for group in groups:
        first = ", ".join(str(number) for number in group.first) + ", …" * (0 < len(group.first) < group.rows)
        share = f"{group.rows / group.of:.1%}"
        lines.append((group.name, group.column or "line", group.reason, f"{group.rows:,}", share, first, group.mend))
    print_table(screen, heads, lines, whole=("file", "column", "rows", "share"))


def _values(config: "BankConfig", contract: "DataContract", mapping: "Mapping", groups: "list[SetAside]") -> None:
    from rich.console import Console

    from features.ingestion.quarantine import values_set_aside

    screen = Console()
    for group in groups:
        source = config.labels if group.name.startswith("labels: ") else config.events
        if not isinstance(source, Path):
            raise LocalError(f"{source}: --values reads files; ask the database for the rows of that day")
        names, found = values_set_aside(source, group, contract, mapping)
        if found:
            screen.print(f"{group.name}: {group.reason}", markup=False)
            heads = ("row", *names)
            lines = [tuple("" if value is None else str(value) for value in row) for row in found]
            print_table(screen, heads, lines, whole=heads)


def _log(text: str) -> None:
    typer.echo(text, err=True)
