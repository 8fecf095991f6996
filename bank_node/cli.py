"""The ``bank-node`` command: thin; it parses, calls the pipeline, prints."""

import contextlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from bank_node import data_commands
from bank_node.files import storage_full
from features.identifiers import KINDS
from protocol.errors import ConfigError, CrossbankError, LocalError, RemoteError, StorageFull
from protocol.tables import print_table
from protocol.version import add_version

__all__ = ["app", "main"]

app = typer.Typer(
    help="The bank's side of a consortium: extract features, train together, evaluate, score. "
    "Nothing but ciphertexts, public keys, signatures and declared metadata leaves the bank.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
add_version(app, "bank-node")

Config = Annotated[Path, typer.Option("--config", help="The bank's YAML file.")]
Run = Annotated[str, typer.Option("--run", help="The run's id; default: the open run this bank is invited to.")]


def _say(result: Mapping[str, object]) -> None:
    typer.echo(json.dumps(result, indent=2))


def _run_id(config: Path, run: str) -> str:
    from bank_node import pipeline

    found = run or pipeline.open_run(config)
    if found is None:
        raise LocalError("no open run invites this bank; ask the operator, or name one with --run")
    return found


def _log(text: str) -> None:
    typer.echo(text, err=True)


Key = Annotated[Path, typer.Option(help="Where the bank's private key goes (0600); an existing one is kept.")]
Passphrase = Annotated[
    Path | None, typer.Option("--passphrase-file", help="0600 file; the key is kept encrypted under what it holds.")
]


@app.command()
def enroll(
    key: Key,
    bank: Annotated[str, typer.Option(help="The bank's id.")],
    out: Annotated[Path, typer.Option(help="Where the certificate request goes; send it to the operator.")],
    passphrase: Passphrase = None,
) -> None:
    """Make the bank's key and a certificate request. The private key never leaves the bank.

    Send the request to the operator, and read the fingerprint shown here to them when they call.
    """
    from bank_node.transport.identity import make_request
    from protocol.enrolment import request_fingerprint

    request = make_request(key, bank, passphrase)
    out.write_bytes(request)
    typer.echo(f"request      {out}\nfingerprint  {request_fingerprint(request)}")


@app.command()
def accept(
    certificate: Annotated[Path, typer.Argument(help="The certificate that the operator sent.")], config: Config
) -> None:
    """Install the certificate the operator issued, after checking that it is for our key, our id, of our CA."""
    from bank_node.config import load_config
    from bank_node.transport.identity import install_certificate

    loaded = load_config(config)
    install_certificate(certificate.read_bytes(), loaded.aggregator.files, loaded.bank_id)
    typer.echo(str(loaded.aggregator.certificate))


@app.command()
def renew(
    config: Config,
    key: Annotated[Path, typer.Option(help="Where the new private key goes; it must not exist yet.")],
    out: Annotated[Path, typer.Option(help="Where the renewal goes; send it to the operator.")],
    passphrase: Passphrase = None,
) -> None:
    """Make the bank's next key and a request for it, signed by the key in force: no phone call is needed.

    Then: operator `aggregator ca renew`, here point `key` and `certificate` at the new files.
    """
    import base64

    from bank_node.config import load_config
    from bank_node.transport.identity import Identity, make_request

    loaded = load_config(config)
    if key.exists():
        raise LocalError(f"{key} exists already; a renewal needs a new key")
    identity = Identity(loaded.aggregator.files, loaded.bank_id)
    request = make_request(key, loaded.bank_id, passphrase)
    document = {
        "request": request.decode(),
        "certificate": identity.certificate_pem.decode(),
        "signature": base64.b64encode(identity.sign(request)).decode(),
    }
    out.write_text(json.dumps(document))
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


app.command()(data_commands.profile)
app.command()(data_commands.extract)
app.command()(data_commands.quarantine)


@app.command()
def train(
    config: Config,
    run: Run = "",
    ignore_gate: Annotated[
        bool, typer.Option("--ignore-gate", help="Join although a rule of data quality may be broken; it is logged.")
    ] = False,
) -> None:
    """Join a run and train the consortium's model; repeat it after a failure, it goes on where it stopped.

    A bank whose feed breaks a rule of the quality gate does not join: see docs/data-quality.md.
    """
    from bank_node import pipeline

    run_id = _run_id(config, run)
    if ignore_gate:
        _log(f"run {run_id}: the quality gate is not asked, by --ignore-gate")
    else:
        pipeline.gate(config, run_id, log=_log)
    _say(pipeline.train(config, run_id, log=_log))


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
    """Score the newest rows with the current model, or the personalised one, and write alerts with reason codes."""
    from bank_node import pipeline

    _say(pipeline.score(config, log=_log))


@app.command()
def personalise(
    config: Config,
    trees: Annotated[int, typer.Option(help="Most trees to add; fewer where the bank's rows stop gaining.")] = 100,
    eta: Annotated[float, typer.Option(help="Shrinkage of the added trees: small steps away from the others.")] = 0.1,
    max_depth: Annotated[int, typer.Option(help="Depth of the added trees.")] = 4,
    until: Annotated[
        str,
        typer.Option(
            help="YYYY-MM-DD: train on rows before it, judge on rows after it plus the label delay. Default: where the "
            "rows end that the consortium's model was trained on; it can't be earlier."
        ),
    ] = "",
) -> None:
    """Fit the consortium's model to this bank: XGBoost adds trees to it from the bank's own rows. Nothing is sent.

    When it helps: your customers differ from the other banks' (channels, amounts, kinds of fraud), and you have some
    hundred frauds of your own. When it doesn't: with few frauds, the added trees learn chance. So both models are
    judged on your later rows, which neither has seen, by AUC-PR; the better one is kept, and with fewer than 10 frauds
    to judge by it is the consortium's.

    What it makes: work_dir/models/personal/model.json, a plain XGBoost model, if it is better, and report.json, always.
    To score with it set `scoring_model: personal` in the bank's configuration. After the next release run it again:
    until then scoring goes back to the consortium's model.

    Example: bank-node personalise --config bank.yaml --eta 0.05
    """
    import datetime as dt

    from bank_node import pipeline

    try:
        end = dt.datetime.fromisoformat(until) if until else None
    except ValueError as error:
        raise LocalError("--until must be a day such as 2026-03-01") from error
    _say(pipeline.personalise(config, trees=trees, eta=eta, max_depth=max_depth, until=end, log=_log))


@app.command()
def purge(
    config: Config,
    accounts: Annotated[
        Path | None,
        typer.Option(help="0600 file of account numbers, one a line. Not on the command line: others see it."),
    ] = None,
    since: Annotated[
        str, typer.Option(help="First day of a period to purge, YYYY-MM-DD; none: from the beginning.")
    ] = "",
    until: Annotated[str, typer.Option(help="Day after the period's last, YYYY-MM-DD.")] = "",
    reason: Annotated[str, typer.Option(help="For the record; name no customer.")] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say how many rows would go, and which models saw them; remove nothing.")
    ] = False,
    confirm: Annotated[
        int | None,
        typer.Option(min=0, help="Rows that --dry-run told: needed for more than purge_share of all rows."),
    ] = None,
) -> None:
    """Remove customers' or a period's rows everywhere at the bank, for good, and say which released models saw them.

    Without options it does what retention_days and the files in work_dir/purge_requests ask for. Each purge is recorded
    in work_dir/purges.jsonl. There is no way back: look first by --dry-run. A file in purge_requests that can't be used
    is refused by its name; the others are done, and the command ends with 2.
    """
    import datetime as dt

    from bank_node import pipeline

    try:
        days = [dt.date.fromisoformat(text) if text else None for text in (since, until)]
    except ValueError as error:
        raise LocalError("--since and --until must be days such as 2026-03-01") from error
    _say(
        pipeline.purge(
            config,
            accounts=accounts,
            since=days[0],
            until=days[1],
            reason=reason,
            dry_run=dry_run,
            confirm=confirm,
            log=_log,
        )
    )


@app.command(name="wipe-keys")
def wipe_keys(config: Config) -> None:
    """Wipe the keys of runs that ended while no process of this bank was there. Every step does this first, too."""
    from bank_node import pipeline

    _say(pipeline.wipe_keys(config, log=_log))


@app.command(name="hash")
def hash_identifiers(
    config: Config,
    column: Annotated[str, typer.Option(help=f"What they are: {', '.join(KINDS)}.")] = "payment_id",
) -> None:
    """The hashes of identifiers read from standard input, one a line: to find an alert's payment again."""
    import sys

    from bank_node.config import load_config
    from bank_node.dataset.feature_tables import identifier_keys
    from features.identifiers import hashed

    if column not in KINDS:
        raise LocalError(f"--column must be one of {', '.join(KINDS)}")
    key, _ = identifier_keys(load_config(config))
    names = [line.strip() for line in sys.stdin if line.strip()]
    for name, digest in zip(names, hashed(key, column, names), strict=True):
        typer.echo(f"{digest}\t{name}")


@app.command()
def outbox(
    config: Config,
    run: Annotated[str, typer.Option("--run", help="The run's id.")],
    kind: Annotated[str, typer.Option(help="Only this kind of message, such as Ciphertexts.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Show every message that left the bank in a run: when, what, how large, to whom, its digest.

    For the privacy officer. Ciphertexts have their parameters' fingerprint and the entropy of their bytes: 8 bits is
    noise; a table of numbers would be far below. Nothing can leave past this record: it is made where the bytes are.
    """
    import datetime as dt
    from dataclasses import asdict

    from rich.console import Console

    from bank_node.config import load_config
    from bank_node.transport.egress_log import read_outbox, summarise

    path = load_config(config).run_dir(run) / "outbox.jsonl"
    if not path.exists():
        raise LocalError(f"this bank has sent nothing in run {run}: there is no {path}")
    entries = [entry for entry in read_outbox(path) if kind in ("", entry.kind)]
    if as_json:
        for entry in entries:
            typer.echo(json.dumps(asdict(entry), sort_keys=True))
        return
    screen = Console()
    noise = [entry.entropy for entry in entries if entry.entropy is not None]
    typer.echo(f"what left for run {run}")
    rows = [(name, str(count), f"{size:,}") for name, (count, size) in sorted(summarise(entries).items())]
    print_table(screen, ("kind", "messages", "bytes"), rows, whole=("kind", "messages", "bytes"))
    if noise:
        screen.print(f"entropy of the ciphertexts' bytes: {min(noise):.3f} bits at least, of 8")
    heads = ("when (UTC)", "kind", "step", "bytes", "to", "SHA-256", "ciphertexts", "parameters", "entropy")
    lines = []
    for entry in entries:
        when = dt.datetime.fromtimestamp(entry.at, dt.UTC).strftime("%m-%d %H:%M:%S.%f")[:-3]
        cells = (str(entry.ciphertexts), entry.he_fingerprint, str(entry.entropy)) if entry.ciphertexts else ("",) * 3
        lines.append((when, entry.kind, entry.step, f"{entry.size:,}", entry.destination, entry.sha256[:16], *cells))
    print_table(screen, heads, lines, whole=heads)


@app.command()
def verify(config: Config, run: Annotated[str, typer.Option("--run", help="The run's id.")]) -> None:
    """Check a run again from the bank's own ledger: signatures, states, rosters, MAC results, the model's digest.

    It asks the node, if that answers, whether its audit log still has what banks have signed of it. Ends with 1 if
    anything does not hold.
    """
    from rich.console import Console

    from bank_node.config import load_config
    from bank_node.secure_aggregation.ledger_audit import verify_run
    from bank_node.transport.client import BankClient

    loaded = load_config(config)
    files = (loaded.run_dir(run), run, loaded.bank_id, loaded.aggregator.ca)
    not_compared = ""
    try:
        with contextlib.closing(BankClient(loaded.aggregator, loaded.bank_id, patience_seconds=3.0)) as client:
            client.audit_digest(1)
            findings = verify_run(*files, client.audit_digest)
    except (ConfigError, RemoteError) as error:
        not_compared = str(error)
        findings = verify_run(*files)
    typer.echo(f"run {run}, seen by bank {loaded.bank_id}")
    rows = [(finding.what, str(finding.count), finding.wrong or "holds") for finding in findings]
    print_table(Console(), ("checked", "records", "result"), rows, whole=("records",))
    if not_compared:
        typer.echo(f"the node's audit log was NOT compared with what banks signed of it: {not_compared}")
    if any(finding.wrong for finding in findings):
        raise typer.Exit(1)


def main() -> None:
    """Entry point: a known error is one line and exit code 2, a full disk 3, never a traceback."""
    from features.errors import DataError

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        app()
    except (CrossbankError, DataError) as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(3 if isinstance(error, StorageFull) else 2) from None
    except OSError as error:
        if not storage_full(error):
            raise
        typer.echo(f"error: no room left on the disk of {error.filename or 'this command'}", err=True)
        raise SystemExit(3) from None
