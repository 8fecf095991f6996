"""A source of labels beside the payments: counted, idempotent, point in time, in any order, purged with payments."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

import features.engineering.building
from features import DataContract, load_contract
from features.contract.mapping import LabelMapping, Mapping, identity_mapping
from features.errors import SourceError
from features.identifiers import KEY_BYTES, IdentifierKey
from features.incremental import Extraction, extract_days, purge_days, read_features
from features.store.label_source import LabelCounts
from features.store.partitions import FeatureStore
from tests.unit.features.engineering.test_point_in_time import EVERYTHING
from tests.unit.features.payments import START, frame, payment, written

KEY = IdentifierKey(bytes(range(KEY_BYTES)))


def unlabelled(days: int = 20, **changes: Any) -> pd.DataFrame:
    """One payment a day of one account to one merchant."""
    rows = [
        payment(number, event_time=START + timedelta(days=number), is_fraud=None, label_time=None)
        | {"account_id": "a", "counterparty_id": "m"}
        | changes
        for number in range(days)
    ]
    table = frame(rows)
    return table.astype({"is_fraud": "float64", "label_time": "datetime64[us]"})


def told(*rows: tuple[str, Any, int | None]) -> pd.DataFrame:
    """Decisions: payment, verdict, and the day after `START` on which it was made."""
    return pd.DataFrame(
        {
            "payment_id": [payment_id for payment_id, _, _ in rows],
            "is_fraud": pd.array([verdict for _, verdict, _ in rows], dtype="object"),
            "label_time": pd.to_datetime(
                [None if day is None else START + timedelta(days=day) for _, _, day in rows]
            ).astype("datetime64[us]"),
        }
    )


class Bank:
    """A folder of payments, a folder of labels, a store."""

    def __init__(self, folder: Path, contract: DataContract = EVERYTHING) -> None:
        self.payments, self.labels, self.store = folder / "payments", folder / "labels", FeatureStore(folder / "store")
        self.payments.mkdir(parents=True)
        self.labels.mkdir()
        self.contract = contract

    def tell(self, name: str, *rows: tuple[str, Any, int | None]) -> None:
        told(*rows).to_csv(self.labels / f"{name}.csv", index=False)

    def extract(self, mapping: Mapping | None = None) -> Extraction:
        labels = self.labels if any(self.labels.iterdir()) else None
        return extract_days(self.contract, self.payments, self.store, key=KEY, mapping=mapping, labels=labels)

    def features(self) -> pd.DataFrame:
        return pyarrow.concat_tables(read_features(self.store, self.contract)).to_pandas()


@pytest.fixture
def bank(tmp_path: Path) -> Bank:
    made = Bank(tmp_path)
    written(unlabelled(), made.payments / "all.parquet")
    return made


def test_a_label_is_picked_up_from_the_day_on_which_it_became_known(bank: Bank) -> None:
    first = bank.extract()
    assert first.labels == LabelCounts() and first.frauds == 0
    bank.tell("monday", ("p3", 1, 10), ("p4", 0, 10))
    done = bank.extract()
    assert done.labels == LabelCounts(rows=2, applied=2)
    table = bank.features()
    assert table["is_fraud"].fillna(-1).tolist() == [1.0 if n == 3 else 0.0 if n == 4 else -1.0 for n in range(20)]
    # The payment of day 10 has the very time of the decision: it does not see it, the next one does.
    assert table["counterparty_fraud_count_7d"].tolist() == [0.0] * 11 + [1.0] * 7 + [0.0] * 2
    # Only days from the decision on are made anew; the labelled days before get their label alone.
    day = [START.date() + timedelta(days=n) for n in range(20)]
    assert set(done.built) == set(day[10:]) and set(done.relabelled) == {day[3], day[4]}
    again = bank.extract()
    assert (again.taken, again.merged, again.built, again.relabelled) == ((), (), (), ())
    assert again.labels == done.labels


def test_without_a_time_a_label_counts_after_the_contract_s_delay(bank: Bank) -> None:
    bank.tell("x", ("p3", 1, None))
    bank.extract()
    table = bank.features()
    assert table["label_time"][3] == START + timedelta(days=3 + 7)
    assert table["counterparty_fraud_count_30d"].tolist() == [0.0] * 11 + [1.0] * 9


@pytest.mark.slow
def test_a_daily_extraction_reads_old_labels_only_where_one_became_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[list[str]] = []
    earlier = features.engineering.building._earlier

    def counted(connection: Any, contract: Any, files: Any, late: Any) -> Any:
        read.append([path.stem for path in late])
        return earlier(connection, contract, files, late)

    monkeypatch.setattr(features.engineering.building, "_earlier", counted)
    counts = []
    for length in (60, 120):
        bank = Bank(tmp_path / str(length))
        everything = unlabelled(length + 1)
        written(everything[:-1], bank.payments / "a.parquet")
        # Old frauds by the dozen, known long ago, and one on the second day whose report comes on the last.
        bank.tell("old", *((f"p{n}", 1, n + 2) for n in range(3, length // 2 - 20, 2)))
        bank.extract()
        written(everything[-1:], bank.payments / "b.parquet")
        bank.tell("new", ("p1", 1, length - 1))
        read.clear()
        done = bank.extract()
        day = START.date()
        assert set(done.built) == {day + timedelta(days=length - 1), day + timedelta(days=length)}
        assert set(done.relabelled) == {day + timedelta(days=1)}
        assert bank.features()["counterparty_fraud_count_30d"].iloc[-1] == 1.0
        counts.append([len(each) for each in read])
        assert read == [[(day + timedelta(days=1)).isoformat()]]
    assert counts[0] == counts[1]


def test_a_label_known_late_changes_no_day_beyond_its_windows(tmp_path: Path) -> None:
    bank = Bank(tmp_path)
    written(unlabelled(60), bank.payments / "all.parquet")
    bank.extract()
    bank.tell("x", ("p3", 1, 10))
    done = bank.extract()
    assert set(done.built) == {START.date() + timedelta(days=n) for n in range(10, 41)}
    fresh = FeatureStore(tmp_path / "fresh")
    extract_days(bank.contract, bank.payments, fresh, key=KEY, labels=bank.labels)
    again = pyarrow.concat_tables(read_features(fresh, bank.contract)).to_pandas()
    pd.testing.assert_frame_equal(bank.features(), again)


def test_a_decision_before_its_payment_counts_from_the_payment_on(bank: Bank) -> None:
    bank.tell("x", ("p9", 1, 2))
    bank.extract()
    table = bank.features()
    assert table["label_time"][9] == table["event_time"][9]
    assert table["counterparty_fraud_count_30d"].tolist() == [0.0] * 10 + [1.0] * 10


def test_the_newest_verdict_counts_and_before_the_payments_own(tmp_path: Path) -> None:
    bank = Bank(tmp_path)
    written(unlabelled(is_fraud=0.0), bank.payments / "all.parquet")
    bank.tell("a", ("p1", 1, 8), ("p2", 1, 8), ("p2", 0, 9))
    bank.tell("b", ("p1", 0, 12), ("p5", 1, 12))
    done = bank.extract()
    assert done.labels == LabelCounts(rows=5, applied=3, repeated=2)
    assert bank.features().set_index("row_id")["is_fraud"].sum() == done.frauds == 1
    # A file that is taken away takes its verdicts along.
    (bank.labels / "b.csv").unlink()
    assert bank.extract().frauds == 1 and bank.features()["is_fraud"][1] == 1.0
    bank.labels.joinpath("a.csv").unlink()
    assert bank.extract().labels == LabelCounts() and bank.features()["is_fraud"].eq(0.0).all()


def test_a_verdict_waits_for_its_payment(bank: Bank) -> None:
    bank.tell("x", ("p3", 1, 9), ("later", 1, 30))
    assert bank.extract().labels == LabelCounts(rows=2, applied=1, waiting=1)
    late = unlabelled(1, payment_id="later", event_time=START + timedelta(days=21))
    written(late, bank.payments / "late.parquet")
    done = bank.extract()
    assert done.labels == LabelCounts(rows=2, applied=2) and done.frauds == 2


def test_incoming_payments_take_no_label(tmp_path: Path) -> None:
    bank = Bank(tmp_path)
    both = pd.concat([unlabelled(2), unlabelled(2, direction="in")], ignore_index=True)
    written(both, bank.payments / "all.parquet")
    bank.tell("x", ("p1", 1, 9))
    assert bank.extract().labels.applied == 1
    events = pd.concat(
        bank.store.read(bank.store.partition("events", d)).to_pandas() for d in bank.store.days("events")
    )
    assert events.groupby("direction")["is_fraud"].sum().to_dict() == {"in": 0.0, "out": 1.0}


def test_the_mapping_s_words_for_no_value_count_for_labels_too(bank: Bank) -> None:
    bank.tell("cases", ("p3", "1", 5), ("p4", "n/a", None))
    plain = identity_mapping(EVERYTHING)
    before = bank.extract(plain)
    assert before.labels.quarantined == {("labels.is_fraud", "text that is not a number"): 1}
    done = bank.extract(plain.model_copy(update={"nulls": ("n/a",)}))
    assert done.labels.quarantined == {("labels.is_fraud", "no value"): 1}
    codes = {"payment_id": {"from": "p"}, "is_fraud": {"from": "v", "codes": {"n/a": 0}}}
    with pytest.raises(ValueError, match=r"labels\.is_fraud: codes: 'n/a' never matches"):
        Mapping.model_validate(plain.model_dump(by_alias=True) | {"nulls": ["n/a"], "labels": {"columns": codes}})


def test_bad_rows_are_set_aside_and_an_export_is_mapped(bank: Bank) -> None:
    (bank.labels / "cases.csv").write_text(
        "Case;Txn;Verdict;Closed\n1;p3;FRAUD;14.01.2024 10:00:00\n2;p4;genuine;15.01.2024 10:00:00\n"
        "3;p5;maybe;15.01.2024 10:00:00\n4;p6;FRAUD;yesterday\n5;;FRAUD;15.01.2024 10:00:00\n"
        "6;p7;open;\n7;p3;genuine\n"
    )
    labels = {
        "csv": {"delimiter": ";"},
        "columns": {
            "payment_id": {"from": "Txn"},
            "is_fraud": {"from": "Verdict", "codes": {"FRAUD": 1, "genuine": 0, "open": None}},
            "label_time": {"from": "Closed", "format": "%d.%m.%Y %H:%M:%S"},
        },
    }
    mapping = identity_mapping(EVERYTHING).model_copy(update={"labels": LabelMapping.model_validate(labels)})
    done = bank.extract(mapping)
    assert (done.labels.rows, done.labels.applied) == (7, 2)
    assert sum(done.labels.quarantined.values()) == 5
    assert done.labels.quarantined["labels.is_fraud", "a code that the mapping doesn't know"] == 1
    assert done.labels.quarantined["labels.is_fraud", "no value"] == 1
    assert done.rows == done.stored == 20 and not done.quarantined
    kept = [file for file in bank.store.root.rglob("*") if file.is_file()]
    assert not any(b"genuine" in file.read_bytes() or b"Txn" in file.read_bytes() for file in kept)


def test_a_label_file_that_can_t_be_used_stops_the_extraction(bank: Bank) -> None:
    bank.tell("x", ("p3", 1, 9))
    bank.extract()
    (bank.labels / "y.csv").write_text("payment_id,is_fraud\np4,1\n")
    with pytest.raises(SourceError, match=r"y\.csv has no column label_time"):
        bank.extract()
    assert bank.features()["is_fraud"].sum() == 1
    (bank.labels / "y.csv").write_text("payment_id,is_fraud,label_time\np4,7,2024-01-12\n")
    with pytest.raises(SourceError, match=r"1 rows and none is good: column labels.is_fraud: a number that is not 0"):
        bank.extract()
    # No case is decided on some days.
    (bank.labels / "y.csv").write_text("payment_id,is_fraud,label_time\n")
    assert bank.extract().labels.rows == 1


@pytest.mark.parametrize(
    "columns",
    [
        {"payment_id": {"from": "x"}},
        {"payment_id": {"from": "x"}, "is_fraud": {"absent": True}},
        {"amount": {"from": "x"}},
    ],
)
def test_a_mapping_of_labels_needs_payment_and_verdict(columns: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="label"):
        LabelMapping.model_validate({"columns": columns})


def test_a_purged_customer_s_labels_go_and_stay_away(tmp_path: Path) -> None:
    bank = Bank(tmp_path)
    other = unlabelled(3).assign(payment_id=["q0", "q1", "q2"], account_id="b")
    written(pd.concat([unlabelled(), other], ignore_index=True), bank.payments / "all.parquet")
    bank.tell("x", ("p3", 1, 9), ("q1", 1, 9))
    bank.extract()

    def kept() -> int:
        return sum(len(bank.store.read(file)) for file in bank.store.root.glob("intake/*/labels.parquet"))

    purge_days(EVERYTHING, bank.store, key=KEY, accounts=["b"])
    assert kept() == 1
    bank.tell("x", ("p3", 1, 9), ("q1", 1, 9), ("q2", 1, 9), ("late", 1, 9))
    done = bank.extract()
    assert kept() == 1 and done.labels == LabelCounts(rows=4, applied=1, waiting=3)
    # Still picked up when its payment comes, though it could not be kept meanwhile.
    written(unlabelled(1, payment_id="late"), bank.payments / "late.parquet")
    assert bank.extract().labels == LabelCounts(rows=4, applied=2, waiting=2)


verdicts = st.lists(
    st.tuples(
        st.sampled_from([f"p{n}" for n in range(6)]), st.sampled_from([0, 1]), st.sampled_from([None, 0, 3, 8, 31])
    ),
    max_size=4,
)


def check_any_order(
    files: list[list[tuple[str, int, int | None]]], order: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    once, piecewise = (Bank(tmp_path_factory.mktemp("bank")) for _ in range(2))
    days = unlabelled(6)
    for place, rows in enumerate(files):
        once.tell(f"f{place}", *rows)
    written(days, once.payments / "all.parquet")
    whole = once.extract()
    todo = [("labels", place) for place in range(len(files))] + [("payments", place) for place in range(3)]
    order.shuffle(todo)
    for kind, place in todo:
        if kind == "labels":
            piecewise.tell(f"f{place}", *files[place])
        else:
            written(days.iloc[2 * place : 2 * place + 2], piecewise.payments / f"f{place}.parquet")
        if any(piecewise.payments.iterdir()):
            done = piecewise.extract()
    assert done.labels == whole.labels
    assert whole.labels.rows == sum(len(rows) for rows in files)
    pd.testing.assert_frame_equal(piecewise.features(), once.features(), check_exact=True)
    newest = {payment_id: verdict for rows in files for payment_id, verdict, _ in rows}
    assert done.labels.applied == len(newest) and done.frauds == sum(newest.values())


@pytest.mark.slow
@settings(max_examples=2, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(files=st.lists(verdicts, min_size=1, max_size=3), order=st.randoms())
def test_any_order_of_deliveries_gives_the_same_store(
    files: list[list[tuple[str, int, int | None]]], order: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    check_any_order(files, order, tmp_path_factory)


@pytest.mark.slow
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(files=st.lists(verdicts, min_size=1, max_size=3), order=st.randoms())
def test_many_orders_of_deliveries_give_the_same_store(
    files: list[list[tuple[str, int, int | None]]], order: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    check_any_order(files, order, tmp_path_factory)


def test_the_configured_bank_takes_labels_and_says_so(bank: Bank, tmp_path: Path) -> None:
    from bank_node import pipeline

    bank.tell("x", ("p3", 1, 9), ("nobody", 0, 9))
    document = {
        "bank_id": "alder_bank",
        "events": "payments",
        "labels": "labels",
        "work_dir": "work",
        "aggregator": {"ca": "ca.pem", "certificate": "bank.pem", "key": "bank.key"},
    }
    (tmp_path / "alder.yaml").write_text(yaml.safe_dump(document))
    lines: list[str] = []
    done = pipeline.extract(tmp_path / "alder.yaml", log=lines.append)
    assert done["labels"] == {"read": 2, "applied": 1, "waiting": 1, "repeated": 0, "quarantined": {}}
    assert any("labels: of 2 rows 1 applied, 1 wait for their payment" in text for text in lines)
    assert done["frauds"] == 1 and load_contract().label.delay_days == 7


def test_a_verdict_can_t_be_the_sign_of_a_number() -> None:
    columns = {"payment_id": {"from": "payment_id"}, "is_fraud": {"sign_of": "amount"}}
    with pytest.raises(ValidationError, match="sign_of is for the direction of payments"):
        LabelMapping.model_validate({"columns": columns})
