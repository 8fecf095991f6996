"""Which data contract a bank takes part in a run under: its own, or an older one that its own is compatible with."""

from collections.abc import Callable

from bank_node.config import BankConfig
from features import DataContract, load_contract
from features.contract.compatibility import serves
from protocol.errors import LocalError

__all__ = ["contract_for_run"]


def contract_for_run(config: BankConfig, announced: str, log: Callable[[str], None]) -> DataContract:
    """The contract with the fingerprint that a run announces.

    A bank that has gone on to a later minor version lists the earlier ones under ``older_contracts``. It then joins a
    run under one of these, with the features of that contract from the table that its own makes.

    Raises:
        LocalError: the bank has no such contract.
        features.errors.ContractError: it has, and its own is no compatible later version of it.
    """
    own = load_contract(config.contract)
    if own.fingerprint == announced:
        return own
    for path in config.older_contracts:
        older = load_contract(path)
        if older.fingerprint == announced:
            differences = serves(own, older)
            log(
                f"the run uses contract {older.name} {older.version}, bank {config.bank_id} has {own.version}: a "
                f"compatible change in {', '.join(change.place for change in differences[:5])}; joining under the older"
            )
            return older
    raise LocalError(
        f"the run uses data contract {announced[:12]}, bank {config.bank_id} has {own.fingerprint[:12]} "
        f"({own.name} {own.version}); install the consortium's contract"
    )
