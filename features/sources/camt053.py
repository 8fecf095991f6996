"""Booked entries of camt.053 statements, of any version, as flat rows of text. Parses no XML itself, keeps no name.

`features.sources.iso20022` streams the file and tells this reader which element begins and ends. A booking of several
transactions (a batch) becomes a row for each. Entries that are not booked are counted, not told as payments.
"""

from collections.abc import Iterator, Sequence

__all__ = ["NOT_BOOKED", "StatementError", "StatementReader"]

NOT_BOOKED = "an entry that is not booked"

_STATEMENT = {
    ("Id",): "statement",
    ("CreDtTm",): "created",
    ("Acct", "Id", "IBAN"): "account",
    ("Acct", "Id", "Othr", "Id"): "account",
    ("Acct", "Ccy"): "account_currency",
    ("StmtPgntn", "PgNb"): "page",
    ("StmtPgntn", "LastPgInd"): "last_page",
    ("TxsSummry", "TtlNtries", "NbOfNtries"): "count",
}

_BOTH = {
    ("Amt",): "amount",
    ("CdtDbtInd",): "mark",
    ("BkTxCd", "Domn", "Cd"): "code_domain",
    ("BkTxCd", "Domn", "Fmly", "Cd"): "code_family",
    ("BkTxCd", "Domn", "Fmly", "SubFmlyCd"): "code_sub_family",
    ("BkTxCd", "Prtry", "Cd"): "code_own",
}

_ENTRY = _BOTH | {
    ("AcctSvcrRef",): "bank_reference",
    ("RvslInd",): "reversal",
    ("Sts",): "status",
    ("Sts", "Cd"): "status",
    ("BookgDt", "Dt"): "booking_date",
    ("BookgDt", "DtTm"): "booking_date",
    ("ValDt", "Dt"): "value_date",
    ("ValDt", "DtTm"): "value_date",
}

_DETAIL = _BOTH | {
    ("Refs", "UETR"): "uetr",
    ("Refs", "AcctSvcrRef"): "bank_reference",
    ("Refs", "TxId"): "tx_id",
    ("Refs", "InstrId"): "instruction_id",
    ("Refs", "EndToEndId"): "end_to_end_id",
    ("AmtDtls", "TxAmt", "Amt"): "transaction_amount",
    ("AmtDtls", "InstdAmt", "Amt"): "instructed_amount",
    ("RltdPties", "DbtrAcct", "Id", "IBAN"): "debtor",
    ("RltdPties", "DbtrAcct", "Id", "Othr", "Id"): "debtor",
    ("RltdPties", "CdtrAcct", "Id", "IBAN"): "creditor",
    ("RltdPties", "CdtrAcct", "Id", "Othr", "Id"): "creditor",
    ("RltdAgts", "DbtrAgt", "FinInstnId", "BICFI"): "debtor_agent",
    ("RltdAgts", "DbtrAgt", "FinInstnId", "BIC"): "debtor_agent",
    ("RltdAgts", "CdtrAgt", "FinInstnId", "BICFI"): "creditor_agent",
    ("RltdAgts", "CdtrAgt", "FinInstnId", "BIC"): "creditor_agent",
    ("RltdDts", "AccptncDtTm"): "accepted",
    ("RltdDts", "TxDtTm"): "accepted",
    ("Purp", "Cd"): "purpose",
}

_DETAIL_PATH = ("NtryDtls", "TxDtls")
_AMOUNTS = ("amount", "transaction_amount", "instructed_amount")
_DIRECTIONS = {"DBIT": "out", "CRDT": "in"}
_TRUE = ("true", "1")


class StatementError(Exception):
    """The statement contradicts itself; the text says in what, without a value."""


class StatementReader:
    """Gathers the entries of the statements of one message, in the order of `ISO20022_COLUMNS`.

    Attributes:
        unbooked: entries that were passed over, since they are not booked.
    """

    def __init__(self) -> None:
        self.unbooked = 0
        self._statement: dict[str, str] = {}
        self._entry: dict[str, str] = {}
        self._details: list[dict[str, str]] = []
        self._seen = 0

    def opened(self, below: Sequence[str], currency: str) -> tuple[dict[str, str], str] | None:
        """An element of the message began: where its text goes, and under which name; None if it is not wanted.

        Args:
            below: names of the elements from the one below the message's down to it.
            currency: its attribute ``Ccy``, or "".
        """
        if below[0] != "Stmt":
            return None
        inner = tuple(below[1:])
        if not inner:
            self._statement, self._seen = {}, 0
            return None
        if inner[0] != "Ntry":
            return self._place(self._statement, _STATEMENT, inner, "")
        inner = inner[1:]
        if not inner:
            self._entry, self._details = {}, []
            return None
        if inner == _DETAIL_PATH:
            self._details.append({})
            return None
        if inner[:2] == _DETAIL_PATH:
            return self._place(self._details[-1], _DETAIL, inner[2:], currency)
        return self._place(self._entry, _ENTRY, inner, currency)

    @staticmethod
    def _place(
        target: dict[str, str], wanted: dict[tuple[str, ...], str], inner: tuple[str, ...], currency: str
    ) -> tuple[dict[str, str], str] | None:
        name = wanted.get(inner)
        if name is None:
            return None
        if name in _AMOUNTS:
            target[f"{name} currency"] = currency
        return target, name

    def closed(self, below: Sequence[str]) -> Iterator[tuple[str | None, ...]]:
        """An element of the message ended: the rows that this made.

        Raises:
            StatementError: a statement of one page has another number of entries than it says.
        """
        if tuple(below) == ("Stmt", "Ntry"):
            self._seen += 1
            # Without a status, as in a bank's own dialect, an entry of a statement is booked.
            if self._entry.get("status", "BOOK") == "BOOK":
                yield from self._rows()
            else:
                self.unbooked += 1
        elif tuple(below) == ("Stmt",):
            self._check_count()

    def _check_count(self) -> None:
        found, page = self._statement, self._statement.get("page", "1")
        # Of a statement in pages the summary counts all of them.
        whole = page == "1" and found.get("last_page", "true") in _TRUE
        said = found.get("count")
        if whole and said is not None and (not said.isdecimal() or int(said) != self._seen):
            raise StatementError(f"has a statement of {self._seen} entries, and its summary does not say so")

    def _rows(self) -> Iterator[tuple[str | None, ...]]:
        details = self._details or [{}]
        for number, detail in enumerate(details, start=1):
            yield self._row(detail, number if len(details) > 1 else None)

    def _row(self, detail: dict[str, str], number: int | None) -> tuple[str | None, ...]:
        """A row of an entry's detail; ``number`` is its place in a batch, None for an entry of one transaction."""
        entry, statement = self._entry, self._statement
        # One transaction moves what the entry says; in a batch each has its own amount.
        amount, currency = _amount(detail) if number is not None else _amount(entry)
        direction = _DIRECTIONS.get(detail.get("mark") or entry.get("mark", ""))
        reversal = entry.get("reversal", "false") in _TRUE
        account = statement.get("account")
        debtor = (detail.get("debtor"), detail.get("debtor_agent"))
        creditor = (detail.get("creditor"), detail.get("creditor_agent"))
        # A reversal names the parties of the payment that it takes back.
        first, second = (creditor, debtor) if (direction == "out") != reversal else (debtor, creditor)
        counterparty, agent = second if account is not None and first[0] == account else first
        return (
            statement.get("statement"),
            _payment_id(detail, entry, number),
            detail.get("end_to_end_id"),
            detail.get("accepted") or entry.get("booking_date"),
            entry.get("value_date"),
            amount,
            currency or statement.get("account_currency"),
            direction,
            account,
            counterparty,
            agent,
            detail.get("purpose"),
            entry.get("booking_date"),
            "true" if reversal else "false",
            _code(detail) or _code(entry),
        )


def _amount(found: dict[str, str]) -> tuple[str | None, str | None]:
    for name in _AMOUNTS:
        if name in found:
            return found[name], found.get(f"{name} currency") or None
    return None, None


def _payment_id(detail: dict[str, str], entry: dict[str, str], number: int | None) -> str | None:
    """The first id there is; what all transactions of a batch have alike gets the place in the batch."""
    of_entry = entry.get("bank_reference")
    own = detail.get("bank_reference")
    if number is not None and own == of_entry:
        own = None
    one_of = [detail.get("uetr"), own, None if number is not None else of_entry]
    one_of += [detail.get(name) for name in ("tx_id", "instruction_id", "end_to_end_id")]
    found = next((value for value in one_of if value and value != "NOTPROVIDED"), None)
    if number is not None and of_entry and not (detail.get("uetr") or own or detail.get("tx_id")):
        return f"{of_entry}/{number}"
    return found


def _code(found: dict[str, str]) -> str | None:
    """The bank transaction code: DOMAIN/FAMILY/SUBFAMILY, else the bank's own."""
    parts = [found.get(name) for name in ("code_domain", "code_family", "code_sub_family")]
    return "/".join(part for part in parts if part) or found.get("code_own")
