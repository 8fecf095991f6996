"""From a bank's growing source to day partitions of features, redoing only what changed. Trains and scores nothing.

Three steps, each idempotent, each leaving whole files only: files are taken in (`intake`), days are merged
(`merging`), features are built (`building`). A crash between any two loses nothing: the next extraction does what is
missing. What results depends on the source's content alone, not on the order or number of the extractions before.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from features.contract.mapping import Mapping, identity_mapping
from features.contract.row_rules import SHARED_ID
from features.contract.schema import DataContract
from features.engineering.building import BLOCK_ROWS, build_days
from features.errors import DataError, EmptyTableError
from features.identifiers import IdentifierKey
from features.ingestion.intake import Intake, take_in, take_in_labels
from features.ingestion.quarantine import write_index
from features.sources.engines import BankTable
from features.store.label_source import LabelCounts, is_label_entry
from features.store.merging import merge_days
from features.store.partitions import FeatureStore, Step
from features.store.purging import Affected, affected, apply_purges, load_purged, save_purged

if TYPE_CHECKING:
    import pyarrow

__all__ = ["Extraction", "extract_days", "purge_days", "read_features", "would_purge"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Extraction:
    """What an extraction did, and what is in the store now; counts, days and names of files only.

    Attributes:
        taken: source files read this time.
        merged, built, relabelled: days whose events were merged, whose features were made, whose labels alone changed.
        rows: data rows of all source files, in total. The sum of the four that follow.
        quarantined: how many of them were set aside, by column and reason.
        repeated: how many of them were older versions of, or equal to, another row.
        stored: how many of them are in the events.
        purged: how many of them were purged.
        feature_rows, frauds: outgoing payments, which have features, and how many of them are known to be fraud.
        labels: what the label source holds, if there is one.
    """

    taken: tuple[str, ...] = ()
    merged: tuple[date, ...] = ()
    built: tuple[date, ...] = ()
    relabelled: tuple[date, ...] = ()
    rows: int = 0
    quarantined: dict[tuple[str, str], int] = field(default_factory=dict)
    repeated: int = 0
    stored: int = 0
    purged: int = 0
    feature_rows: int = 0
    frauds: int = 0
    labels: LabelCounts = field(default_factory=LabelCounts)


def extract_days(
    contract: DataContract,
    source: Path | str | BankTable,
    store: FeatureStore,
    *,
    key: IdentifierKey,
    shared_key: IdentifierKey | None = None,
    mapping: Mapping | None = None,
    labels: Path | str | BankTable | None = None,
    threads: int | None = None,
    block_rows: int = BLOCK_ROWS,
    before_step: Step = lambda name: None,
) -> Extraction:
    """Bring the store up to date with a source folder or file, or a table or view of the bank's database.

    Args:
        key: for identifiers. Another key than before makes everything anew.
        shared_key: the consortium's key for identifiers, or None; see `features.identifiers.SHARED`.
        mapping: the bank's; None when its columns are the contract's.
        labels: a source of labels beside the payments, see `features.store.label_source`; None if there is none.
        before_step: called with a step's name before it writes; tests crash there.

    Raises:
        DataError: a file can't be used, or there is no payment at all. The features of before stay.
    """
    chosen = mapping or identity_mapping(contract)
    intake = Intake(contract=contract, mapping=chosen, key=key, shared_key=shared_key, threads=threads)
    with store.locked():
        taken = take_in(intake, source if isinstance(source, BankTable) else Path(source), store, before_step)
        apply_purges(store, load_purged(store))
        cases = Path(labels) if isinstance(labels, str) else labels
        taken += take_in_labels(intake, cases, store, before_step)
        entries = store.entries().values()
        if not any(entry["days"] or entry["purged"] for entry in entries):
            raise EmptyTableError(f"{source} has no row.")
        return _brought_up_to_date(contract, store, taken, threads, block_rows, before_step)


def purge_days(
    contract: DataContract,
    store: FeatureStore,
    *,
    key: IdentifierKey,
    accounts: Iterable[str] = (),
    periods: Iterable[tuple[date | None, date]] = (),
    approve: Callable[[Affected], None] = lambda found: None,
    record: Callable[[Affected], None] = lambda found: None,
    threads: int | None = None,
    block_rows: int = BLOCK_ROWS,
) -> Affected:
    """Take customers and periods out of the store for good; the source is not read.

    Args:
        accounts: the customers' accounts, as the bank names them.
        periods: days, the first in, the last out; None for the first is from the beginning.
        approve: called with what would go before anything is written; what it raises ends the purge there.
        record: called with what will go once that is written down, before anything goes.

    Returns:
        What the events lost.

    Raises:
        KeyFileError: earlier purges were made with another key.
    """
    with store.locked():
        purged = load_purged(store).adding(key, accounts, periods)
        found = affected(store, purged)
        approve(found)
        save_purged(store, purged)
        record(found)
        apply_purges(store, purged)
        _brought_up_to_date(contract, store, [], threads, block_rows, lambda name: None)
    return found


def would_purge(
    store: FeatureStore,
    *,
    key: IdentifierKey,
    accounts: Iterable[str] = (),
    periods: Iterable[tuple[date | None, date]] = (),
) -> Affected:
    """What `purge_days` would take out; nothing is changed.

    Raises:
        KeyFileError: earlier purges were made with another key.
    """
    with store.locked():
        return affected(store, load_purged(store).adding(key, accounts, periods))


def _brought_up_to_date(
    contract: DataContract,
    store: FeatureStore,
    taken: Sequence[str],
    threads: int | None,
    block_rows: int,
    before_step: Step,
) -> Extraction:
    """Merge and build what the intake asks for, and say what the store now holds."""
    merged, verdicts = merge_days(store, contract.label.delay_days, threads, before_step)
    write_index(store)
    built, relabelled = build_days(contract, store, threads, block_rows, before_step)
    every = store.entries()
    entries = [entry for name, entry in every.items() if not is_label_entry(name)]
    cases = [entry for name, entry in every.items() if is_label_entry(name)]
    facts = [store.facts(store.partition("events", day)) for day in store.days("events")]
    made = [store.facts(store.partition("features", day)) for day in store.days("features")]
    logger.info(
        "%d files read, %d days merged, %d built, %d relabelled", len(taken), len(merged), len(built), len(relabelled)
    )
    return Extraction(
        taken=tuple(taken),
        merged=tuple(merged),
        built=tuple(built),
        relabelled=tuple(relabelled),
        rows=sum(entry["rows"] for entry in entries),
        quarantined=_with_others(_added_up(entries), store),
        repeated=sum(each["repeated"] for each in facts),
        stored=sum(each["rows"] for each in facts),
        purged=sum(entry["purged"] for entry in entries),
        feature_rows=sum(each["rows"] for each in made),
        frauds=sum(each["frauds"] for each in made),
        labels=LabelCounts(
            rows=sum(entry["rows"] for entry in cases),
            quarantined=_added_up(cases),
            repeated=sum(entry["labels"] for entry in cases) - verdicts.payments,
            applied=verdicts.applied,
            # Of payments that are not there, or were purged.
            waiting=verdicts.payments - verdicts.applied + sum(entry["purged"] for entry in cases),
        ),
    )


def _added_up(entries: Iterable[dict[str, Any]]) -> dict[tuple[str, str], int]:
    """Quarantined rows by column and reason."""
    found: dict[tuple[str, str], int] = {}
    for entry in entries:
        for column, reason, count in entry["quarantined"]:
            found[column, reason] = found.get((column, reason), 0) + count
    return found


def _with_others(found: dict[tuple[str, str], int], store: FeatureStore) -> dict[tuple[str, str], int]:
    """With the rows that were set aside only when files were merged."""
    rows = sum(count for count, _ in store.others().values())
    group = ("payment_id", SHARED_ID)
    return found | {group: found.get(group, 0) + rows} if rows else found


def read_features(
    store: FeatureStore, contract: DataContract, *, since: date | None = None, until: date | None = None
) -> Iterator["pyarrow.Table"]:
    """The feature partitions in order of days, one at a time; ``since`` inclusive, ``until`` exclusive.

    Raises:
        DataError: a partition is missing or was made by another contract; extract first.
    """
    for day in store.days("events"):
        if (since is not None and day < since) or (until is not None and day >= until):
            continue
        path = store.partition("features", day)
        if store.facts(path).get("contract") != contract.fingerprint:
            raise DataError(f"Features of {day} are missing or of another contract; extract again.")
        yield store.read(path)
