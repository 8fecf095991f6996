"""Puts a model into a bank's registry as a run's release would: with votes that the banks of a run have signed."""

import datetime as dt
import hashlib
from dataclasses import replace
from pathlib import Path

from bank_node.config import BankConfig
from bank_node.models.registry import ReleaseRecord, keep_released
from bank_node.secure_aggregation.key_exchange import announce, peers_record
from bank_node.secure_aggregation.keys import RunSecrets
from bank_node.transport.identity import Identity
from protocol.masks import roster_digest
from protocol.messages import PhaseReport
from protocol.statements import report_bytes
from simulator.harness.processes import bank_files

__all__ = ["put_released"]


def put_released(
    config: BankConfig, certificates: Path, model: bytes, *, run_id: str, banks: list[str]
) -> ReleaseRecord:
    """A release of `model` by `banks`, whose certificates are in a folder that `make_certificates` filled.

    The bank's configuration must name that folder's CA.
    """
    secrets = {bank: RunSecrets.load_or_make(certificates / f"{run_id}-{bank}.json") for bank in banks}
    announced = [
        announce(run_id, bank, secrets[bank], Identity(bank_files(certificates, bank), bank)) for bank in banks
    ]
    unsigned = PhaseReport(
        run_id=run_id,
        bank=banks[0],
        phase="VOTING",
        digest=hashlib.sha256(model).hexdigest(),
        accept=True,
        attempt=0,
        roster_digest=roster_digest(banks),
        state=bytes(32),
    )
    votes = []
    for bank in banks:
        signature = secrets[bank].ed25519.sign(report_bytes(replace(unsigned, bank=bank)))
        votes.append(
            {
                "bank": bank,
                "digest": unsigned.digest,
                "accept": True,
                "metrics": "",
                "attempt": 0,
                "state": unsigned.state.hex(),
                "signature": signature.hex(),
            }
        )
    evidence = [
        {"kind": "roster", "attempt": 0, "members": banks},
        {"kind": "peers", "peers": peers_record(announced), "settings_digest": "0" * 64},
        {"kind": "report", "phase": "VOTING", "reports": votes},
    ]
    return keep_released(
        config,
        model,
        run_id=run_id,
        contract="payments 1.0.0",
        contract_fingerprint="0" * 64,
        trained_until=None,
        evidence=evidence,
        now=dt.datetime(2026, 3, 2, tzinfo=dt.UTC),
    )
