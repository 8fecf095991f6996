"""A look at a bank's own table, and a draft of its mapping for a human to confirm. Changes nothing, decides nothing.

The draft names columns, forms of times and numbers, and the codes of columns that have few. It is refused by the
extraction until someone has read it and set ``confirmed: true``. What could be two things is said in a comment.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any

import yaml

from features.contract.mapping import CsvFormat
from features.contract.schema import DataContract
from features.contract.standards import COUNTRY_OF, MINOR_UNITS
from features.errors import SourceError
from features.sources.files import engine, parquet_header, reading, source_files
from features.sources.readers import read_csv

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Draft", "draft_mapping"]

SAMPLE_ROWS = 50_000
SAMPLE_BYTES = 8_000_000
MOST_CODES = 60
"""A column with more distinct texts than this is no column of codes, and its texts are not shown."""

_WORDS: Mapping[str, tuple[str, ...]] = {
    "payment_id": ("payment_id", "transaction_id", "txn_id", "trans_num", "tx_id", "reference", "uetr", "id"),
    "event_time": ("event_time", "timestamp", "booking_time", "trans_date_time", "datetime", "booked", "time", "date"),
    "account_id": ("account_id", "acct_num", "account", "iban", "debtor_account", "customer_account", "konto"),
    "counterparty_id": ("counterparty_id", "merchant", "beneficiary", "creditor", "payee", "partner", "counterparty"),
    "counterparty_bank": ("counterparty_bank", "bic", "beneficiary_bank", "creditor_agent", "partner_bank"),
    "counterparty_country": ("counterparty_country", "merchant_country", "beneficiary_country", "country", "ctry"),
    "device_id": ("device_id", "device", "device_fingerprint", "device_hash"),
    "direction": ("direction", "debit_credit", "dc_flag", "drcr", "sign", "side"),
    "channel": ("channel", "payment_channel", "product", "instrument"),
    "amount": ("amount", "amt", "value", "betrag", "montant"),
    "category": ("category", "mcc", "merchant_category", "purpose"),
    "is_fraud": ("is_fraud", "fraud", "fraud_flag", "label", "chargeback"),
    "label_time": ("label_time", "fraud_known", "report_time", "confirmed_at", "label_date"),
    "currency": ("currency", "ccy", "cur", "waehrung"),
    "version": ("version", "updated_at", "modified", "revision"),
}
"""Names that banks use, the likeliest first."""

_PERSONAL = re.compile(r"name|first|last|street|addr|ssn|birth|dob|mail|phone|city|zip|card|cc_num|passport|tax", re.I)

_TIME_FORMS = (
    ("%d.%m.%Y %H:%M:%S", r"^\d\d\.\d\d\.\d{4} \d\d:\d\d:\d\d$"),
    ("%d.%m.%Y %H:%M", r"^\d\d\.\d\d\.\d{4} \d\d:\d\d$"),
    ("%d.%m.%Y", r"^\d\d\.\d\d\.\d{4}$"),
    ("%d/%m/%Y %H:%M:%S", r"^\d\d/\d\d/\d{4} \d\d:\d\d:\d\d$"),
    ("%d/%m/%Y", r"^\d\d/\d\d/\d{4}$"),
    ("%Y%m%d%H%M%S", r"^(19|20)\d{12}$"),
    ("%Y%m%d", r"^(19|20)\d{6}$"),
)
_ISO_TIME = r"^\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d(\.\d+)?)?)?( ?(Z|[+-]\d\d(:?\d\d)?))?$"
_OUT = {"out", "d", "dr", "dbit", "debit", "debet", "s", "soll", "outgoing"}
_IN = {"in", "c", "cr", "crdt", "credit", "h", "haben", "incoming"}
_YES = {"1", "y", "yes", "true", "t", "fraud", "f"}
_NO = {"0", "n", "no", "false", "genuine", "legit", "ok", ""}


@dataclass(frozen=True, slots=True)
class Draft:
    """The draft: its YAML text, and what the human has to look at."""

    text: str
    open_questions: tuple[str, ...]


@dataclass(slots=True)
class _Notes:
    """What is asked for each column of the contract while it is drafted."""

    asked: dict[str, list[str]] = field(default_factory=dict)

    def ask(self, column: str, question: str) -> None:
        self.asked.setdefault(column, []).append(question)


def draft_mapping(path: Path | str, contract: DataContract) -> Draft:
    """Look at the first file of a source and draft a mapping.

    Raises:
        SourceError: there is no file, or it can't be read.
    """
    file = source_files(path)[0]
    notes = _Notes()
    if file.suffix.lower() == ".xml":
        return _written(contract, _iso20022_columns(), {"own_agents": [], "currency": {"from": "currency"}}, notes, [])
    form, sample = (None, _parquet_sample(file)) if file.suffix.lower() == ".parquet" else _csv_sample(file)
    chosen = _by_name(list(sample.columns))
    entries: dict[str, Any] = {}
    for column in contract.columns:
        name = chosen.get(column.name)
        if name is None:
            entries[column.name] = _without_a_column(column.name, column.nullable, chosen, sample, notes)
        else:
            entries[column.name] = {"from": name} | dict(
                _READERS[column.name](sample[name], column.name, contract, notes)
            )
    settings: dict[str, Any] = {}
    if form is not None and form != CsvFormat():
        settings["csv"] = form.model_dump()
    if (currency := chosen.get("currency")) is not None:
        settings["currency"] = {"from": currency}
        codes = set(_texts(sample[currency]).str.upper())
        if codes - {contract.currency}:
            notes.ask("currency", "payments in other currencies need a table of rates: add `rates: rates.csv`")
        if codes - MINOR_UNITS.keys():
            notes.ask("currency", "some texts are no currencies of ISO 4217")
    if (version := chosen.get("version")) is not None:
        settings["version_column"] = version
        notes.ask("version_column", "of two rows of a payment the larger wins; take it out if it is not that")
    unread = [name for name in sample.columns if name not in chosen.values()]
    return _written(contract, entries, settings, notes, unread)


def _parquet_sample(file: Path) -> "pd.DataFrame":
    parquet_header(file)
    with engine() as connection, reading(file):
        query = f"SELECT * FROM read_parquet($file) LIMIT {SAMPLE_ROWS}"
        return connection.con.sql(query, params={"file": str(file)}).to_arrow_table().to_pandas()


def _csv_sample(file: Path) -> "tuple[CsvFormat, pd.DataFrame]":
    """The first rows as text, and how the file is written."""
    try:
        with file.open("rb") as stream:
            head = stream.read(SAMPLE_BYTES)
    except OSError as error:
        raise SourceError(f"File {file} can't be read: {error.strerror or 'unreadable'}.") from error
    encoding = "utf-16" if head.startswith(b"\xff\xfe") else "utf-8"
    if encoding == "utf-8":
        try:
            head.decode("utf-8")
        except UnicodeDecodeError as error:
            # Cut within a character at the very end is no sign of another encoding.
            encoding = "utf-8" if error.start > len(head) - 4 else "latin-1"
    line_end = "\n".encode("utf-16-le") if encoding == "utf-16" else b"\n"
    if len(head) == SAMPLE_BYTES:
        head = head[: head.rfind(line_end) + len(line_end)]
    first = head.decode(encoding, "replace").partition("\n")[0]
    delimiter = max(",;\t|", key=first.count)
    form = CsvFormat.model_validate({"delimiter": delimiter, "encoding": encoding})
    with NamedTemporaryFile(suffix=".csv") as copy, engine() as connection:
        copy.write(head)
        copy.flush()
        names = tuple(name.strip().strip('"\ufeff') for name in first.split(delimiter))
        with reading(file):
            raw = read_csv(connection, Path(copy.name), names, form)
            sample: pd.DataFrame = connection.to_pyarrow(raw.table.drop("row_").limit(SAMPLE_ROWS)).to_pandas()
    return form, sample


def _by_name(columns: list[str]) -> dict[str, str]:
    """The bank's column for each of ours, by its name; each is used once, the surest first."""
    plain = {name: re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") for name in columns}
    ranked = []
    for ours, words in _WORDS.items():
        for rank, word in enumerate(words):
            for name, text in plain.items():
                if text == word:
                    ranked.append((rank, ours, name))
                elif len(word) > 3 and (text.startswith(word) or text.endswith(word)):
                    ranked.append((rank + 100, ours, name))
    chosen: dict[str, str] = {}
    for _, ours, name in sorted(ranked):
        if ours not in chosen and name not in chosen.values():
            chosen[ours] = name
    return chosen


def _texts(values: "pd.Series") -> "pd.Series":
    """The values there are, as trimmed text."""
    return values.dropna().astype(str).str.strip()


def _is_text(values: "pd.Series") -> bool:
    return bool(_texts(values.head(1)).size == 0 or isinstance(values.dropna().iloc[0], str))


Entry = Iterator[tuple[str, Any]]


def _identifier(values: "pd.Series", name: str, contract: DataContract, notes: _Notes) -> Entry:
    share = values.isna().mean()
    if share > 0 and not contract.column(name).nullable:
        notes.ask(name, f"{share:.1%} of the rows have none and would be quarantined")
    if name == "payment_id" and values.duplicated().any():
        notes.ask(name, "some ids are there twice: of such rows the last counts, if their direction is the same")
    yield from ()


def _time(values: "pd.Series", name: str, contract: DataContract, notes: _Notes) -> Entry:
    if not _is_text(values):
        if str(values.dtype).startswith(("int", "float", "Int")):
            largest = float(values.abs().max())
            yield "unit", "s" if largest < 1e11 else "ms" if largest < 1e14 else "us"
        return
    texts = _texts(values)
    texts = texts[texts != ""]
    if texts.str.match(_ISO_TIME).all():
        if not texts.str.contains(r"(?:Z|[+-]\d\d:?\d\d)$").any():
            notes.ask(name, "no offset: taken as UTC; set `zone`, such as Europe/Zurich, if it is local time")
        return
    if texts.str.fullmatch(r"\d{9,16}").all() and not texts.str.match(r"^(19|20)\d{12}$").all():
        yield "unit", {9: "s", 10: "s", 13: "ms"}.get(int(texts.str.len().max()), "us")
        return
    form = next((form for form, pattern in _TIME_FORMS if texts.str.match(pattern).all()), None)
    if form is None:
        notes.ask(name, "no known form of times: set `format`")
        return
    if form.startswith("%d/"):
        days, months = texts.str[:2].astype(int).max(), texts.str[3:5].astype(int).max()
        if months > 12:
            form = form.replace("%d/%m", "%m/%d")
        elif days <= 12:
            notes.ask(name, "day and month can't be told apart in the rows looked at")
    yield "format", form
    notes.ask(name, "taken as UTC; set `zone`, such as Europe/Zurich, if it is local time")


def _amount(values: "pd.Series", name: str, contract: DataContract, notes: _Notes) -> Entry:
    if _is_text(values):
        texts = _texts(values)
        commas = texts.str.contains(r",\d{1,2}$").mean()
        points = texts.str.contains(r"\.\d{1,2}$").mean()
        if commas > points:
            yield "decimal", ","
            if texts.str.contains(r"\.").any():
                yield "thousands", "."
        elif texts.str.contains(r",\d{3}").any():
            yield "thousands", ","
        negative = texts.str.startswith("-").any()
    else:
        negative = bool((values < 0).any())
        if str(values.dtype).lower().startswith("int"):
            notes.ask(name, f"whole numbers: if they are minor units, set `scale: {10.0**-contract.minor_unit_digits}`")
    if negative:
        yield "sign", "absolute"
        notes.ask(name, "some amounts are negative: what does the sign mean?")


def _codes(known: Callable[[str, DataContract], str | int | None]) -> Callable[..., Entry]:
    def read(values: "pd.Series", name: str, contract: DataContract, notes: _Notes) -> Entry:
        found = sorted(set(_texts(values)))
        if len(found) > MOST_CODES:
            notes.ask(name, f"{len(found)} different texts: too many for codes, is it another column?")
            return
        allowed = [str(code) for code in contract.codes(name)] or ["0", "1"]
        if set(found) <= {*allowed, "0.0", "1.0"}:
            return
        if name == "category" and all(re.fullmatch(r"\d{3,4}", text) for text in found):
            yield "standard", "iso18245"
            return
        codes = {text: known(text, contract) for text in found}
        yield "codes", {text: "?" if code is None else code for text, code in codes.items()}
        if None in codes.values():
            notes.ask(name, f"put one of {', '.join(allowed)} for each ?")

    return read


def _country(values: "pd.Series", name: str, contract: DataContract, notes: _Notes) -> Entry:
    yield "standard", "iso3166"
    if not set(_texts(values).str.upper()) - {""} <= COUNTRY_OF.keys():
        notes.ask(name, "some texts are no country codes of ISO 3166 and would be quarantined")


def _direction(text: str, contract: DataContract) -> str | None:
    return "out" if text.lower() in _OUT else "in" if text.lower() in _IN else None


def _label(text: str, contract: DataContract) -> int | None:
    return 1 if text.lower() in _YES else 0 if text.lower() in _NO else None


def _word_of(column: str) -> Callable[[str, DataContract], str | None]:
    def known(text: str, contract: DataContract) -> str | None:
        plain = re.sub(r"[^a-z0-9]+", "_", text.lower())
        return next((code for code in contract.codes(column) if code == plain), None)

    return known


_READERS: Mapping[str, Callable[..., Entry]] = {
    **dict.fromkeys(("payment_id", "account_id", "counterparty_id", "counterparty_bank", "device_id"), _identifier),
    "counterparty_country": _country,
    **dict.fromkeys(("event_time", "label_time"), _time),
    "amount": _amount,
    "direction": _codes(_direction),
    "channel": _codes(_word_of("channel")),
    "category": _codes(_word_of("category")),
    "is_fraud": _codes(_label),
}


def _without_a_column(
    name: str, nullable: bool, chosen: Mapping[str, str], sample: "pd.DataFrame", notes: _Notes
) -> dict[str, Any]:
    amount = chosen.get("amount")
    if name == "direction" and amount is not None:
        texts = _texts(sample[amount])
        if texts.str.startswith("-").any():
            notes.ask(name, "told by the sign of the amount: is a negative one outgoing?")
            return {"sign_of": amount, "negative": "out"}
        notes.ask(name, "no column: taken as outgoing throughout")
        return {"constant": "out"}
    if nullable:
        if name == "is_fraud":
            notes.ask(name, "no column: without labels the bank has nothing to train on")
        return {"absent": True}
    notes.ask(name, "no column looks like it: name one in `from`, or a `constant`")
    return {"from": "?"}


def _iso20022_columns() -> dict[str, Any]:
    return {
        "payment_id": {"from": "payment_id"},
        "event_time": {"from": "time"},
        "account_id": {"from": "account"},
        "counterparty_id": {"from": "counterparty"},
        "counterparty_bank": {"from": "counterparty_agent"},
        "direction": {"from": "direction"},
        "channel": {"constant": "transfer"},
        "amount": {"from": "amount"},
        "category": {"constant": "transfer"},
        "is_fraud": {"absent": True},
        "label_time": {"absent": True},
    }


def _written(
    contract: DataContract, entries: Mapping[str, Any], settings: Mapping[str, Any], notes: _Notes, unread: list[str]
) -> Draft:
    """The draft as YAML, questions as comments above what they are about."""

    def block(values: Mapping[str, Any], indent: str) -> Iterator[str]:
        for name, value in values.items():
            for question in notes.asked.get(name, []):
                yield f"{indent}# CHECK: {question}"
            # Collections in one line each, scalars as they are.
            style = None if isinstance(value, dict | list) else False
            flow = yaml.safe_dump(
                {name: value}, default_flow_style=style, width=100, allow_unicode=True, sort_keys=False
            )
            yield from (f"{indent}{line}" for line in flow.rstrip().splitlines())

    lines = [
        f"# A draft for contract {contract.name} {contract.version}. Read it, mend it, then set confirmed to true.",
        "confirmed: false",
        f"contract: {contract.name}",
        *block(settings, ""),
        "columns:",
        *block(entries, "  "),
    ]
    if "own_agents" in settings:
        lines.insert(3, "# CHECK: the bank's own BICs, by which a message tells outgoing from incoming")
    if unread:
        lines += [
            "# Not read:",
            *(f"#   {name}{' (personal data?)' * bool(_PERSONAL.search(name))}" for name in unread),
        ]
    questions = [f"{name}: {question}" for name, asked in notes.asked.items() for question in asked]
    return Draft("\n".join(lines) + "\n", tuple(questions))
