"""The bank's feature rows as pandas tables, and the keys its store was made with. Extracts nothing."""

from collections.abc import Iterator
from datetime import date

import pandas as pd

from bank_node.config import BankConfig
from bank_node.shared_risk.rows import link_key, with_shared
from features import DataContract
from features.identifiers import IdentifierKey, create_key, load_key
from features.incremental import read_features
from features.store.partitions import FeatureStore
from protocol.errors import LocalError

BLOCK_ROWS = 100_000
"""Rows of a block, some 50 MB as a table, of which splitting makes copies."""

__all__ = ["feature_blocks", "feature_rows", "identifier_keys", "last_day"]


def identifier_keys(config: BankConfig) -> tuple[IdentifierKey, IdentifierKey | None]:
    """The bank's own key of identifiers, made at its first use, and the consortium's, once the bank has it.

    Raises:
        features.errors.KeyFileError: a key's file is open to others or damaged.
    """
    path = config.identifier_key_path
    own = load_key(path) if path.exists() else create_key(path)
    return own, link_key(config)


def last_day(config: BankConfig) -> date:
    """The last day that has a row of features.

    Raises:
        LocalError: nothing was extracted yet.
    """
    store = FeatureStore(config.store_dir)
    for day in reversed(store.days("features")):
        if store.facts(store.partition("features", day)).get("rows"):
            return day
    raise LocalError(f"bank {config.bank_id} has no features yet; run `bank-node extract` first")


def feature_rows(config: BankConfig, contract: DataContract, *, since: date | None = None) -> pd.DataFrame:
    """The rows from a day on (all without one), in order of time: what `features.extract_features` returns.

    Shared features are as the tables held now make them: missing before the first exchange.

    Raises:
        LocalError: nothing was extracted yet.
        features.errors.DataError: a day's features are missing or of another contract.
    """
    import pyarrow

    last_day(config)
    table = pyarrow.concat_tables(read_features(FeatureStore(config.store_dir), contract, since=since)).to_pandas()
    return with_shared(config, contract, table)


def feature_blocks(
    config: BankConfig, contract: DataContract, *, block_rows: int = BLOCK_ROWS
) -> Iterator[pd.DataFrame]:
    """All rows in order of time, as `feature_rows` gives them, in blocks of whole days.

    Args:
        config: the bank's.
        contract: the features' own.
        block_rows: most rows of a block, unless one day alone has more; changes nothing in the rows.

    Raises:
        LocalError: nothing was extracted yet.
        features.errors.DataError: a day's features are missing or of another contract.
    """
    import pyarrow

    last_day(config)
    block: list[pyarrow.Table] = []
    for day in read_features(FeatureStore(config.store_dir), contract):
        if block and sum(map(len, block)) + len(day) > block_rows:
            yield with_shared(config, contract, pyarrow.concat_tables(block).to_pandas())
            block = []
        block.append(day)
    if block:
        yield with_shared(config, contract, pyarrow.concat_tables(block).to_pandas())
