"""The ``aggregator`` command: thin; it parses, calls, prints."""

import json
import logging
import signal
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from protocol.errors import ConfigError, CrossbankError
from protocol.process import prepared_process
from protocol.tables import print_table
from protocol.version import add_version

__all__ = ["app", "main"]

app = typer.Typer(
    help="The neutral consortium node: adds ciphertexts, relays keys, keeps runs. It can't decrypt anything.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
ca_app = typer.Typer(help="The consortium's certificate authority.", no_args_is_help=True)
app.add_typer(ca_app, name="ca")
add_version(app, "aggregator")
screen = Console()

OperatorConfigOption = Annotated[
    Path, typer.Option("--config", help="Operator's YAML file: address, ca, certificate, key.")
]

RunId = Annotated[str, typer.Argument(help="The run's id, as `aggregator runs` shows it.")]


@app.command()
def serve(config: Annotated[Path, typer.Option(help="The node's YAML file; see docs/operations.md.")]) -> None:
    """Run the node until it is told to stop (SIGTERM or Ctrl-C)."""
    from aggregator.config import load_config
    from aggregator.rpc.handshakes import record_failed_handshakes
    from aggregator.server import AggregatorServer

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    server = AggregatorServer(load_config(config))
    record_failed_handshakes(server.audit)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: server.stop())
    server.start()
    with prepared_process():
        server.wait()


@app.command("open-run")
def open_run(
    config: Annotated[
        Path,
        typer.Option(
            help="Operator's YAML file. Its section `run`, which the DAG takes too, says what the run is like; options "
            "replace its keys."
        ),
    ],
    bank: Annotated[list[str] | None, typer.Option(help="An invited bank's id; repeat it.")] = None,
    contract_fingerprint: Annotated[str | None, typer.Option(help="From `bank-node contract`.")] = None,
    params: Annotated[
        Path | None,
        typer.Option(
            help="Training parameters, YAML, XGBoost's names and, for what it leaves out, XGBoost's defaults. Without "
            "it, and without `params` in the section: those that suit rare frauds, see docs/boosting.md."
        ),
    ] = None,
    rounds: Annotated[int | None, typer.Option(help="Trees, in place of the parameters' n_estimators.")] = None,
    train_until: Annotated[
        str | None, typer.Option(help="ISO date: train on rows before it, evaluate after it plus the label delay.")
    ] = None,
    validate_from: Annotated[
        str | None,
        typer.Option(
            help="ISO date: train on rows before it; those from it to --train-until judge when to stop, for "
            "early_stopping_rounds."
        ),
    ] = None,
    data_until: Annotated[
        str | None, typer.Option(help="ISO date up to which banks should have payments; else no freshness is judged.")
    ] = None,
    weight_column: Annotated[
        str | None,
        typer.Option(help="What rows weigh: a feature of the contract, or a column of each bank's row_weights."),
    ] = None,
    tune: Annotated[
        Path | None,
        typer.Option(
            help="Search among parameters: a YAML file with `sets` and `rungs`, see docs/tuning.md. It needs "
            "--validate-from; the run has as many rounds as the search grows trees."
        ),
    ] = None,
    alert_budget: Annotated[
        float | None, typer.Option(help="Share of rows by which the models are judged (default: the contract's).")
    ] = None,
    title: Annotated[str | None, typer.Option(help="What the run is called on the page and in lists.")] = None,
    enrol_seconds: Annotated[
        int | None, typer.Option(help="How long the banks may take to join (default 3600).")
    ] = None,
    step_seconds: Annotated[
        int | None,
        typer.Option(help="A bank that does not answer a secure sum for so long is dropped (default 600)."),
    ] = None,
    pause_seconds: Annotated[
        int | None,
        typer.Option(help="How long a run waits when fewer than the minimum answer, before it ends (default 3600)."),
    ] = None,
    minimum_roster: Annotated[
        int | None, typer.Option(help="Start, and go on, with at least so many banks (default 3).")
    ] = None,
    two_bank: Annotated[
        bool,
        typer.Option(
            "--two-bank",
            help="Allow a run of two banks. It gives up what the secure sum hides: each bank can subtract its own "
            "numbers from the total and has the other's histograms. Both banks must allow it in their configuration.",
        ),
    ] = False,
    ca_folder: Annotated[
        Path | None, typer.Option(help="The CA's folder: refuse banks that it has certified no key of, in force.")
    ] = None,
) -> None:
    """Open a run and print its id."""
    from aggregator.config import load_run_section
    from aggregator.operator.request import run_request
    from aggregator.pki.ca import check_certified

    if two_bank and minimum_roster not in (None, 2):
        raise ConfigError(f"--two-bank does not go with --minimum-roster {minimum_roster}")
    options = {
        "title": title,
        "roster": bank or None,
        "contract_fingerprint": contract_fingerprint,
        "train_until": train_until,
        "validate_from": validate_from,
        "data_until": data_until,
        "weight_column": weight_column,
        "alert_budget": alert_budget,
        "enrol_seconds": enrol_seconds,
        "step_seconds": step_seconds,
        "pause_seconds": pause_seconds,
        "minimum_roster": 2 if two_bank else minimum_roster,
    }
    request = run_request(load_run_section(config), options, params=params, tune=tune, rounds=rounds)
    if ca_folder is not None:
        check_certified(ca_folder, request.roster)
    with _client(config) as client:
        run_id = client.open_run(request.settings)
        for warning in client.get_run(run_id).warnings:
            typer.echo(warning, err=True)
    typer.echo(run_id)


@app.command()
def runs(
    config: OperatorConfigOption, as_json: Annotated[bool, typer.Option("--json", help="One JSON list.")] = False
) -> None:
    """List the runs, newest first."""
    from dataclasses import asdict

    with _client(config) as client:
        views = client.list_runs()
    if as_json:
        typer.echo(json.dumps([asdict(v) for v in views], indent=2))
        return
    rows = [
        (
            v.run_id,
            v.settings.title,
            v.phase,
            f"{len(v.joined)}/{len(v.roster)}",
            f"{v.rounds_done}/{v.rounds_total}",
            f"{v.bytes_received / 1e6:.1f} MB",
            v.reason,
        )
        for v in views
    ]
    heads = ("run", "title", "phase", "banks", "rounds", "received", "reason")
    print_table(screen, heads, rows, whole=("run", "phase", "banks", "rounds", "received"))


@app.command()
def show(run_id: RunId, config: OperatorConfigOption) -> None:
    """Show one run's history."""
    with _client(config) as client:
        view = client.get_run(run_id)
    typer.echo(f"{view.run_id}: {view.phase} {view.reason}".rstrip())
    for event in view.events:
        typer.echo(f"  {event.seq:4d} {event.bank or '-':16s} {event.text}")


@app.command()
def abort(
    run_id: RunId,
    config: OperatorConfigOption,
    reason: Annotated[str, typer.Option(help="Told to all banks, and kept.")] = "the operator ended it",
) -> None:
    """End a run; nothing of it will be released."""
    with _client(config) as client:
        typer.echo(client.abort_run(run_id, reason).phase)


@app.command()
def audit(
    config: Annotated[Path, typer.Option(help="The node's YAML file; its database is read directly.")],
    since: Annotated[str, typer.Option(help="ISO 8601 time, UTC; only later records.")] = "",
    verify: Annotated[
        bool, typer.Option("--verify", help="Check its digests, and its end by what banks signed; exit 1 if broken.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Show the audit log: refused connections, certificates, actions and payloads; or check that it is whole."""
    import datetime as dt
    from dataclasses import asdict

    from aggregator.config import load_config
    from aggregator.persistence.audit import AuditLog
    from aggregator.persistence.store import Store

    store = Store(load_config(config).store)
    log = AuditLog(store.engine)
    if verify:
        whole, wrong = log.verify()
        signed = store.audit_heads()
        typer.echo(f"{whole} records hold together" + (f"; {wrong}" if wrong else ""))
        cut = log.anchored(signed)
        typer.echo(f"{len(signed)} ends of it that banks signed: " + (cut or "it holds them all"))
        raise SystemExit(1 if wrong or cut else 0)
    start = dt.datetime.fromisoformat(since).replace(tzinfo=dt.UTC).timestamp() if since else 0.0
    records = log.records(start)
    if as_json:
        for record in records:
            typer.echo(json.dumps(asdict(record), sort_keys=True))
        return
    rows = []
    for r in records:
        when = dt.datetime.fromtimestamp(r.at, dt.UTC).strftime("%Y-%m-%d %H:%M:%S")
        more = f" (and {r.suppressed} like it before)" if r.suppressed else ""
        rows.append((when, r.kind, r.identity, r.serial, r.peer, r.run_id, r.detail + more))
    heads = ("when (UTC)", "what", "who", "certificate", "from", "run", "why")
    print_table(screen, heads, rows, whole=("when (UTC)", "who", "certificate", "from", "run"))


CaFolder = Annotated[Path, typer.Argument(help="The CA's folder.")]
Passphrase = Annotated[Path | None, typer.Option("--passphrase-file", help="0600 file with the CA key's passphrase.")]


@ca_app.command("init")
def ca_init(
    folder: Annotated[Path, typer.Argument(help="Where the CA and the node's own certificate go.")],
    host: Annotated[list[str] | None, typer.Option(help="Names or addresses banks dial; repeat.")] = None,
    passphrase: Passphrase = None,
) -> None:
    """Make the consortium's CA, an empty revocation list, and the node's own key and certificate.

    Keep the folder off the node if you can: the node needs ca.pem, crl.pem, aggregator.pem and aggregator.key.
    A CA that is there already is left alone; `aggregator ca node` issues the node's certificate anew.
    """
    from aggregator.pki.ca import create_ca, issue_server_certificate

    there = [name for name in ("ca.pem", "ca.key", "aggregator.pem") if (folder / name).exists()]
    if there:
        raise ConfigError(
            f"{folder} has a CA already ({', '.join(there)}); nothing was changed. To issue the node's certificate "
            f"anew, with other host names or for longer: `aggregator ca node {folder} --host NAME`"
        )
    folder.mkdir(parents=True, exist_ok=True)
    create_ca(folder, passphrase)
    issue_server_certificate(folder, tuple(host or ("localhost", "127.0.0.1")), passphrase)
    typer.echo(f"CA certificate: {folder / 'ca.pem'}")


@ca_app.command("node")
def ca_node(
    folder: CaFolder,
    host: Annotated[
        list[str] | None,
        typer.Option(help="Names or addresses banks dial; repeat. Default: those of the one in force."),
    ] = None,
    passphrase: Passphrase = None,
) -> None:
    """Issue the node's certificate anew: before it runs out, or for other host names. Its key in the folder is kept.

    Copy aggregator.pem, and aggregator.key if it is new, to the node, which takes them up without a restart.
    """
    from aggregator.pki.ca import certified_hosts, issue_server_certificate

    before = certified_hosts(folder / "aggregator.pem")
    hosts = tuple(host or before)
    if not hosts:
        raise ConfigError(f"{folder} has no certificate of the node to take host names from; give them by --host")
    issue_server_certificate(folder, hosts, passphrase)
    typer.echo(
        f"{folder / 'aggregator.pem'}\nfor {', '.join(hosts)}" + (f"; before for {', '.join(before)}" if before else "")
    )


@ca_app.command("approve")
def ca_approve(
    folder: CaFolder,
    request: Annotated[Path, typer.Argument(help="The certificate request (PEM) that the party sent.")],
    bank: Annotated[str, typer.Option("--bank", "--identity", help="The id to certify.")],
    fingerprint: Annotated[
        str, typer.Option(help="What the party read out to you over the phone; asked for if not given.")
    ] = "",
    role: Annotated[str, typer.Option(help="bank or operator.")] = "bank",
    out: Annotated[Path, typer.Option(help="Where the certificate goes; send it to the party.")] = Path(
        "certificate.pem"
    ),
    passphrase: Passphrase = None,
) -> None:
    """Sign a party's request, once the fingerprint they read out matches it.

    Call the bank on a number you know; `bank-node enroll` has shown it the same fingerprint.
    """
    from aggregator.pki.ca import request_identity, sign_request
    from protocol.enrolment import request_fingerprint

    pem = request.read_bytes()
    expected = request_fingerprint(pem)
    asked = request_identity(pem)
    if asked != bank:
        raise ConfigError(f"{request} asks for the id {asked}, not {bank}; nothing was signed")
    if not fingerprint:
        typer.echo(f"Ask {bank} to read out the fingerprint that `bank-node enroll` showed, and type it here.")
        fingerprint = typer.prompt("fingerprint")
    if "".join(fingerprint.lower().split()) != expected.replace(" ", ""):
        raise ConfigError(f"the fingerprint does not match {request}: this is not the request that {bank} made")
    out.write_bytes(sign_request(folder, pem, bank, role, passphrase=passphrase))
    typer.echo(str(out))


@ca_app.command("renew")
def ca_renew(
    folder: CaFolder,
    request: Annotated[Path, typer.Argument(help="The renewal (JSON) that `bank-node renew` made.")],
    out: Annotated[Path, typer.Option(help="Where the new certificate goes.")] = Path("certificate.pem"),
    passphrase: Passphrase = None,
) -> None:
    """Sign a party's next key; its certificate in force vouches for it, so no phone call is needed."""
    import base64

    from aggregator.pki.ca import sign_renewal

    try:
        document = json.loads(request.read_text())
        parts = (
            document["request"].encode(),
            document["certificate"].encode(),
            base64.b64decode(document["signature"]),
        )
    except (ValueError, KeyError, AttributeError) as error:
        raise ConfigError(f"{request} is not a renewal made by `bank-node renew`") from error
    out.write_bytes(sign_renewal(folder, *parts, passphrase=passphrase))
    typer.echo(str(out))


@ca_app.command("list")
def ca_list(folder: CaFolder) -> None:
    """List all certificates the CA has signed."""
    from aggregator.pki.ca import issued_certificates

    rows = [
        (c.identity, c.role, c.serial, c.not_after[:10], c.revoked[:19], c.reason) for c in issued_certificates(folder)
    ]
    heads = ("id", "role", "serial", "until", "revoked", "why")
    print_table(screen, heads, rows, whole=("id", "role", "serial", "until", "revoked"))


@ca_app.command("revoke")
def ca_revoke(
    folder: CaFolder,
    who: Annotated[str, typer.Argument(help="A party's id (all its certificates) or one serial number.")],
    reason: Annotated[str, typer.Option(help="Why; for the list and the audit.")],
    passphrase: Passphrase = None,
) -> None:
    """Revoke certificates and sign a new list; copy crl.pem to the node, which takes it up within a second."""
    from aggregator.pki.ca import revoke

    for c in revoke(folder, who, reason, passphrase=passphrase):
        typer.echo(f"revoked {c.identity} {c.serial}")


@ca_app.command("crl")
def ca_crl(
    folder: CaFolder,
    days: Annotated[int, typer.Option(min=1, help="For how long banks accept the list.")] = 90,
    passphrase: Passphrase = None,
) -> None:
    """Sign the revocation list anew; do so before it runs out, since banks refuse an old one."""
    from aggregator.pki.ca import write_crl

    typer.echo(str(write_crl(folder, days=days, passphrase=passphrase)))


@ca_app.command("operator")
def ca_operator(
    folder: CaFolder,
    identity: Annotated[str, typer.Option(help="The operator's id.")] = "operator",
    again: Annotated[
        bool, typer.Option("--again", help="Replace a certificate that is there; its key is kept.")
    ] = False,
    passphrase: Passphrase = None,
) -> None:
    """Make an operator's key and certificate in the CA's folder."""
    from aggregator.pki.ca import make_key_and_request, sign_request

    if (folder / f"{identity}.pem").exists() and not again:
        raise ConfigError(f"{folder / identity}.pem is there already; nothing was changed. --again replaces it")
    request = make_key_and_request(folder / f"{identity}.key", identity, "operator")
    (folder / f"{identity}.pem").write_bytes(sign_request(folder, request, identity, "operator", passphrase=passphrase))
    typer.echo(str(folder / f"{identity}.pem"))


def _client(config: Path):  # type: ignore[no-untyped-def]
    from aggregator.config import load_operator_config
    from aggregator.operator.client import OperatorClient
    from protocol.channel import TlsFiles

    loaded = load_operator_config(config)
    files = TlsFiles(
        ca=loaded.ca, certificate=loaded.certificate, key=loaded.key, passphrase=loaded.key_passphrase_file
    )
    return OperatorClient(loaded.address, files)


def main() -> None:
    """Entry point: a known error is one line and exit code 2, never a traceback."""
    try:
        app()
    except CrossbankError as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(2) from None
