"""The bank's registry of released models: what each is, and whether its file still is that. Trains and sends nothing.

``work_dir/models`` has ``<run>.json`` for each released model and ``current.json``, the newest, each beside its record
``….release.json``: run, contract, dates, digest, and what all banks signed when they voted; and, where its run had
later rows to evaluate on, its calibration ``….calibration.json``. A model whose bytes are not those that the banks
voted on is not used.
"""

import datetime as dt
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bank_node.config import BankConfig
from bank_node.files import write_atomic
from bank_node.secure_aggregation.ledger_audit import check_votes
from protocol.errors import CrossbankError, LocalError
from protocol.run_state import Phase

__all__ = [
    "CURRENT_CALIBRATION",
    "ReleaseRecord",
    "current_model",
    "find_model",
    "keep_released",
    "released_model",
    "released_runs",
]

_CURRENT = "current"
_RECORD = ".release.json"
_CALIBRATION = ".calibration.json"

#: The current model's calibration, in the registry.
CURRENT_CALIBRATION = f"{_CURRENT}{_CALIBRATION}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseRecord:
    """What a released model is.

    Attributes:
        run_id: the run that made it.
        bank: whose registry it is in.
        contract: name and version of the run's data contract; `contract_fingerprint` is its digest.
        model_sha256: digest of the model file, in hexadecimal.
        trained_until: the run's `train_until`, ISO 8601; None where it named none.
        registered_at: when this bank put it into its registry, ISO 8601, UTC.
        banks: the banks that voted for it.
        evidence: what the bank's ledger has of the run keys, the rosters and the votes, each signed by its bank.
    """

    run_id: str
    bank: str
    contract: str
    contract_fingerprint: str
    model_sha256: str
    trained_until: str | None
    registered_at: str
    banks: tuple[str, ...]
    evidence: tuple[Mapping[str, Any], ...] = field(repr=False)


def keep_released(
    config: BankConfig,
    model: bytes,
    *,
    run_id: str,
    contract: str,
    contract_fingerprint: str,
    trained_until: dt.datetime | None,
    evidence: Sequence[Mapping[str, Any]],
    now: dt.datetime,
    calibration: bytes | None = None,
) -> ReleaseRecord:
    """Put a released model into the registry, under its run's name and as the current one; harmless when it is there.

    Args:
        model: the file's bytes.
        evidence: see `bank_node.secure_aggregation.ledger_audit.vote_evidence`.
        now: UTC.
        calibration: its file's bytes; None where the run evaluated nothing.
    """
    record = ReleaseRecord(
        run_id=run_id,
        bank=config.bank_id,
        contract=contract,
        contract_fingerprint=contract_fingerprint,
        model_sha256=hashlib.sha256(model).hexdigest(),
        trained_until=None if trained_until is None else trained_until.isoformat(),
        registered_at=now.isoformat(timespec="seconds"),
        banks=tuple(sorted(vote["bank"] for each in evidence if _is_vote(each) for vote in each["reports"])),
        evidence=tuple(evidence),
    )
    text = json.dumps(asdict(record), indent=2).encode()
    for name in (run_id, _CURRENT):
        write_atomic(config.registry / f"{name}{_RECORD}", text)
        beside = config.registry / f"{name}{_CALIBRATION}"
        if calibration is None:
            beside.unlink(missing_ok=True)
        else:
            write_atomic(beside, calibration)
        write_atomic(config.registry / f"{name}.json", model)
    return record


def _is_vote(record: Mapping[str, Any]) -> bool:
    return bool(record["kind"] == "report" and record["phase"] == Phase.VOTING)


def current_model(config: BankConfig) -> tuple[bytes, ReleaseRecord]:
    """The bank's current model, once its bytes are found to be those that the run's banks voted on.

    Raises:
        LocalError: there is none, it has no record, or it is another model than the record and the votes are about.
    """
    path, record_path = config.registry / f"{_CURRENT}.json", config.registry / f"{_CURRENT}{_RECORD}"
    if not path.exists():
        raise LocalError(f"no released model at {path}; take part in a run first")
    if not record_path.exists():
        raise LocalError(
            f"model {path} has no record {record_path.name} beside it that says what it is; register its run again "
            "(`bank-node register --run …`), or put back both files of a released model"
        )
    model = path.read_bytes()
    record = _read_record(record_path)
    found = hashlib.sha256(model).hexdigest()
    if found != record.model_sha256:
        raise LocalError(
            f"model {path} was changed: it has SHA-256 {found[:12]}, run {record.run_id} released "
            f"{record.model_sha256[:12]}. It is not used; register the run again (`bank-node register --run "
            f"{record.run_id}`), or put back the released file"
        )
    try:
        voted = check_votes(record.evidence, record.run_id, config.bank_id, config.aggregator.ca)
    except CrossbankError as error:
        raise LocalError(
            f"model {path}: {record_path.name} is not what the banks signed: {error}. If the consortium's CA was "
            f"replaced since: use a copy of the configuration whose `ca` is the one of run {record.run_id}"
        ) from error
    if voted != found:
        raise LocalError(f"model {path} is not the one that the banks of run {record.run_id} voted for; not used")
    return model, record


def _read_record(path: Path) -> ReleaseRecord:
    try:
        document = json.loads(path.read_bytes())
        return ReleaseRecord(**document | {"banks": tuple(document["banks"]), "evidence": tuple(document["evidence"])})
    except (ValueError, TypeError, KeyError) as error:
        raise LocalError(f"the release record {path} is damaged; register its run again") from error


def released_runs(config: BankConfig) -> dict[str, Path]:
    """Run → its released model's file, by the run's name."""
    return {
        path.stem: path
        for path in sorted(config.registry.glob("*.json"))
        if path.stem != _CURRENT and not path.name.endswith((_RECORD, _CALIBRATION))
    }


def find_model(config: BankConfig, sha256: str) -> Path | None:
    """The registered file of a model, named after its run; None if the registry has none of that SHA-256."""
    for path in released_runs(config).values():
        if hashlib.sha256(path.read_bytes()).hexdigest() == sha256:
            return path
    return None


def released_model(config: BankConfig, sha256: str) -> bytes:
    """The model that a run goes on from, from the bank's registry; nothing where it goes on from none.

    The digest is the run's own, so that these are the bytes which all its banks go on from.

    Args:
        sha256: the run's ``warm_start``, may be empty.

    Raises:
        LocalError: the registry has no model of that digest.
    """
    if not sha256:
        return b""
    found = find_model(config, sha256)
    if found is not None:
        return found.read_bytes()
    raise LocalError(
        f"the run goes on from model {sha256[:12]}, which bank {config.bank_id} does not have: put the released file "
        f"into {config.registry} (its SHA-256 must be {sha256}), then train again"
    )
