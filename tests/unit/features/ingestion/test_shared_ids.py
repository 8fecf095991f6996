"""Rows that share an id: versions of a payment are repeats, others are set aside, in a file and across files."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.contract.mapping import identity_mapping
from features.contract.row_rules import SHARED_ID
from features.errors import SourceError
from features.incremental import Extraction, extract_days
from features.ingestion.normalise import normalised
from features.ingestion.quarantine import set_aside
from features.ingestion.shared_ids import without_shared_ids
from features.sources.files import engine
from features.store.partitions import FeatureStore
from tests.unit.features.ingestion.test_dirty_data import CONTRACT, HEADER, KEY, line, text

GROUP = ("payment_id", SHARED_ID)
OTHER = {"account_id": "another", "event_time": "2024-01-07 10:00:00", "amount": "77.00"}


def extracted(folder: Path, *files: list[str]) -> tuple[Extraction, FeatureStore]:
    (folder / "source").mkdir()
    for number, rows in enumerate(files):
        (folder / "source" / f"{number}.csv").write_bytes(text(*rows))
    store = FeatureStore(folder / "store")
    done = extract_days(CONTRACT, folder / "source", store, key=KEY, mapping=identity_mapping(CONTRACT))
    assert done.rows == sum(map(len, files)) == done.stored + done.repeated + sum(done.quarantined.values())
    return done, store


def amounts(store: FeatureStore) -> list[float]:
    return sorted(
        amount
        for day in store.days("events")
        for amount in store.read(store.partition("events", day))["amount"].to_pylist()
    )


def test_another_payment_with_an_id_of_the_file_is_set_aside(tmp_path: Path) -> None:
    done, store = extracted(tmp_path, [line(0), line(1), line(0, **OTHER)])
    assert (done.stored, done.repeated, done.quarantined) == (2, 0, {GROUP: 1})
    (group,) = set_aside(store)
    assert (group.source, group.first, group.rows) == ("0.csv", (1,), 1)
    assert "two payments have one id" in group.mend
    assert 77.0 in amounts(store)


@pytest.mark.parametrize("same_day", [True, False])
def test_another_payment_with_an_id_of_an_earlier_file_is_set_aside(same_day: bool, tmp_path: Path) -> None:
    moment = line(0).split(",")[HEADER.strip().split(",").index("event_time")]
    other = OTHER | ({"event_time": moment[:-1] + "7"} if same_day else {})
    done, store = extracted(tmp_path, [line(0), line(1)], [line(0, **other)])
    assert (done.stored, done.repeated, done.quarantined) == (2, 0, {GROUP: 1})
    (group,) = set_aside(store)
    assert (group.source, group.first) == ("0.csv", (1,))


@pytest.mark.parametrize("kept", list(OTHER))
def test_a_correction_of_two_of_the_three_is_a_version(kept: str, tmp_path: Path) -> None:
    changed = {name: value for name, value in OTHER.items() if name != kept}
    done, _ = extracted(tmp_path, [line(0), line(1)], [line(0, **changed)])
    assert (done.stored, done.repeated, done.quarantined) == (2, 1, {})


def test_ids_that_begin_anew_in_each_file_are_set_aside_not_repeated(tmp_path: Path) -> None:
    days = [
        [
            line(n, event_time=f"2024-01-{day:02d} 10:00:0{n}", account_id=f"a{day}", amount=f"{day}.0{n}")
            for n in range(4)
        ]
        for day in (6, 7, 8)
    ]
    done, _ = extracted(tmp_path, *days)
    assert (done.stored, done.repeated, done.quarantined) == (4, 0, {GROUP: 8})


Row = tuple[int, int, int, int]
table = st.lists(st.tuples(*[st.integers(0, most) for most in (3, 1, 2, 2)]), min_size=1, max_size=12)


def of_another(rows: list[Row]) -> list[int]:
    """The oracle: numbers of the rows that differ in all three from the last row of their id."""
    last = {row[0]: row for row in rows}
    return [
        number
        for number, row in enumerate(rows, start=1)
        if all(a != b for a, b in zip(row[1:], last[row[0]][1:], strict=True))
    ]


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=table)
def test_every_row_is_a_version_or_set_aside_or_the_file_is_refused(rows: list[Row]) -> None:
    lines = [
        line(
            number,
            payment_id=f"p{pay}",
            account_id=f"a{account}",
            event_time=f"2024-01-06 10:00:0{moment}",
            amount=f"{1 + amount}.00",
        )
        for number, (pay, account, moment, amount) in enumerate(rows)
    ]
    expected = of_another(rows)
    with TemporaryDirectory() as folder, engine(1) as connection:
        file = Path(folder) / "payments.csv"
        file.write_bytes(text(*lines))
        made = normalised(connection, file, CONTRACT, identity_mapping(CONTRACT), None)
        if len(expected) > 1:
            with pytest.raises(SourceError, match=r"payments\.csv"):
                without_shared_ids(connection, file, made)
            return
        told = without_shared_ids(connection, file, made)
        bad: list[dict[str, Any]] = connection.to_pyarrow(told.bad).to_pylist()
        good = connection.to_pyarrow(told.good)["row_"].to_pylist()
    assert [row["row_"] for row in bad] == expected
    assert sorted([*good, *expected]) == list(range(1, len(rows) + 1))
    assert all((row["column_"], row["reason_"]) == GROUP for row in bad)
