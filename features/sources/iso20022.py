"""ISO 20022 messages of any version as flat rows of text: pacs.008, pain.001, and statements (camt.053). Keeps no name.

The file is streamed through expat, and only the paths below are looked at: names, addresses and remittance texts are
passed over. It may come from anywhere, so what XML can do to a parser is refused: document types (and with them all
entities), deep nesting, endless tags and texts. A message that is cut short or has another number of transactions than
its header says is refused as a whole.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from xml.parsers import expat

from features.errors import SourceError
from features.sources.camt053 import NOT_BOOKED, StatementError, StatementReader

__all__ = ["ISO20022_COLUMNS", "Row", "transfers"]

ISO20022_COLUMNS = (
    "message_id",
    "payment_id",
    "end_to_end_id",
    "time",
    "settlement_date",
    "amount",
    "currency",
    "direction",
    "account",
    "counterparty",
    "counterparty_agent",
    "purpose",
    "booking_date",
    "reversal",
    "bank_code",
)
"""What a row has, as text or None. ``payment_id`` is the first there is of UETR, TxId, InstrId and EndToEndId, ``time``
of AccptncDtTm and CreDtTm; accounts are IBAN or other id, agents BIC. ``direction`` is out where the debtor's agent is
the bank, in where the creditor's is: a transfer within the bank is two rows, one that is not its own has None. The last
three only a statement has; there ``account`` is the statement's, and ``settlement_date`` the value date."""

MAX_DEPTH = 40
"""pacs.008 nests about 12 deep."""

MAX_TEXT = 1_000
"""Characters of a wanted element: identifiers have at most 140."""

MAX_TOKEN_BYTES = 1_000_000
"""A tag or comment longer than this is no message: the parser would hold it in memory whole."""

_CHUNK = 1 << 16

_MESSAGES = {"FIToFICstmrCdtTrf": "pacs.008", "CstmrCdtTrfInitn": "pain.001", "BkToCstmrStmt": "camt.053"}

_HEADER = {("GrpHdr", "MsgId"): "message_id", ("GrpHdr", "CreDtTm"): "created", ("GrpHdr", "NbOfTxs"): "count"}

_PARTY = {
    ("DbtrAcct", "Id", "IBAN"): "debtor",
    ("DbtrAcct", "Id", "Othr", "Id"): "debtor",
    ("CdtrAcct", "Id", "IBAN"): "creditor",
    ("CdtrAcct", "Id", "Othr", "Id"): "creditor",
    ("DbtrAgt", "FinInstnId", "BICFI"): "debtor_agent",
    ("DbtrAgt", "FinInstnId", "BIC"): "debtor_agent",
    ("CdtrAgt", "FinInstnId", "BICFI"): "creditor_agent",
    ("CdtrAgt", "FinInstnId", "BIC"): "creditor_agent",
    ("ReqdExctnDt",): "settlement_date",
    ("ReqdExctnDt", "Dt"): "settlement_date",
    ("ReqdExctnDt", "DtTm"): "settlement_date",
}

_TRANSFER = _PARTY | {
    ("PmtId", "UETR"): "uetr",
    ("PmtId", "TxId"): "tx_id",
    ("PmtId", "InstrId"): "instruction_id",
    ("PmtId", "EndToEndId"): "end_to_end_id",
    ("IntrBkSttlmAmt",): "amount",
    ("IntrBkSttlmDt",): "settlement_date",
    ("Amt", "InstdAmt"): "amount",
    ("AccptncDtTm",): "accepted",
    ("Purp", "Cd"): "purpose",
}

_NONE = (None, None, None)
"""What only statements have."""

Row = tuple[str | None, ...]


class _Refused(Exception):
    """What the file does is no message's business; the text says what."""


class _Reader:
    """Takes expat's events and gathers rows; knows nothing of files."""

    def __init__(self, own_agents: frozenset[str]) -> None:
        self.rows: list[Row] = []
        self._own = own_agents
        self._path: list[str] = []
        self._start: int | None = None
        self._kind = ""
        self._header: dict[str, str] = {}
        self._group: dict[str, str] = {}
        self._transfer: dict[str, str] | None = None
        self._wanted: tuple[dict[str, str], str] | None = None
        self._text: list[str] = []
        self._seen = 0
        self.messages = 0
        self.statements = StatementReader()

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        name = tag.rpartition(" ")[2]
        self._path.append(name)
        if len(self._path) > MAX_DEPTH:
            raise _Refused(f"nests elements more than {MAX_DEPTH} deep")
        if self._start is None:
            if name in _MESSAGES:
                self._start, self._kind = len(self._path), _MESSAGES[name]
                self._header, self._seen = {}, 0
                self.messages += 1
            return
        if self._kind == "camt.053":
            self._text = []
            self._wanted = self.statements.opened(self._path[self._start :], attributes.get("Ccy", "")[:MAX_TEXT])
            return
        if name == "CdtTrfTxInf":
            if self._transfer is not None:
                raise _Refused("has a transfer within a transfer")
            self._transfer = {}
        elif name == "PmtInf":
            self._group = {}
        self._text = []
        self._wanted = self._place()
        if self._wanted is not None and self._wanted[1] == "amount":
            self._wanted[0]["currency"] = attributes.get("Ccy", "")[:MAX_TEXT]

    def _place(self) -> tuple[dict[str, str], str] | None:
        """Where the text of the element that just began goes, and under which name."""
        below = self._path[self._start :]
        if "CdtTrfTxInf" in below:
            inner = tuple(below[below.index("CdtTrfTxInf") + 1 :])
            return (self._transfer, _TRANSFER[inner]) if self._transfer is not None and inner in _TRANSFER else None
        if below[0] == "PmtInf":
            inner = tuple(below[1:])
            return (self._group, _PARTY[inner]) if inner in _PARTY else None
        inner = tuple(below)
        return (self._header, _HEADER[inner]) if inner in _HEADER else None

    def text(self, piece: str) -> None:
        if self._wanted is not None:
            self._text.append(piece)
            if sum(map(len, self._text)) > MAX_TEXT:
                raise _Refused(f"has an identifier of more than {MAX_TEXT} characters")

    def end(self, tag: str) -> None:
        name = self._path.pop()
        if self._start is None:
            return
        if self._wanted is not None:
            target, field = self._wanted
            value = "".join(self._text).strip()
            if value:
                target[field] = value
            self._wanted = None
        if self._kind == "camt.053":
            self._statement_end(name)
            return
        if name == "CdtTrfTxInf" and self._transfer is not None:
            self._seen += 1
            self.rows += self._rows(self._header | self._group | self._transfer)
            self._transfer = None
        if len(self._path) < self._start:
            said = self._header.get("count")
            if said is None or not said.isdecimal() or int(said) != self._seen:
                raise _Refused(f"has {self._seen} transactions, and its header does not say so")
            self._start, self._group = None, {}

    def _statement_end(self, name: str) -> None:
        if self._start is not None and len(self._path) < self._start:
            self._start = None
            return
        try:
            self.rows += self.statements.closed([*self._path[self._start :], name])
        except StatementError as error:
            raise _Refused(str(error)) from None

    def _rows(self, found: dict[str, str]) -> Iterator[Row]:
        one_of = [found.get(name) for name in ("uetr", "tx_id", "instruction_id", "end_to_end_id")]
        payment = next((value for value in one_of if value and value != "NOTPROVIDED"), None)
        common = (
            found.get("message_id"),
            payment,
            found.get("end_to_end_id"),
            found.get("accepted") or found.get("created"),
            found.get("settlement_date"),
            found.get("amount"),
            found.get("currency"),
        )
        debtor, creditor = found.get("debtor"), found.get("creditor")
        debtor_agent, creditor_agent = found.get("debtor_agent"), found.get("creditor_agent")
        purpose = found.get("purpose")
        # A pain.001 comes from the bank's own customer, who may leave the agent out.
        out = self._is_ours(debtor_agent) or self._kind == "pain.001"
        into = self._is_ours(creditor_agent)
        if out:
            yield *common, "out", debtor, creditor, creditor_agent, purpose, *_NONE
        if into:
            yield *common, "in", creditor, debtor, debtor_agent, purpose, *_NONE
        if not out and not into:
            yield *common, None, debtor, creditor, creditor_agent, purpose, *_NONE

    def _is_ours(self, agent: str | None) -> bool:
        return agent is not None and agent.upper()[:8] in self._own


def transfers(file: Path, own_agents: Iterable[str], unreadable: dict[str, int] | None = None) -> Iterator[list[Row]]:
    """The rows of one file, in lists of some thousands.

    Args:
        unreadable: takes what was passed over and counts as a row, by reason, once the rows are all read.
        own_agents: BICs of the bank itself; the first eight characters count.

    Raises:
        SourceError: it is no whole message of these kinds, or does what no message does. The text names the file and
            the line, never a value.
    """
    reader = _Reader(frozenset(agent.upper()[:8] for agent in own_agents))
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartElementHandler, parser.EndElementHandler = reader.start, reader.end
    parser.CharacterDataHandler = reader.text
    parser.StartDoctypeDeclHandler = _no_doctype
    fed = 0
    try:
        with file.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                parser.Parse(chunk, False)
                fed += len(chunk)
                if fed - parser.CurrentByteIndex > MAX_TOKEN_BYTES:
                    raise _Refused(f"has a tag or comment of more than {MAX_TOKEN_BYTES} bytes")
                if len(reader.rows) > 5_000:
                    yield reader.rows
                    reader.rows = []
        parser.Parse(b"", True)
    except OSError as error:
        raise SourceError(f"File {file} can't be read: {error.strerror or 'unreadable'}.") from error
    except (expat.ExpatError, ValueError, LookupError) as error:
        where = f" at line {error.lineno}" if isinstance(error, expat.ExpatError) else ""
        raise SourceError(f"File {file} is not whole XML{where}: it is truncated or damaged.") from None
    except _Refused as refusal:
        raise SourceError(f"File {file} {refusal}, near line {parser.CurrentLineNumber}.") from None
    if not reader.messages:
        raise SourceError(f"File {file} is no pacs.008, pain.001 or camt.053 message.")
    if unreadable is not None and reader.statements.unbooked:
        unreadable[NOT_BOOKED] = reader.statements.unbooked
    yield reader.rows


def _no_doctype(*_: object) -> None:
    raise _Refused("declares a document type")
