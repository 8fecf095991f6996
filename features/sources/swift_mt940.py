"""Entries of MT940 statements as flat rows of text. Leaves single fields to mt-940, keeps no name.

A file has several statements, with or without SWIFT's blocks around them. Each is split into its fields here, and each
statement line (``:61:``) is counted before it is read, so that none is lost: it becomes a row or is counted as one that
can't be read. What the lines add up to must lead from the opening balance to the closing one.
"""

import logging
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

from features.contract.standards import is_iban
from features.errors import SourceError
from features.sources.iso20022 import ISO20022_COLUMNS, Row

__all__ = ["MT940_COLUMNS", "UNREADABLE_LINE", "entries"]

MT940_COLUMNS = (*ISO20022_COLUMNS, "bank_reference", "customer_reference")
"""What a row has, as text or None: the columns of a camt.053 statement, and the two references of a statement line.
``time`` is the entry's date, else the value date: the format has no time of day."""

UNREADABLE_LINE = "a statement line (:61:) that can't be read"

MAX_FIELD = 20_000
"""Bytes of a field with all its lines: a statement line has a hundred, its details some 400."""

_TAG = re.compile(r":(13|20|21|25|28|34|60|61|62|64|65|86|90|NS)([A-Z]?):")
_BLOCK = re.compile(r"^\{[123]:|\{4:")
_SEPARATOR = re.compile(r"^(\d{3})\s*([~^<>|*])(?=\d\d)")
_BATCH = 5_000


class _Refused(Exception):
    """What the file does is no statement's business; the text says what, without a value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Field:
    """One field: its tag (``61``, ``60F``), its text with line ends, the line of the file on which it begins."""

    tag: str
    text: str
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Balance:
    amount: Decimal
    currency: str
    day: date


@dataclass(slots=True, kw_only=True)
class _Statement:
    """A statement while its fields come.

    Attributes:
        number: its place in the file, from 1. line: where it begins.
        entries: statement lines so far; unreadable: how many of them can't be read; total: what the others add up to.
        seen: how often each id came.
    """

    number: int
    line: int
    reference: str = ""
    account: str | None = None
    sequence: str = ""
    opening: _Balance | None = None
    closing: _Balance | None = None
    interim: bool = False
    entries: int = 0
    unreadable: int = 0
    total: Decimal = Decimal(0)
    seen: Counter[str] = field(default_factory=Counter)
    pending: tuple[str, list[str]] | None = None


def entries(file: Path, unreadable: dict[str, int] | None = None) -> Iterator[list[Row]]:
    """The rows of one file, in lists of some thousands, in the order of `MT940_COLUMNS`.

    Args:
        unreadable: takes, once the rows are all read, how many statement lines can't be read.

    Raises:
        SourceError: it is no MT940 file, a statement is cut short, or its lines do not lead from its opening balance to
            its closing one. The text names the file and the statement, never a value.
    """
    reader = _Reader()
    try:
        with file.open("rb") as stream:
            for number, line in enumerate(_lines(stream), start=1):
                reader.line(line, number)
                if len(reader.rows) >= _BATCH:
                    yield reader.rows
                    reader.rows = []
        reader.end()
    except OSError as error:
        raise SourceError(f"File {file} can't be read: {error.strerror or 'unreadable'}.") from error
    except _Refused as refusal:
        raise SourceError(f"File {file}{refusal}.") from None
    if unreadable is not None and reader.unreadable:
        unreadable[UNREADABLE_LINE] = reader.unreadable
    yield reader.rows


def _lines(stream: Any) -> Iterator[str]:
    """Lines without their ends; each in UTF-8, or else in Latin-1, which takes any byte."""
    first = True
    while raw := stream.readline(MAX_FIELD + 1):
        if len(raw) > MAX_FIELD:
            raise _Refused(f" has a line of more than {MAX_FIELD} bytes: it is no MT940 statement")
        if b"\0" in raw:
            raise _Refused(" has a character of no text: it is no MT940 statement in UTF-8 or Latin-1")
        raw = raw.removeprefix(b"\xef\xbb\xbf") if first else raw
        first = False
        try:
            yield raw.decode("utf-8").rstrip()
        except UnicodeDecodeError:
            yield raw.decode("latin-1").rstrip()


class _Reader:
    """Takes lines and gathers rows; knows nothing of files."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.unreadable = 0
        self._statement: _Statement | None = None
        self._statements = 0
        self._field: _Field | None = None
        # The library writes whole fields, which are data, into its log.
        logging.getLogger("mt940").setLevel(logging.CRITICAL + 1)

    def line(self, text: str, number: int) -> None:
        text = text.strip("\x01\x03")
        if _BLOCK.search(text):
            self._close_field()
            self._close_statement()
            text = text.rpartition("{4:")[2] if "{4:" in text else ""
        if text.startswith("-}") or (text in ("-", "-$") and self._is_closed()):
            self._close_field()
            self._close_statement()
            return
        found = _TAG.match(text)
        if found is not None:
            self._close_field()
            self._field = _Field(tag=f"{found[1]}{found[2].upper()}", text=text[found.end() :], line=number)
        elif text.strip() and self._field is not None:
            longer = f"{self._field.text}\n{text}"
            if len(longer) > MAX_FIELD:
                raise _Refused(f" has a field of more than {MAX_FIELD} characters, near line {number}")
            self._field = _Field(tag=self._field.tag, text=longer, line=self._field.line)

    def end(self) -> None:
        self._close_field()
        self._close_statement()
        if not self._statements:
            raise _Refused(" is no MT940 file: no line of it begins with :20:")

    def _is_closed(self) -> bool:
        """Whether the closing balance has come: a dash before it is a line of somebody's text."""
        came = self._statement is not None and self._statement.closing is not None
        return came or (self._field is not None and self._field.tag[:2] in ("62", "64", "65"))

    def _close_field(self) -> None:
        """The field is whole: take what it says."""
        found, self._field = self._field, None
        if found is None:
            return
        if found.tag == "20":
            self._close_statement()
            self._statements += 1
            self._statement = _Statement(number=self._statements, line=found.line, reference=found.text.strip())
            return
        at = self._statement
        if at is not None:
            self._take(found, at)
        elif found.tag == "61":
            raise _Refused(f" has a statement line outside of a statement (:20:), in line {found.line}")

    def _take(self, found: _Field, at: _Statement) -> None:
        """One field of a statement that has begun."""
        kind = found.tag[:2]
        if kind == "86":
            # Behind the balances it is about the whole statement.
            if at.pending is not None:
                at.pending[1].append(found.text)
            return
        self._close_entry(at)
        if kind == "25":
            at.account = found.text.partition("\n")[0].strip() or None
        elif kind == "28":
            at.sequence = found.text.strip()
        elif kind in ("13", "34", "90"):
            at.interim = True
        elif kind == "60" and at.opening is None:
            at.opening = _balance(found, at)
            at.account = _plain_account(at.account, at.opening.currency)
        elif kind == "62":
            at.closing = _balance(found, at)
        elif kind == "61":
            if at.opening is None:
                raise _Refused(f": {_where(at)} has no opening balance (:60F:) before its lines{_interim(at)}")
            at.entries += 1
            at.pending = (found.text, [])

    def _close_entry(self, at: _Statement) -> None:
        """The statement line and its details are whole: make the row."""
        if at.pending is None or at.opening is None:
            return
        (line, details), at.pending = at.pending, None
        data = _read(f":61:{line}\n:86:{_question_marks(details)}")
        if data is None:
            at.unreadable += 1
            self.unreadable += 1
            return
        at.total += data["amount"].amount
        self.rows.append(_row(data, at, at.opening))

    def _close_statement(self) -> None:
        at, self._statement = self._statement, None
        if at is None:
            return
        self._close_entry(at)
        if at.opening is None:
            raise _Refused(f": {_where(at)} has no opening balance (:60F:){_interim(at)}")
        if at.closing is None:
            raise _Refused(f": {_where(at)} has no closing balance (:62F:): it is cut short{_interim(at)}")
        if at.opening.currency != at.closing.currency:
            raise _Refused(f": {_where(at)} opens in one currency and closes in another")
        # A line that can't be read has an amount that nobody knows; it is counted, and no sum can be checked.
        if not at.unreadable and at.opening.amount + at.total != at.closing.amount:
            raise _Refused(
                f": {_where(at)} does not add up: its opening balance (:60F:) and its {at.entries} lines (:61:) do not "
                "make its closing balance (:62F:), so a line is missing or changed; export it again"
            )


def _where(at: _Statement) -> str:
    return f"statement {at.number}, which begins in line {at.line},"


def _interim(at: _Statement) -> str:
    told = "; it looks like an interim report (MT942), whose entries come again in a statement: export MT940"
    return told if at.interim else ""


def _read(text: str) -> dict[str, Any] | None:
    """What the library finds in one statement line and its details, or in one balance; None if it can't read it."""
    import mt940

    found = mt940.models.Transactions(tags={61: mt940.tags.StatementGLS()}, options=mt940.Options.all())
    try:
        found.parse(text)
    except (RuntimeError, ValueError, ArithmeticError, LookupError, TypeError, AttributeError):
        # Its errors hold the whole field.
        return None
    if text.startswith(":60F:"):
        return found.data
    return found.transactions[0].data if len(found) == 1 else None


def _balance(of: _Field, at: _Statement) -> _Balance:
    """The final and the intermediate one are written alike."""
    told = (_read(f":60F:{of.text}") or {}).get("final_opening_balance")
    if told is None:
        raise _Refused(f": {_where(at)} has a balance that can't be read (:{of.tag}:), in line {of.line}")
    return _Balance(amount=told.amount.amount, currency=told.amount.currency.upper(), day=told.date)


def _plain_account(account: str | None, currency: str) -> str | None:
    """Some banks write the currency behind the IBAN."""
    if account is None:
        return None
    plain = account.replace(" ", "")
    bare = plain.removesuffix(currency)
    return bare if bare != plain and is_iban(bare) else plain if is_iban(plain) else account


def _question_marks(details: list[str]) -> str:
    """The details with ``?`` before their numbered parts: some banks write another mark there."""
    text = "\n".join(details)
    found = _SEPARATOR.match(text)
    return text if found is None or "?" in text else text.replace(found[2], "?")


def _row(data: dict[str, Any], at: _Statement, opening: _Balance) -> Row:
    value_day: date = data["date"]
    entry_day: date | None = data.get("entry_date")
    mark = str(data["status"]).upper()
    details = "".join(str(data.get("transaction_details") or "").splitlines())
    reference = _reference(data.get("bank_reference"))
    codes = [str(data.get(name) or "").strip() for name in ("id", "transaction_code")]
    return (
        at.reference or None,
        _payment_id(at, opening, reference, value_day),
        _text(data.get("end_to_end_reference")) or _code_word(details, "EREF"),
        (entry_day or value_day).isoformat(),
        value_day.isoformat(),
        str(abs(data["amount"].amount)),
        opening.currency,
        # A reversal of a credit goes out, as a debit does.
        "out" if mark in ("D", "RC") else "in",
        at.account,
        *_other_party(data, details),
        _text(data.get("purpose_code")),
        entry_day.isoformat() if entry_day else None,
        "true" if mark.startswith("R") else "false",
        "+".join(code for code in codes if code) or None,
        reference,
        _text(data.get("customer_reference")),
    )


def _payment_id(at: _Statement, opening: _Balance, reference: str | None, day: date) -> str:
    """The bank's reference with account and day, since banks count anew; without one the place in the statement."""
    if reference is None:
        number = at.sequence or at.reference
        return f"{at.account}/{number}/{opening.day.isoformat()}/{at.entries}"
    found = f"{at.account}/{reference}/{day.isoformat()}"
    at.seen[found] += 1
    return found if at.seen[found] == 1 else f"{found}/{at.seen[found]}"


def _reference(text: object) -> str | None:
    """A reference without a digit but zero (NONREF, POS) is none of one entry."""
    found = _text(text)
    return found if found is not None and re.search(r"[1-9]", found) else None


def _other_party(data: dict[str, Any], details: str) -> tuple[str | None, str | None]:
    """Account and bank of the other side: of numbered parts (``?31``, ``IBAN+``) or of code words (``/IBAN/``)."""
    account = _text(data.get("applicant_iban")) or _text(data.get("gvc_applicant_iban"))
    bank = _text(data.get("applicant_bin")) or _text(data.get("gvc_applicant_bin"))
    party = re.search(r"/CNTP/([A-Z0-9]+)/([A-Z0-9]*)/", details)
    if party is not None:
        account, bank = account or party[1], bank or party[2] or None
    if account is not None and "BIC+" in account:
        # The library knows the word only with a blank in it.
        account, _, behind = account.partition("BIC+")
        bank = bank or _text(behind)
    account = account or _code_word(details, "IBAN")
    return account and account.replace(" ", ""), bank or _code_word(details, "BIC")


def _code_word(details: str, word: str) -> str | None:
    found = re.search(rf"/{word}/\s*([^/]+)", details)
    return _text(found[1]) if found else None


def _text(value: object) -> str | None:
    text = " ".join(str(value or "").split())
    return text or None
