"""Checks a run afterwards from the bank's own ledger: signatures, states, rosters, MACs, the model. Needs no secret.

`bank-node verify` prints what this finds. It trusts the consortium's CA and the ledger's own MAC results; everything
that other banks said is checked against their signatures again.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from bank_node.secure_aggregation.consistency import check_reports, check_statements
from bank_node.secure_aggregation.ledger import read_records
from protocol.errors import CrossbankError, LocalError, ProtocolViolation
from protocol.he_parameters import HE_FINGERPRINT
from protocol.masks import roster_digest
from protocol.messages import KeyAnnouncement, PhaseReport, Statement, StepHeader, SumHead
from protocol.run_state import Phase
from protocol.statements import announcement_bytes
from protocol.steps import Point

__all__ = ["Finding", "check_votes", "published_metrics", "verify_run", "vote_evidence"]

#: What ledgers have of the node's audit log from before it told its end.
_NO_AUDIT = (0, "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was checked: `wrong` is empty when it holds."""

    what: str
    count: int
    wrong: str = ""


@dataclass(slots=True, kw_only=True)
class _Run:
    run_id: str
    bank: str
    ca: x509.Certificate
    keys: dict[str, Ed25519PublicKey]
    rosters: dict[int, tuple[str, ...]]


def verify_run(
    run_dir: Path, run_id: str, bank: str, ca_path: Path, audit_digest: Callable[[int], str] | None = None
) -> list[Finding]:
    """Everything that can be checked of a run, in the order it happened; stops at nothing.

    Args:
        run_dir: the bank's folder of the run, with ``ledger.jsonl`` and, once trained, ``model.json``.
        run_id: the run.
        bank: our id.
        ca_path: the consortium CA's certificate.
        audit_digest: asks the node for the digest of its audit log's n-th record now, empty if it has not so many; None
            to compare only what banks have signed with each other.

    Raises:
        LocalError: there is no ledger, or it does not parse.
    """
    records = read_records(run_dir / "ledger.jsonl")
    if not records:
        raise LocalError(f"run {run_id}: bank {bank} has no ledger in {run_dir}")
    run = _Run(run_id=run_id, bank=bank, ca=x509.load_pem_x509_certificate(ca_path.read_bytes()), keys={}, rosters={})
    checks = {
        "rosters only shrink": _rosters,
        "run keys are signed by certified banks": _peers,
        "every sum's MAC and witness held": _macs,
        "every bank signed the same before each sum": _statements,
        "states follow from one sum to the next": _states,
        "every bank signed the same at each phase's end": _reports,
        "the model is the one that all banks reported": lambda r, rec: _model(r, rec, run_dir),
        "the node's audit log only grew": lambda r, rec: _audit_log(rec, audit_digest),
        "no failure was noted": _failures,
    }
    findings = []
    for what, check in checks.items():
        count, wrong = 0, ""
        try:
            for _ in check(run, records):
                count += 1
        except (CrossbankError, KeyError, ValueError, TypeError) as error:
            wrong = str(error) if isinstance(error, CrossbankError) else f"a record is damaged ({type(error).__name__})"
        findings.append(Finding(what=what, count=count, wrong=wrong))
    return findings


def vote_evidence(run_dir: Path) -> list[dict[str, Any]]:
    """The ledger's records that show who signed what: rosters, the last run keys, the published metrics, the votes.

    Returns:
        None of them before the vote.

    Raises:
        LocalError: the ledger does not parse.
    """
    records = read_records(run_dir / "ledger.jsonl")
    metrics, votes = (
        [record for record in _of(records, "report") if record["phase"] == phase][-1:]
        for phase in (Phase.EVALUATING, Phase.VOTING)
    )
    return [*_of(records, "roster"), *_of(records, "peers")[-1:], *metrics, *votes] if votes else []


def published_metrics(evidence: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The metrics that all banks signed at the evaluation's end; empty where there were none.

    Args:
        evidence: of `vote_evidence`, which `check_votes` has found to be signed.

    Raises:
        LocalError: they are none.
    """
    for record in evidence:
        if record["kind"] == "report" and record["phase"] == Phase.EVALUATING:
            try:
                found = json.loads(record["reports"][0]["metrics"] or "{}")
            except (ValueError, KeyError, IndexError, TypeError) as error:
                raise LocalError("the record of a release has damaged metrics; register its run again") from error
            return dict(found)
    return {}


def check_votes(evidence: Sequence[Mapping[str, Any]], run_id: str, bank: str, ca_path: Path) -> str:
    """The digest that every bank of a run voted for, once each vote is found to be signed by its certified bank.

    Args:
        evidence: of `vote_evidence`.
        run_id: the run.
        bank: our id.
        ca_path: the consortium CA's certificate.

    Raises:
        ProtocolViolation: a vote is missing, not its bank's, or about something else.
        LocalError: the CA's certificate can't be read.
    """
    records = [dict(record) for record in evidence]
    try:
        ca = x509.load_pem_x509_certificate(ca_path.read_bytes())
    except (OSError, ValueError) as error:
        raise LocalError(f"the CA's certificate {ca_path} can't be read") from error
    run = _Run(run_id=run_id, bank=bank, ca=ca, keys={}, rosters={})
    try:
        checked = [len(list(check(run, records))) for check in (_rosters, _peers, _reports)]
        votes = [record for record in _of(records, "report") if record["phase"] == Phase.VOTING]
        digests = {vote["digest"] for record in votes for vote in record["reports"]}
        phases = {record["phase"] for record in _of(records, "report")}
    except (KeyError, ValueError, TypeError) as error:
        raise ProtocolViolation(f"run {run_id}: a record of the votes is damaged ({type(error).__name__})") from error
    if not all(checked) or not phases <= {Phase.EVALUATING.value, Phase.VOTING.value} or len(digests) != 1:
        raise ProtocolViolation(f"run {run_id}: the record does not have the votes of its banks")
    return str(digests.pop())


def _of(records: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [record for record in records if record["kind"] == kind]


def _rosters(run: _Run, records: list[dict[str, Any]]) -> Iterator[None]:
    last: set[str] | None = None
    for record in _of(records, "roster"):
        members = set(record["members"])
        if last is not None and not members < last:
            raise ProtocolViolation(f"attempt {record['attempt']} has a bank that the attempt before had not")
        if run.bank not in members:
            raise ProtocolViolation(f"attempt {record['attempt']} goes without bank {run.bank}")
        run.rosters[record["attempt"]], last = tuple(sorted(members)), members
        yield


def _peers(run: _Run, records: list[dict[str, Any]]) -> Iterator[None]:
    for peer in _of(records, "peers")[-1:]:
        for entry in peer["peers"]:
            bank = str(entry["bank"])
            announcement = KeyAnnouncement(
                run_id=run.run_id,
                bank=bank,
                x25519_public=bytes.fromhex(entry["x25519"]),
                ed25519_public=bytes.fromhex(entry["ed25519"]),
                certificate_pem=entry["certificate"].encode(),
                signature=base64.b64decode(entry["signature"]),
            )
            try:
                certificate = x509.load_pem_x509_certificate(announcement.certificate_pem)
                certificate.verify_directly_issued_by(run.ca)
                key = certificate.public_key()
                if f"CN={bank}" not in certificate.subject.rfc4514_string().split(","):
                    raise ProtocolViolation(f"the certificate shown for bank {bank} is somebody else's")
                if not isinstance(key, ec.EllipticCurvePublicKey):
                    raise ValueError("not ECDSA")
                key.verify(announcement.signature, announcement_bytes(announcement), ec.ECDSA(hashes.SHA256()))
            except (ValueError, TypeError, InvalidSignature) as error:
                raise ProtocolViolation(f"the run keys of bank {bank} are not signed by its certified key") from error
            run.keys[bank] = Ed25519PublicKey.from_public_bytes(announcement.ed25519_public)
            yield


def _macs(run: _Run, records: list[dict[str, Any]]) -> Iterator[None]:
    for record in _of(records, "sum"):
        if record["mac"] != "ok":
            raise ProtocolViolation(f"step {record['step']}: the MAC did not hold")
        yield


def _statements(run: _Run, records: list[dict[str, Any]]) -> Iterator[None]:
    for record in _of(records, "sum"):
        members = run.rosters[record["attempt"]]
        ours = StepHeader(
            run_id=run.run_id,
            bank=run.bank,
            step=record["step"],
            attempt=record["attempt"],
            chunks=record["chunks"],
            length=record["length"],
            he_fingerprint=HE_FINGERPRINT,
            roster_digest=roster_digest(members),
            state=bytes.fromhex(record["before"]),
        )
        statements = tuple(
            Statement(bank=bank, state=bytes.fromhex(state), signature=bytes.fromhex(signature))
            for bank, state, signature in record["statements"]
        )
        check_statements(
            ours, SumHead(pending=False, attempt=record["attempt"], statements=statements), members, run.keys
        )
        yield


def _states(run: _Run, records: list[dict[str, Any]]) -> Iterator[None]:
    """Each sum starts from the state that the sum, anchor or rewinding before it left."""
    state, anchors = "", {}
    for number, record in enumerate(records, 1):
        if record["kind"] == "sum":
            if record["before"] != state:
                raise ProtocolViolation(f"line {number}: step {record['step']} does not follow what was agreed before")
            state = record["after"]
            yield
        elif record["kind"] == "anchor":
            if record["name"] != Point.keys().text and record["before"] != state:
                raise ProtocolViolation(f"line {number}: '{record['name']}' does not follow what was agreed before")
            anchors[record["name"]] = state = record["state"]
        elif record["kind"] == "rewind":
            state = anchors[record["to"]]


def _reports(run: _Run, records: list[dict[str, Any]]) -> Iterator[None]:
    for record in _of(records, "report"):
        given = [
            PhaseReport(
                run_id=run.run_id,
                bank=r["bank"],
                phase=record["phase"],
                digest=r["digest"],
                accept=r["accept"],
                metrics_json=r["metrics"],
                attempt=r["attempt"],
                roster_digest=roster_digest(run.rosters[r["attempt"]]),
                state=bytes.fromhex(r["state"]),
                signature=bytes.fromhex(r["signature"]),
                audit_records=r.get("audit", _NO_AUDIT)[0],
                audit_digest=r.get("audit", _NO_AUDIT)[1],
            )
            for r in record["reports"]
        ]
        ours = next((r for r in given if r.bank == run.bank), None)
        if ours is None:
            raise ProtocolViolation(f"{record['phase']}: our own report is missing")
        check_reports(ours, given, run.rosters[ours.attempt], run.keys)
        yield


def _model(run: _Run, records: list[dict[str, Any]], run_dir: Path) -> Iterator[None]:
    path = run_dir / "model.json"
    reported = {
        report["digest"]
        for record in _of(records, "report")
        if record["phase"] in (Phase.TRAINING, Phase.VOTING)
        for report in record["reports"]
    }
    if not reported:
        return
    if not path.exists() or {hashlib.sha256(path.read_bytes()).hexdigest()} != reported:
        raise ProtocolViolation(f"the model file {path.name} is not the one that the banks reported")
    yield


def _audit_log(records: list[dict[str, Any]], now: Callable[[int], str] | None) -> Iterator[None]:
    """What banks signed of the node's log fits together, and the log still has it."""
    digests: dict[int, str] = {}
    longest: dict[str, int] = {}
    for record in _of(records, "report"):
        for report in record["reports"]:
            count, digest = report.get("audit", _NO_AUDIT)
            if not digest:
                continue
            bank, where = str(report["bank"]), f"{record['phase']}, bank {report['bank']}"
            if digests.setdefault(count, digest) != digest:
                raise ProtocolViolation(f"{where}: the node told banks different things of its first {count} records")
            if count < longest.get(bank, 0):
                raise ProtocolViolation(f"{where}: the node's log had {longest[bank]} records before, and {count} then")
            longest[bank] = count
            yield
    if now is None:
        return
    for count, digest in sorted(digests.items()):
        if now(count) != digest:
            raise ProtocolViolation(
                f"the node's log does not hold record {count} as banks signed it: it was changed, or its end cut off"
            )


def _failures(run: _Run, records: list[dict[str, Any]]) -> Iterator[None]:
    for record in _of(records, "failure"):
        raise ProtocolViolation(f"{record['error']}: {record['text']}")
    yield from ()
