"""Account statements as a source: camt.053 of several versions, each entry told once or counted."""

from pathlib import Path
from typing import Any

import pytest

from features import DataContract
from features.contract.mapping import Mapping, load_mapping
from features.errors import DataError
from features.incremental import Extraction, extract_days
from features.sources.iso20022 import ISO20022_COLUMNS, transfers
from features.store.partitions import FeatureStore
from tests.unit.features.ingestion.test_dirty_data import CONTRACT, KEY

SAMPLES = Path(__file__).parents[4] / "docs" / "samples"
OURS = "CH9300762011623852957"


def detail(reference: str = "", amount: str = "", party: str = "Cdtr", **more: str) -> str:
    """One transaction of an entry."""
    refs = f"<AcctSvcrRef>{reference}</AcctSvcrRef>" if reference else ""
    refs += f"<EndToEndId>{more.get('end_to_end', 'NOTPROVIDED')}</EndToEndId>"
    own = "Dbtr" if party == "Cdtr" else "Cdtr"
    return (
        f"<TxDtls><Refs>{refs}</Refs>{amount}<RltdPties>"
        f"<{own}Acct><Id><IBAN>{OURS}</IBAN></Id></{own}Acct><{party}><Nm>Somebody</Nm></{party}>"
        f"<{party}Acct><Id><IBAN>{more.get('iban', 'DE1')}</IBAN></Id></{party}Acct></RltdPties>"
        f"<RltdAgts><{party}Agt><FinInstnId><BIC>BBBBDEFF</BIC></FinInstnId></{party}Agt></RltdAgts></TxDtls>"
    )


def entry(
    reference: str, amount: str, mark: str = "DBIT", *details: str, status: str = "<Sts>BOOK</Sts>", more: str = ""
) -> str:
    """One booking."""
    inner = f"<NtryDtls>{''.join(details)}</NtryDtls>" if details else ""
    return (
        f'<Ntry><NtryRef>1</NtryRef><Amt Ccy="USD">{amount}</Amt><CdtDbtInd>{mark}</CdtDbtInd>{more}{status}'
        "<BookgDt><Dt>2024-01-05</Dt></BookgDt><ValDt><Dt>2024-01-06</Dt></ValDt>"
        f"<AcctSvcrRef>{reference}</AcctSvcrRef>"
        "<BkTxCd><Domn><Cd>PMNT</Cd><Fmly><Cd>ICDT</Cd><SubFmlyCd>ESCT</SubFmlyCd></Fmly></Domn></BkTxCd>"
        f"{inner}</Ntry>"
    )


def statement(*entries: str, version: str = "04", page: str = "", count: int | None = None) -> str:
    """A message of one statement."""
    summary = "" if count is None else f"<TxsSummry><TtlNtries><NbOfNtries>{count}</NbOfNtries></TtlNtries></TxsSummry>"
    return (
        f'<?xml version="1.0"?><Document xmlns="urn:iso:std:iso:20022:tech:xsd:camt.053.001.{version}"><BkToCstmrStmt>'
        f"<GrpHdr><MsgId>M</MsgId></GrpHdr><Stmt><Id>S1</Id>{page}<Acct><Id><IBAN>{OURS}</IBAN></Id></Acct>"
        f"{summary}{''.join(entries)}</Stmt></BkToCstmrStmt></Document>"
    )


def read(path: Path, text: str) -> list[dict[str, Any]]:
    path.write_text(text)
    return [dict(zip(ISO20022_COLUMNS, row, strict=True)) for batch in transfers(path, []) for row in batch]


def extracted(folder: Path, *texts: str) -> Extraction:
    source = folder / "source"
    source.mkdir()
    for number, text in enumerate(texts):
        (source / f"{number}.xml").write_text(text)
    return extract_days(CONTRACT, source, FeatureStore(folder / "store"), key=KEY, mapping=sample(folder, CONTRACT))


def sample(folder: Path, contract: DataContract) -> Mapping:
    (folder / "rates.csv").write_text("day,currency,rate\n2024-01-05,CHF,1.1\n")
    (folder / "mapping.yaml").write_text((SAMPLES / "mapping_camt053.yaml").read_text())
    return load_mapping(folder / "mapping.yaml", contract)


@pytest.mark.parametrize("version", ["02", "04", "06", "08", "10"])
def test_an_entry_of_any_version_is_a_payment(version: str, tmp_path: Path) -> None:
    status = "<Sts><Cd>BOOK</Cd></Sts>" if version >= "08" else "<Sts>BOOK</Sts>"
    (row,) = read(tmp_path / "a.xml", statement(entry("R1", "12.50", "DBIT", detail(), status=status), version=version))
    assert row == {
        "message_id": "S1", "payment_id": "R1", "end_to_end_id": "NOTPROVIDED", "time": "2024-01-05",
        "settlement_date": "2024-01-06", "amount": "12.50", "currency": "USD", "direction": "out", "account": OURS,
        "counterparty": "DE1", "counterparty_agent": "BBBBDEFF", "purpose": None, "booking_date": "2024-01-05",
        "reversal": "false", "bank_code": "PMNT/ICDT/ESCT",
    }  # fmt: skip


def test_a_credit_comes_from_the_debtor(tmp_path: Path) -> None:
    (row,) = read(tmp_path / "a.xml", statement(entry("R1", "1.00", "CRDT", detail(party="Dbtr", iban="FR2"))))
    assert (row["direction"], row["counterparty"], row["account"]) == ("in", "FR2", OURS)


def test_a_reversal_moves_back_and_keeps_its_parties(tmp_path: Path) -> None:
    text = statement(entry("R1", "1.00", "CRDT", detail(iban="FR2"), more="<RvslInd>true</RvslInd>"))
    (row,) = read(tmp_path / "a.xml", text)
    assert (row["direction"], row["counterparty"], row["reversal"]) == ("in", "FR2", "true")


def test_a_batch_is_a_row_for_each_transaction(tmp_path: Path) -> None:
    amounts = [f'<Amt Ccy="USD">{number}.00</Amt>' for number in (1, 2)]
    amounts.append('<AmtDtls><TxAmt><Amt Ccy="CHF">3.00</Amt></TxAmt></AmtDtls>')
    details = [detail("R1", each, iban=f"DE{number}") for number, each in enumerate(amounts)]
    details.append(detail("own", '<Amt Ccy="USD">4.00</Amt>', end_to_end="E4"))
    rows = read(tmp_path / "a.xml", statement(entry("R1", "10.00", "DBIT", *details)))
    assert [(row["payment_id"], row["amount"], row["currency"]) for row in rows] == [
        ("R1/1", "1.00", "USD"), ("R1/2", "2.00", "USD"), ("R1/3", "3.00", "CHF"), ("own", "4.00", "USD"),
    ]  # fmt: skip


def test_a_booking_without_details_is_one_row(tmp_path: Path) -> None:
    done = extracted(tmp_path, statement(entry("R1", "10.00"), entry("R2", "3.00", "CRDT")))
    assert (done.rows, done.stored, done.quarantined) == (2, 2, {})


def test_a_statement_without_an_entry_is_no_fault(tmp_path: Path) -> None:
    done = extracted(tmp_path, statement(entry("R1", "10.00")), statement(count=0))
    assert (len(done.taken), done.rows, done.stored) == (2, 1, 1)


def test_a_transaction_of_a_batch_without_an_amount_is_set_aside(tmp_path: Path) -> None:
    batch = entry("R1", "10.00", "DBIT", detail("a", '<Amt Ccy="USD">1.00</Amt>'), detail("b"))
    done = extracted(tmp_path, statement(batch))
    assert done.rows == 2 == done.stored + sum(done.quarantined.values()) and done.stored == 1
    assert [column for column, _ in done.quarantined] == ["amount"]


def test_entries_that_are_not_booked_are_counted(tmp_path: Path) -> None:
    pending = [entry("P", "1.00", status=each) for each in ("<Sts>PDNG</Sts>", "<Sts><Cd>INFO</Cd></Sts>")]
    done = extracted(tmp_path, statement(entry("R1", "10.00", "DBIT", detail()), *pending))
    assert (done.rows, done.stored) == (3, 1)
    assert done.quarantined == {("", "an entry that is not booked"): 2}


def test_pages_of_a_statement_and_the_same_statement_twice(tmp_path: Path) -> None:
    def paged(number: int, last: str, *entries: str) -> str:
        page = f"<StmtPgntn><PgNb>{number}</PgNb><LastPgInd>{last}</LastPgInd></StmtPgntn>"
        return statement(*entries, page=page, count=3)

    first = paged(1, "false", entry("R1", "1.00"), entry("R2", "2.00"))
    done = extracted(tmp_path, first, paged(2, "true", entry("R3", "3.00")), first)
    assert (done.rows, done.stored, done.repeated, done.quarantined) == (5, 3, 2, {})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (statement(entry("R1", "1.00"))[:-60], "is not whole XML at line 1"),
        (statement(entry("R1", "1.00")).replace("</Amt>", "</Amx>"), "is not whole XML at line 1"),
        (statement(entry("R1", "1.00"), count=2), "has a statement of 1 entries, and its summary does not say so"),
        (statement(entry("R" * 2000, "1.00")), "has an identifier of more than 1000 characters"),
    ],
    ids=["cut short", "damaged", "an entry missing", "an endless id"],
)
def test_a_damaged_statement_is_refused_with_its_name_and_place(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path / "a.xml", text)
    assert words in str(caught.value) and "a.xml" in str(caught.value)
