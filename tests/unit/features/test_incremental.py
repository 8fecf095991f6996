"""Incremental extraction equals full extraction, in any order of deliveries and with a crash at any write.

A crash is a machine that stops: from one write on, nothing more reaches the disk, not even cleaning up.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import features.engineering.building
import features.store.merging
from features import DataContract, extract_features
from features.contract.mapping import Mapping, identity_mapping
from features.contract.row_rules import SHARED_ID
from features.errors import DataError, EmptyTableError, SourceError
from features.identifiers import IdentifierKey, hashed
from features.incremental import Extraction, extract_days, read_features
from features.ingestion.quarantine import set_aside
from features.store.partitions import FeatureStore
from tests.unit.features.engineering.test_point_in_time import EVERYTHING
from tests.unit.features.payments import START, frame, good_frame, payment, written

KEY = IdentifierKey(bytes(range(32)))
PLAIN = identity_mapping(EVERYTHING)
VERSIONED = PLAIN.model_copy(update={"version_column": "version"})
DAYS = (0, 1, 29, 30, 31, 45, 62)


class PowerCut(BaseException):
    """The machine stopped."""


@contextmanager
def power_cut_after(writes: int | None, store: Path) -> Iterator[list[str]]:
    """Let so many changes of the store happen, and none after them; None lets all happen. Yields what happened."""
    done: list[str] = []
    patched: list[tuple[Any, str, Any]] = []

    def watch(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            if not any(str(store) in str(arg) for arg in args if isinstance(arg, str | Path)):
                return real(*args, **kwargs)
            if writes is not None and len(done) >= writes:
                raise PowerCut
            done.append(name)
            return real(*args, **kwargs)

        patched.append((owner, name, real))
        setattr(owner, name, watched)

    watch(os, "replace")
    watch(shutil, "rmtree")
    watch(Path, "unlink")
    watch(Path, "mkdir")
    watch(Path, "write_text")
    watch(pyarrow.parquet, "write_table")
    try:
        yield done
    finally:
        for owner, name, real in patched:
            setattr(owner, name, real)


def extracted(source: Path, store: Path, mapping: Mapping = PLAIN, **options: Any) -> tuple[Extraction, pd.DataFrame]:
    """Bring a store up to date and read all of it."""
    opened = FeatureStore(store)
    done = extract_days(EVERYTHING, source, opened, key=KEY, mapping=mapping, **options)
    return done, pyarrow.concat_tables(read_features(opened, EVERYTHING)).to_pandas()


Row = dict[str, Any]

rows = st.fixed_dictionaries(
    {
        "payment_id": st.sampled_from([f"p{number}" for number in range(6)]),
        "event_time": st.tuples(st.sampled_from(DAYS), st.sampled_from([0, 1, 3600])).map(
            lambda drawn: START + timedelta(days=drawn[0], seconds=drawn[1])
        ),
        "account_id": st.sampled_from(["a", "b"]),
        "counterparty_id": st.sampled_from(["a", "m"]),
        "direction": st.sampled_from(["out", "out", "in"]),
        "amount": st.sampled_from([1.0, 2.5, 10.01]),
        "is_fraud": st.sampled_from([None, 0.0, 1.0, 1.0]),
        "label_after": st.one_of(st.none(), st.sampled_from([0, 1, 30, 33])),
        "version": st.integers(0, 3).map(lambda number: f"{number:02d}"),
    }
)


def completed(row: Row) -> Row:
    after = row.pop("label_after")
    known = row["is_fraud"] is not None and after is not None
    return payment(0) | row | {"label_time": row["event_time"] + timedelta(days=after) if known else None}


steps = st.lists(
    st.tuples(
        st.sampled_from(["f0", "f1", "f2", "g"]),  # the file that changes
        st.sampled_from(["arrives", "arrives in part", "goes"]),
        st.one_of(st.just(0), st.integers(1, 60)),  # writes until the power is cut in the extraction that follows
        st.sampled_from([1, 1_000_000]),  # rows of a block
    ),
    max_size=5,
)


def deliver(folder: Path, name: str, content: list[Row] | None) -> None:
    path = folder / f"{name}.parquet"
    if content is None:
        path.unlink(missing_ok=True)
        return
    table = frame(content)
    table["is_fraud"] = table["is_fraud"].astype("float64")
    table["counterparty_bank"] = table["counterparty_bank"].astype("string")
    written(table, path.with_suffix(".part"))
    os.replace(path.with_suffix(".part"), path)


def is_other(row: Row, than: Row) -> bool:
    """Whether it is another payment, although it has the id: a version has the account, the time or the amount."""
    return all(row[name] != than[name] for name in ("account_id", "event_time", "amount"))


def versions_of(delivered: dict[str, list[Row]], versioned: bool) -> Iterator[list[Row]]:
    """Each payment's rows, the newest last, without those of other payments: first in each file, then over all."""
    ranked: dict[tuple[str, str], list[tuple[tuple[str, str, int], Row]]] = {}
    for name, content in delivered.items():
        here: dict[tuple[str, str], list[tuple[tuple[str, str, int], Row]]] = {}
        for place, row in enumerate(content):
            rank = (row["version"] if versioned else "", name, place)
            here.setdefault((row["payment_id"], row["direction"]), []).append((rank, row))
        for payment_key, found in here.items():
            last = max(found, key=lambda each: each[0])[1]
            ranked.setdefault(payment_key, []).extend(each for each in found if not is_other(each[1], last))
    for found in ranked.values():
        found.sort(key=lambda each: each[0])
        yield [row for _, row in found if not is_other(row, found[-1][1])]


def can_be_told(content: list[Row]) -> bool:
    """A file with more than one row of another payment's id is refused, whatever says which row is newer."""
    others = (len(content) - sum(map(len, versions_of({"f": content}, versioned))) for versioned in (False, True))
    return max(others) <= 1


files = st.dictionaries(
    st.sampled_from(["f0", "f1", "f2", "g"]),
    st.lists(rows.map(completed), min_size=1, max_size=5).filter(can_be_told),
    min_size=1,
)


def newest(delivered: dict[str, list[Row]], versioned: bool) -> list[Row]:
    """The oracle of merging: each payment's newest row, with its newest label."""
    merged = []
    for versions in versions_of(delivered, versioned):
        row = dict(versions[-1])
        labels = [each for each in versions if each["is_fraud"] is not None]
        row["is_fraud"] = labels[-1]["is_fraud"] if labels else None
        row["label_time"] = labels[-1]["label_time"] if labels else None
        if row["label_time"] is not None:
            row["label_time"] = max(row["label_time"], row["event_time"])
        merged.append(row)
    return merged


def full(delivered: dict[str, list[Row]], versioned: bool, folder: Path) -> pd.DataFrame:
    """What one extraction of the merged table makes, identifiers hashed."""
    table = frame(newest(delivered, versioned))
    table["is_fraud"] = table["is_fraud"].astype("float64")
    table["counterparty_bank"] = table["counterparty_bank"].astype("string")
    made = extract_features(EVERYTHING, written(table.drop(columns="version"), folder / "merged.parquet"))
    made["row_id"] = hashed(KEY, "payment_id", made["row_id"])
    return made.sort_values(["event_time", "row_id"]).reset_index(drop=True)


def check_any_history(delivered: dict[str, list[Row]], history: list[Any], versioned: bool) -> None:
    with TemporaryDirectory() as text:
        folder = Path(text)
        source, store = folder / "source", folder / "store"
        source.mkdir()
        mapping = VERSIONED if versioned else PLAIN
        for name, event, cut, block in history:
            content = delivered.get(name, [])
            if event == "goes" or not content:
                deliver(source, name, None)
            else:
                deliver(source, name, content if event == "arrives" else content[: len(content) // 2 + 1])
            try:
                with power_cut_after(cut or None, store):
                    extracted(source, store, mapping, block_rows=block)
            except (PowerCut, EmptyTableError, SourceError):
                pass
        for name in ("f0", "f1", "f2", "g"):
            deliver(source, name, delivered.get(name))
        done, table = extracted(source, store, mapping)
        at_once, again = extracted(source, folder / "fresh", mapping)
        pd.testing.assert_frame_equal(table, again)
        assert (done.rows, done.repeated, done.stored) == (at_once.rows, at_once.repeated, at_once.stored)
        assert done.rows == sum(map(len, delivered.values()))
        assert done.stored == len(newest(delivered, versioned))
        versions = sum(map(len, versions_of(delivered, versioned)))
        assert done.repeated == versions - done.stored
        assert done.quarantined == ({("payment_id", SHARED_ID): done.rows - versions} if done.rows > versions else {})
        aside = set_aside(FeatureStore(store), mapping)
        assert sum(group.rows for group in aside) == sum(len(group.first) for group in aside) == done.rows - versions
        if any(row["direction"] == "out" for row in newest(delivered, versioned)):
            pd.testing.assert_frame_equal(table, full(delivered, versioned, folder))
        nothing, _ = extracted(source, store, mapping)
        assert (nothing.taken, nothing.merged, nothing.built, nothing.relabelled) == ((), (), (), ())


SLOW = {"deadline": None, "suppress_health_check": list(HealthCheck), "print_blob": True}


@settings(max_examples=2, **SLOW)
@given(delivered=files, history=steps, versioned=st.booleans())
def test_any_history_of_deliveries_and_crashes_ends_in_the_full_extraction(
    delivered: dict[str, list[Row]], history: list[Any], versioned: bool
) -> None:
    check_any_history(delivered, history, versioned)


@pytest.mark.slow
@settings(max_examples=150, **SLOW)
@given(delivered=files, history=steps, versioned=st.booleans())
def test_many_histories_end_in_the_full_extraction(
    delivered: dict[str, list[Row]], history: list[Any], versioned: bool
) -> None:
    check_any_history(delivered, history, versioned)


def at(number: int, days: float, **changes: Any) -> Row:
    """A payment so many days after the start, its label known three days later."""
    moment = START + timedelta(days=days)
    return payment(number, event_time=moment, label_time=moment + timedelta(days=3)) | changes


def corrected() -> dict[str, list[Row]]:
    """A first delivery, and a second one with a late row, a correction, one that moves a day, and a late label."""
    first = [at(n, 3 * n, is_fraud=None, label_time=None) for n in range(8)]
    second = [
        at(9, 4),
        first[1] | {"amount": 999.0},
        first[2] | {"event_time": START + timedelta(days=20)},
        first[3] | {"is_fraud": 1.0, "label_time": START + timedelta(days=16)},
    ]
    return {"f0": [row | {"version": "0"} for row in first], "f1": [row | {"version": "1"} for row in second]}


def test_a_crash_at_some_writes(tmp_path: Path) -> None:
    crash_at(tmp_path, every=31)


@pytest.mark.slow
def test_a_crash_at_every_single_write(tmp_path: Path) -> None:
    crash_at(tmp_path, every=1)


def crash_at(tmp_path: Path, every: int) -> None:
    delivered = corrected()
    source, before = tmp_path / "source", tmp_path / "before"
    source.mkdir()
    deliver(source, "f0", delivered["f0"])
    extracted(source, before)
    deliver(source, "f1", delivered["f1"])
    shutil.copytree(before, tmp_path / "whole")
    with power_cut_after(None, tmp_path) as writes:
        _, expected = extracted(source, tmp_path / "whole")
    pd.testing.assert_frame_equal(expected, full(delivered, False, tmp_path))
    assert len(writes) > 30
    for count in range(0, len(writes), every):
        store = tmp_path / f"store{count}"
        shutil.copytree(before, store)
        with pytest.raises(PowerCut), power_cut_after(count, store):
            extracted(source, store)
        _, table = extracted(source, store)
        pd.testing.assert_frame_equal(table, expected)
        shutil.rmtree(store)


def test_only_what_changed_is_made_again(tmp_path: Path) -> None:
    delivered, store = corrected(), tmp_path / "store"
    source = tmp_path / "source"
    source.mkdir()
    deliver(source, "f0", delivered["f0"])
    first, _ = extracted(source, store)
    assert len(first.built) == 8
    deliver(source, "f1", [delivered["f1"][3]])
    label, _ = extracted(source, store)
    known = (START + timedelta(days=16)).date()
    assert label.merged == ((START + timedelta(days=9)).date(),)
    assert label.built and all(day >= known for day in label.built)
    assert label.relabelled == label.merged
    deliver(source, "g", [at(9, 30)])
    newer, _ = extracted(source, store)
    assert newer.built == newer.merged == ((START + timedelta(days=30)).date(),)


@pytest.mark.parametrize("days", [0, 5], ids=["the same day", "another day"])
def test_a_correction_without_a_label_keeps_the_label(days: int, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    deliver(source, "f0", [at(0, 0, is_fraud=1.0)])
    corrected_row = at(0, days, amount=77.0, is_fraud=None, label_time=None)
    deliver(source, "f1", [corrected_row])
    _, table = extracted(source, tmp_path / "store")
    assert (table["amount"].tolist(), table["is_fraud"].tolist()) == ([77.0], [1.0])
    assert table["label_time"][0] == max(START + timedelta(days=3), corrected_row["event_time"])


def test_a_touched_file_is_read_again_and_builds_nothing(tmp_path: Path) -> None:
    source = written(good_frame(), tmp_path / "payments.parquet")
    extracted(source, tmp_path / "store")
    os.utime(source, ns=(1, 1))
    done, _ = extracted(source, tmp_path / "store")
    assert done.taken == ("payments.parquet",) and not (done.merged or done.built or done.relabelled)


def test_another_key_makes_everything_anew(tmp_path: Path) -> None:
    source, store = written(good_frame(), tmp_path / "payments.parquet"), FeatureStore(tmp_path / "store")
    extracted(source, store.root)
    other = IdentifierKey(bytes(reversed(range(32))))
    extract_days(EVERYTHING, source, store, key=other)
    table = pyarrow.concat_tables(read_features(store, EVERYTHING)).to_pandas()
    assert set(table["row_id"]) == set(hashed(other, "payment_id", good_frame()["payment_id"]))


def test_features_of_another_contract_are_not_read(tmp_path: Path) -> None:
    extracted(written(good_frame(), tmp_path / "payments.parquet"), tmp_path / "store")
    other = DataContract.model_validate(EVERYTHING.model_dump() | {"version": "9.0.0"})
    with pytest.raises(DataError, match="of another contract; extract again"):
        list(read_features(FeatureStore(tmp_path / "store"), other))


def test_a_refused_file_stops_the_extraction_and_the_features_of_before_stay(tmp_path: Path) -> None:
    source, store = tmp_path / "source", tmp_path / "store"
    source.mkdir()
    deliver(source, "f0", [payment(n) for n in range(4)])
    _, before = extracted(source, store)
    deliver(source, "f1", [payment(n) for n in range(4, 8)])
    (source / "f0.parquet").write_bytes(b"PAR1 not any more")
    with pytest.raises(SourceError, match=r"f0\.parquet is not a whole Parquet file"):
        extracted(source, store)
    pd.testing.assert_frame_equal(
        pyarrow.concat_tables(read_features(FeatureStore(store), EVERYTHING)).to_pandas(), before
    )
    deliver(source, "f0", [payment(n) for n in range(4)])
    done, table = extracted(source, store)
    assert (done.stored, len(table)) == (8, 8)


def test_a_damaged_partition_is_made_again(tmp_path: Path) -> None:
    source, store = written(good_frame(), tmp_path / "payments.parquet"), FeatureStore(tmp_path / "store")
    _, before = extracted(source, store.root)
    day = store.days("features")[0]
    store.partition("features", day).write_bytes(b"")
    done, after = extracted(source, store.root)
    assert done.built == (day,)
    pd.testing.assert_frame_equal(after, before)


def test_two_writers_at_once_are_refused(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "store")
    with store.locked(), pytest.raises(SourceError, match="at work"), store.locked(patience_seconds=0):
        pass


def test_no_identifier_is_in_the_store(tmp_path: Path) -> None:
    secret = "hunter2"
    table = good_frame().assign(account_id=secret, counterparty_id=f"{secret}m", counterparty_bank=f"{secret}b")
    table["payment_id"] = [f"{secret}{n}" for n in range(len(table))]
    extracted(written(table, tmp_path / "payments.parquet"), tmp_path / "store", shared_key=KEY)
    found = 0
    for path in (tmp_path / "store").rglob("*.parquet"):
        found += 1
        content = pyarrow.parquet.read_table(path)
        assert secret not in str(content.to_pydict())
    assert found > 3


def test_the_consortium_s_hashes_are_the_same_at_every_bank(tmp_path: Path) -> None:
    shared, seen = IdentifierKey(bytes(32)), []
    for number in (1, 2):
        store = FeatureStore(tmp_path / f"store{number}")
        source = written(frame([payment(0)]), tmp_path / f"{number}.parquet")
        extract_days(EVERYTHING, source, store, key=IdentifierKey(bytes([number]) * 32), shared_key=shared)
        row = store.read(store.partition("events", store.days("events")[0])).to_pylist()[0]
        seen.append((row["shared_account"], row["shared_counterparty"]))
        assert row["shared_counterparty"] == hashed(shared, "counterparty_id", ["m0"])[0] != row["counterparty_id"]
    assert seen[0] == seen[1]


@pytest.mark.slow
def test_blocks_of_one_day_and_of_all_days_make_the_same(tmp_path: Path) -> None:
    table = frame([at(n, 6.3 * n, account_id="a") for n in range(11)])
    source = written(table, tmp_path / "payments.parquet")
    _, small = extracted(source, tmp_path / "small", block_rows=1)
    _, large = extracted(source, tmp_path / "large")
    pd.testing.assert_frame_equal(small, large)
    assert small["event_time"].max() - datetime(2024, 1, 5) > timedelta(days=60)


@pytest.mark.slow
def test_the_rows_loaded_at_a_time_do_not_grow_with_the_days(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[int] = []
    real = features.engineering.building._loaded

    def counted(connection: Any, name: str, files: Any) -> Any:
        table = real(connection, name, files)
        if name == "events":
            loaded.append(int(table.count().execute()))
        return table

    monkeypatch.setattr(features.engineering.building, "_loaded", counted)
    daily, block = 3, 40 * 3
    for days in (60, 90):
        folder = tmp_path / f"{days}"
        (folder / "source").mkdir(parents=True)
        table = frame(
            [
                payment(n, event_time=START + timedelta(days=n // daily, seconds=n), label_time=None)
                for n in range(days * daily)
            ]
        )
        for number, (_, part) in enumerate(table.groupby(table["event_time"].dt.date)):
            written(part, folder / "source" / f"{number:03d}.parquet")
        loaded.clear()
        extracted(folder / "source", folder / "store", block_rows=block)
        # A block and the 30 days before it, whatever lies before these.
        assert len(loaded) > 2 and max(loaded) <= block


def test_moved_payments_are_found_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "source").mkdir()
    rows = [payment(n, event_time=START + timedelta(hours=7 * n), label_time=None) for n in range(30)]
    written(frame(rows), tmp_path / "source" / "a.parquet")
    later = [row | {"event_time": row["event_time"] + timedelta(days=n % 3)} for n, row in enumerate(rows)]
    written(frame(later), tmp_path / "source" / "b.parquet")
    _, whole = extracted(tmp_path / "source", tmp_path / "whole")
    monkeypatch.setattr(features.store.merging, "PART_ROWS", 7)
    done, parts = extracted(tmp_path / "source", tmp_path / "parts")
    pd.testing.assert_frame_equal(parts, whole, check_exact=True)
    assert done.stored == 30 and done.repeated == 30
