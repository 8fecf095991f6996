"""The ready mappings of public data sets, each on a small file of that shape made here."""

from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from features import load_contract
from features.contract.mapping import load_mapping
from features.identifiers import IdentifierKey
from features.incremental import Extraction, extract_days
from features.store.partitions import FeatureStore

CONTRACT = load_contract()
SAMPLES = Path(__file__).parents[4] / "docs" / "samples"


def extracted(sample: str, content: str, folder: Path) -> tuple[Extraction, list[dict[str, Any]]]:
    """What the ready mapping makes of a file, events in order of time."""
    path = folder / "payments.csv"
    path.write_text(content)
    mapping = load_mapping(SAMPLES / f"mapping_{sample}.yaml", CONTRACT)
    store = FeatureStore(folder / "store")
    done = extract_days(CONTRACT, path, store, key=IdentifierKey(bytes(32)), mapping=mapping)
    tables = [pyarrow.parquet.read_table(store.partition("events", day)) for day in store.days("events")]
    assert done.rows == done.stored + done.repeated + sum(done.quarantined.values())
    return done, pyarrow.concat_tables(tables).sort_by("event_time").to_pylist()


def test_paysim(tmp_path: Path) -> None:
    head = "step,type,amount,nameOrig,oldbalanceOrg,newbalanceOrig,nameDest,oldbalanceDest,newbalanceDest,isFraud,"
    rows = [
        "1,PAYMENT,9839.64,C1231006815,170136.0,160296.36,M1979787155,0.0,0.0,0,0",
        "2,TRANSFER,181.0,C1305486145,181.0,0.0,C553264065,0.0,0.0,1,0",
        "30,CASH_IN,143236.26,C1862994526,0.0,143236.26,C1688019098,608932.17,97263.78,0,1",
    ]
    done, events = extracted("paysim", "\n".join([head + "isFlaggedFraud", *rows]) + "\n", tmp_path)
    assert (done.stored, done.quarantined) == (3, {})
    assert [row["event_time"] for row in events] == [
        datetime(2024, 1, 1, 1),
        datetime(2024, 1, 1, 2),
        datetime(2024, 1, 2, 6),
    ]
    assert [(row["direction"], row["channel"], row["is_fraud"]) for row in events] == [
        ("out", "card", 0.0),
        ("out", "transfer", 1.0),
        ("in", "transfer", 0.0),
    ]


def test_sparkov(tmp_path: Path) -> None:
    head = (
        ",trans_date_trans_time,cc_num,merchant,category,amt,first,last,gender,street,city,state,zip,lat,long,city_pop,"
        "job,dob,trans_num,unix_time,merch_lat,merch_long,is_fraud"
    )
    person = "A,B,F,1 Street,Town,NC,28654,36.0,-81.1,3495,Job,1988-03-09"
    rows = [
        f'0,2019-01-01 00:00:18,2703186189652095,"fraud_Rippin, Kub",misc_net,4.97,{person},0b242abb,1325376018,3,-8,0',
        f"1,2019-01-01 00:00:44,630423337322,fraud_Heller,grocery_pos,107.23,{person},1f76529f,1325376044,4,-118,1",
    ]
    done, events = extracted("sparkov", "\n".join([head, *rows]) + "\n", tmp_path)
    assert (done.stored, done.quarantined) == (2, {})
    assert [(row["amount"], row["category"], row["is_fraud"]) for row in events] == [
        (4.97, "misc_net", 0.0),
        (107.23, "grocery_pos", 1.0),
    ]
    assert events[0]["event_time"] == datetime(2012, 1, 1, 0, 0, 18)


def test_ibm_s_transactions(tmp_path: Path) -> None:
    head = "Timestamp,From Bank,Account,To Bank,Account,Amount Received,Receiving Currency,Amount Paid,"
    rows = [
        "2022/09/01 00:20,010,8000EBD30,011,8000F5340,3697.34,US Dollar,3697.34,US Dollar,Reinvestment,0",
        "2022/09/01 00:21,03208,8000F4580,001,8000F5340,0.01,US Dollar,0.01,US Dollar,Credit Card,1",
        "2022/09/01 00:22,03209,8000F4670,003,8000F5350,1.5,Euro,1.5,Euro,Cheque,0",
        "2022/09/01 00:23,03209,8000F4670,003,8000F5350,1.5,Bitcoin,1.5,Bitcoin,Bitcoin,0",
    ]
    content = "\n".join([f"{head}Payment Currency,Payment Format,Is Laundering", *rows]) + "\n"
    done, events = extracted("ibm_aml", content, tmp_path)
    assert (done.stored, done.quarantined) == (2, {("amount", "a currency without a rate"): 2})
    assert [(row["amount"], row["channel"], row["is_fraud"]) for row in events] == [
        (3697.34, "transfer", 0.0),
        (0.01, "card", 1.0),
    ]
    assert len({events[0]["account_id"], events[0]["counterparty_id"], events[1]["account_id"]}) == 3
    assert events[0]["counterparty_id"] == events[1]["counterparty_id"]


def test_the_generator_s(tmp_path: Path) -> None:
    head = "payment_id,event_time,account_id,counterparty_id,counterparty_bank,direction,channel,amount,category,"
    rows = [
        "p1,2026-01-01 10:00:00,a,m1,,out,card,12.5,home,0,2026-01-15 10:00:00",
        "p2,2026-01-01 11:00:00,a,b,other_bank,in,transfer,7,transfer,,",
    ]
    done, events = extracted("generator", "\n".join([f"{head}is_fraud,label_time", *rows]) + "\n", tmp_path)
    assert (done.stored, done.quarantined) == (2, {})
    assert [row["amount"] for row in events] == [12.5, 7.0]
