"""Whether an extraction set too many rows aside: a warning, or an error of its own. Reads nothing and sends nothing."""

from collections.abc import Mapping
from typing import Any

from bank_node.config import BankConfig
from bank_node.consortium import Log
from features import DataContract
from features.errors import TooManyQuarantined
from features.quality import quarantine_finding

__all__ = ["QUARANTINE_WARNING", "warn_of_quarantine"]


QUARANTINE_WARNING = 0.01
"""An extraction warns when a larger share of the rows was set aside: a clean export has hardly any."""


def warn_of_quarantine(
    config: BankConfig, contract: DataContract, shares: dict[str, tuple[int, int]], result: Mapping[str, Any], log: Log
) -> None:
    """Say when many rows were set aside, of payments or labels.

    Raises:
        features.errors.TooManyQuarantined: more than the quality gate lets pass.
    """
    bad = []
    for what, (rows, aside) in shares.items():
        finding = quarantine_finding(rows, aside, contract.quality)
        if rows and aside / rows > min(QUARANTINE_WARNING, contract.quality.quarantined):
            log(f"warning: {what}: {finding.words}; `bank-node quarantine` says which, and what would mend them")
        if not finding.good:
            bad.append(f"of the {what} {finding.words}")
    if bad:
        raise TooManyQuarantined(
            f"bank {config.bank_id}: {'; '.join(bad)}. The store has the other rows; the bank would not join a run: "
            "see `bank-node quarantine`, mend the mapping or the export, and extract again",
            result,
        )
