"""Taking customers or periods out of a bank's store for good. Knows no models and alerts.

What is to be gone is written down first (hashes and days, `store/purged.json`), and only then taken out: a crash in
between is made good by the next extraction, and rows that the bank's own files still hold stay out when these are read
again. A customer's rows are those of the account and those in which it is the counterparty.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import date
from typing import TYPE_CHECKING, Any

from features.errors import KeyFileError, SourceError
from features.identifiers import IdentifierKey, hashed
from features.sources.files import engine
from features.store.label_source import LABEL_FILE, is_label_entry, of_known_payments
from features.store.partitions import FeatureStore, content_digest, digest_of

if TYPE_CHECKING:
    import pyarrow

__all__ = ["Affected", "Purged", "affected", "apply_purges", "load_purged", "save_purged", "without_purged"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Purged:
    """All that is to stay out.

    Attributes:
        key: fingerprint of the key that the hashes were made with.
        parties: hashes of accounts.
        periods: days, the first in and the last out, as ISO dates; "" for the first is from the beginning.
    """

    key: str = ""
    parties: frozenset[str] = frozenset()
    periods: frozenset[tuple[str, str]] = frozenset()

    @property
    def digest(self) -> str:
        """Tells two states apart; "" while nothing was ever purged."""
        return digest_of(sorted(self.parties), sorted(self.periods)) if self.parties or self.periods else ""

    def adding(
        self, key: IdentifierKey, accounts: Iterable[str] = (), periods: Iterable[tuple[date | None, date]] = ()
    ) -> "Purged":
        """With more accounts and periods; of periods from the beginning the longest is enough.

        Raises:
            KeyFileError: the earlier hashes were made with another key.
        """
        self.check(key)
        wanted = self.periods | {
            ("" if start is None else start.isoformat(), end.isoformat()) for start, end in periods
        }
        longest = max((end for start, end in wanted if not start), default=None)
        kept = {(start, end) for start, end in wanted if start}
        return replace(
            self,
            key=key.fingerprint,
            parties=self.parties | set(hashed(key, "account_id", accounts)),
            periods=frozenset(kept | ({("", longest)} if longest else set())),
        )

    def check(self, key: IdentifierKey) -> None:
        """Refuse a key under which purged customers would come back.

        Raises:
            KeyFileError: the hashes were made with another one.
        """
        if self.key not in ("", key.fingerprint):
            raise KeyFileError(
                "The store holds purges made with another key of identifiers: with this key those customers would "
                "come back. Put the key of before in its place."
            )

    def covers(self, day: str) -> bool:
        """Whether all of a day is to be gone."""
        return any(start <= day < end for start, end in self.periods)


@dataclass(frozen=True, slots=True, kw_only=True)
class Affected:
    """What a purge will take out.

    Attributes:
        days: rows by day.
        payments: the payments' hashes, which alerts name.
        parties: hashes of the accounts that have such a row.
        of_rows: all rows that the store has before.
    """

    days: dict[str, int] = field(default_factory=dict)
    payments: frozenset[str] = frozenset()
    parties: frozenset[str] = frozenset()
    of_rows: int = 0

    @property
    def rows(self) -> int:
        """Rows that go."""
        return sum(self.days.values())

    @property
    def share(self) -> float:
        """The part of all rows that goes, 0 to 1."""
        return self.rows / self.of_rows if self.of_rows else 0.0


def load_purged(store: FeatureStore) -> Purged:
    """What was purged so far.

    Raises:
        SourceError: the record is damaged. It must not be made good by deleting it: restore it.
    """
    path = store.root / "purged.json"
    if not path.exists():
        return Purged()
    try:
        document = json.loads(path.read_text())
        return Purged(
            key=document["key"],
            parties=frozenset(document["parties"]),
            periods=frozenset((start, end) for start, end in document["periods"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise SourceError(f"{path} is damaged; restore it, or purged customers come back.") from error


def save_purged(store: FeatureStore, purged: Purged) -> None:
    """Write it whole or not at all."""
    document = {"key": purged.key, "parties": sorted(purged.parties), "periods": sorted(map(list, purged.periods))}
    store.root.mkdir(parents=True, exist_ok=True)
    draft = store.root / ".purged.json.draft"
    with draft.open("w") as stream:
        json.dump(document, stream)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(draft, store.root / "purged.json")


def affected(store: FeatureStore, purged: Purged) -> Affected:
    """What of the events has to go."""
    days: dict[str, int] = {}
    payments: set[str] = set()
    parties: set[str] = set()
    count = 0
    for day in store.days("events"):
        table = store.read(store.partition("events", day))
        count += len(table)
        gone = table.filter(_mask(table, purged, day.isoformat()))
        if len(gone):
            days[day.isoformat()] = len(gone)
            payments.update(gone["payment_id"].to_pylist())
            for column in ("account_id", "counterparty_id"):
                parties.update(purged.parties.intersection(gone[column].unique().to_pylist()))
    return Affected(days=days, payments=frozenset(payments), parties=frozenset(parties), of_rows=count)


def apply_purges(store: FeatureStore, purged: Purged) -> int:
    """Take out of the intake what is not out yet; returns how many rows went. Merging and building have to follow."""
    count = 0
    for name, entry in store.entries().items():
        if entry["purges"] == purged.digest or is_label_entry(name):
            continue
        old = store.intake(name)
        with store.new_intake(name) as folder:
            days: dict[str, Any] = {}
            gone = 0
            for day in entry["days"]:
                table = store.read(old / f"{day}.parquet")
                kept = without_purged(table, purged, day)
                gone += len(table) - len(kept)
                if len(kept):
                    store.write(folder / f"{day}.parquet", kept, {})
                    days[day] = (content_digest(kept), len(kept))
            store.write(folder / "quarantine.parquet", store.read(old / "quarantine.parquet"), {})
            new = entry | {"days": days, "purges": purged.digest, "purged": entry["purged"] + gone}
            (folder / "entry.json").write_text(json.dumps(new))
        count += gone
    _apply_to_labels(store, purged)
    return count


def _apply_to_labels(store: FeatureStore, purged: Purged) -> None:
    """Labels have no account: those stay whose payments did."""
    waiting = [
        each for each in store.entries().items() if is_label_entry(each[0]) and each[1]["purges"] != purged.digest
    ]
    if not waiting:
        return
    with engine() as connection:
        for name, entry in waiting:
            old = store.intake(name)
            with store.new_intake(name) as folder:
                rows = store.read(old / LABEL_FILE)
                kept = of_known_payments(connection, store, store.entries(), rows)
                store.write(folder / LABEL_FILE, kept, {})
                store.write(folder / "quarantine.parquet", store.read(old / "quarantine.parquet"), {})
                gone = entry["purged"] + len(rows) - len(kept)
                new = entry | {"labels": len(kept), "purges": purged.digest, "purged": gone}
                (folder / "entry.json").write_text(json.dumps(new))


def without_purged(table: "pyarrow.Table", purged: Purged, day: str) -> "pyarrow.Table":
    """The rows of one day that stay."""
    import pyarrow.compute as pc

    return table if not purged.digest else table.filter(pc.invert(_mask(table, purged, day)))


def _mask(table: "pyarrow.Table", purged: Purged, day: str) -> "pyarrow.ChunkedArray":
    import pyarrow
    import pyarrow.compute as pc

    if purged.covers(day):
        return pyarrow.chunked_array([pyarrow.array([True] * len(table), pyarrow.bool_())])
    parties = pyarrow.array(sorted(purged.parties), pyarrow.string())
    mine = pc.is_in(table["account_id"], value_set=parties)
    return pc.or_(mine, pc.is_in(table["counterparty_id"], value_set=parties))
