"""New and changed source files into the store: canonical rows by day, and a quarantine. Merges nothing across files.

A file is taken in when its size or times changed, or when the contract, the mapping, the rates or a key did. A file
that can't be used at all is refused: what it brought before stays, and the extraction stops before anything is built
on it.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from features.contract.mapping import Mapping
from features.contract.schema import DataContract
from features.errors import DataError, SourceError
from features.identifiers import IdentifierKey
from features.ingestion.normalise import Normalised, normalised, normalised_labels
from features.ingestion.shared_ids import without_shared_ids
from features.sources.engines import BankTable
from features.sources.files import engine, source_files
from features.sources.table_days import SourceItem, table_days
from features.store.label_source import LABEL_FILE, PREFIX, is_label_entry, of_known_payments
from features.store.partitions import FeatureStore, Step, content_digest, digest_of
from features.store.purging import Purged, load_purged, without_purged

if TYPE_CHECKING:
    from ibis.backends.duckdb import Backend

__all__ = ["Intake", "take_in", "take_in_labels"]

_FORMAT = 4
"""Grows when the same file would become other rows than before: then everything is taken in anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Intake:
    """What taking in needs beyond the files.

    Attributes:
        key: for the bank's own hashes of identifiers.
        shared_key: for hashes that all banks make alike, or None; see `features.identifiers`.
    """

    contract: DataContract
    mapping: Mapping
    key: IdentifierKey
    shared_key: IdentifierKey | None = None
    threads: int | None = None

    @property
    def rules(self) -> str:
        """A digest of everything besides a file's bytes that decides what becomes of it."""
        contract, mapping = self.contract, self.mapping
        rates = mapping.currency.rates if mapping.currency else None
        return digest_of(
            _FORMAT,
            [column.model_dump(mode="json") for column in contract.columns],
            {name: list(words) for name, words in contract.vocabularies.items()},
            contract.currency,
            mapping.model_dump(mode="json", exclude={"labels"}),
            digest_of(rates.read_bytes().hex()) if rates is not None and rates.exists() else "",
            self.key.fingerprint,
            self.shared_key.fingerprint if self.shared_key else "",
        )


def take_in(intake: Intake, source: Path | BankTable, store: FeatureStore, before_step: Step) -> list[str]:
    """Bring the store's intake up to date with the files of a source, or days of a table; the names of those read.

    Raises:
        SourceError: there is no file, or one or more can't be used; the message names each with its reason. The
            others were taken in; mend or remove the named ones and extract again.
    """
    found = (
        table_days(source, intake.mapping, intake.contract)
        if isinstance(source, BankTable)
        else nullcontext(_file_items(source))
    )
    with found as items:
        return _take_in(
            intake, items, store, before_step, "", intake.rules, _one_file, each_alone=not isinstance(source, BankTable)
        )


def take_in_labels(
    intake: Intake, source: Path | BankTable | None, store: FeatureStore, before_step: Step
) -> list[str]:
    """The same for the source of labels, after the payments; None forgets the labels of a source of before.

    Raises:
        SourceError: as `take_in`.
    """
    found: AbstractContextManager[list[SourceItem]]
    if isinstance(source, BankTable):
        found = table_days(source, intake.mapping, intake.contract, labels=True)
    else:
        found = nullcontext([] if source is None else _file_items(source))
    rules = digest_of(
        _FORMAT,
        intake.contract.column("is_fraud").model_dump(mode="json"),
        intake.contract.column("label_time").model_dump(mode="json"),
        intake.mapping.labels.model_dump(mode="json"),
        intake.mapping.nulls,
        intake.key.fingerprint,
        # Once something was purged, which labels may be kept depends on the payments that are there.
        _payments_digest(store) if load_purged(store).digest else "",
    )
    with found as items:
        return _take_in(
            intake, items, store, before_step, PREFIX, rules, _one_label_file,
            each_alone=not isinstance(source, BankTable),
        )  # fmt: skip


def _payments_digest(store: FeatureStore) -> str:
    return digest_of([[name, entry["days"]] for name, entry in store.entries().items() if not is_label_entry(name)])


def _file_items(source: Path) -> list[SourceItem]:
    items = []
    for file in source_files(source):
        state = file.stat()
        stamp = (state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino)
        name = str(file.relative_to(source)) if source.is_dir() else file.name
        items.append(SourceItem(name, stamp, partial(_as_it_is, file)))
    return items


@contextmanager
def _as_it_is(file: Path) -> Iterator[Path]:
    yield file


def _take_in(
    intake: Intake,
    items: Sequence[SourceItem],
    store: FeatureStore,
    before_step: Step,
    prefix: str,
    rules: str,
    fill: Callable[..., dict[str, Any]],
    *,
    each_alone: bool,
) -> list[str]:
    """Take in what is new.

    Args:
        each_alone: each item must have a good row, as a file must; of a table's days only one of all must.
    """
    known = {name: entry for name, entry in store.entries().items() if is_label_entry(name) == bool(prefix)}
    for name in sorted(known.keys() - {prefix + item.name for item in items}):
        before_step(f"forget {name}")
        store.drop_intake(name)
    purged = load_purged(store)
    purged.check(intake.key)
    taken: list[str] = []
    refused: list[str] = []
    with engine(intake.threads) as connection:
        for item in items:
            name, stamp = prefix + item.name, digest_of(rules, *item.state)
            if known.get(name, {}).get("stamp") == stamp:
                continue
            before_step(f"take in {name}")
            try:
                with store.new_intake(name) as folder, item.opened() as file:
                    entry = {"source": name, "stamp": stamp} | fill(intake, connection, file, folder, store, purged)
                    if each_alone and not _some_good(entry):
                        raise SourceError(_none_good(f"File {file}", entry))
                    (folder / "entry.json").write_text(json.dumps(entry))
                taken.append(name)
            except DataError as error:
                refused.append(str(error))
            _forget_tables(connection)
    if not each_alone and taken:
        entries = {name: entry for name, entry in store.entries().items() if is_label_entry(name) == bool(prefix)}
        if not any(_some_good(entry) for entry in entries.values()):
            refused.append(_none_good(taken[0], entries[taken[0]]))
            for name in taken:
                store.drop_intake(name)
    if refused:
        more = f" And {len(refused) - 10} more files." if len(refused) > 10 else ""
        raise SourceError(" ".join(refused[:10]) + more)
    return taken


def _some_good(entry: dict[str, Any]) -> bool:
    """Whether a good row is in it; an item without rows is none to complain of."""
    return not entry["rows"] or entry["rows"] > sum(count for *_, count in entry["quarantined"])


def _none_good(what: str, entry: dict[str, Any]) -> str:
    return f"{what} has {entry['rows']} rows and none is good: {_words(entry['quarantined'])}."


def _one_file(
    intake: Intake, connection: "Backend", file: Path, folder: Path, store: FeatureStore, purged: Purged
) -> dict[str, Any]:
    """Fill the folder with one Parquet file a day and the quarantine; what to say about it in its entry.

    Raises:
        DataError: the file can't be read.
    """
    made = normalised(connection, file, intake.contract, intake.mapping, intake.key, intake.shared_key)
    made = without_shared_ids(connection, file, made)
    days: dict[str, tuple[str, int]] = {}
    gone = 0
    con = connection.con
    good = made.good.get_name()
    for day, text in con.execute(
        f"SELECT DISTINCT event_time::DATE d, strftime(d, '%Y-%m-%d') FROM {good} ORDER BY 1"
    ).fetchall():
        query = f"SELECT * FROM {good} WHERE event_time >= $d AND event_time < $d + INTERVAL 1 DAY ORDER BY row_"
        every = con.sql(query, params={"d": day}).to_arrow_table()
        rows = without_purged(every, purged, text)
        gone += len(every) - len(rows)
        if not len(rows):
            continue
        store.write(folder / f"{text}.parquet", rows, {})
        days[text] = (content_digest(rows), len(rows))
    quarantined = _quarantined(connection, made, folder, store)
    found = sum(count for _, count in days.values())
    if made.rows != gone + found + sum(count for *_, count in quarantined):
        raise SourceError(f"File {file} changed while it was read: its rows don't add up.")
    return {"rows": made.rows, "quarantined": quarantined, "days": days, "purges": purged.digest, "purged": gone}


def _one_label_file(
    intake: Intake, connection: "Backend", file: Path, folder: Path, store: FeatureStore, purged: Purged
) -> dict[str, Any]:
    """The same for labels: one file of them, and no day of its own."""
    made = normalised_labels(connection, file, intake.contract, intake.mapping, intake.key)
    con = connection.con
    rows = con.sql(f"SELECT * FROM {made.good.get_name()} ORDER BY row_").to_arrow_table()
    kept = of_known_payments(connection, store, store.entries(), rows) if purged.digest else rows
    store.write(folder / LABEL_FILE, kept, {})
    quarantined = _quarantined(connection, made, folder, store)
    if made.rows != len(rows) + sum(count for *_, count in quarantined):
        raise SourceError(f"File {file} changed while it was read: its rows don't add up.")
    return {
        "rows": made.rows,
        "quarantined": [[f"labels.{column}" if column else "labels", reason, n] for column, reason, n in quarantined],
        "days": {},
        "labels": len(kept),
        "purges": purged.digest,
        "purged": len(rows) - len(kept),
    }


def _quarantined(connection: "Backend", made: Normalised, folder: Path, store: FeatureStore) -> list[list[Any]]:
    """Write the quarantine; its counts by column and reason, with those of lines that could not be told apart."""
    con, bad = connection.con, made.bad.get_name()
    store.write(folder / "quarantine.parquet", con.sql(f"SELECT * FROM {bad} ORDER BY row_").to_arrow_table(), {})
    counts = con.execute(f"SELECT column_, reason_, count(*) FROM {bad} GROUP BY ALL ORDER BY ALL").fetchall()
    found = [[column, reason, int(count)] for column, reason, count in counts]
    return found + [["", reason, count] for reason, count in sorted(made.unreadable.items())]


def _words(quarantined: Sequence[Sequence[Any]]) -> str:
    return "; ".join(f"column {column}: {reason}, {count} rows" for column, reason, count in quarantined[:5])


def _forget_tables(connection: "Backend") -> None:
    """Free what one file left in the engine."""
    for (name,) in connection.con.execute("SELECT table_name FROM duckdb_tables() WHERE temporary").fetchall():
        connection.con.execute(f'DROP TABLE "{name}"')
