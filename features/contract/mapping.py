"""A bank's mapping file: how its own columns become the contract's. Reads YAML; touches no data.

One entry for each canonical column says where it comes from and how it is read. What the file does not say is not
guessed: a code without a place in ``codes``, a currency without a rate or a local hour that a clock change makes
ambiguous puts the row into quarantine, with the reason.
"""

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, field_validator, model_validator

from features.contract.schema import CANONICAL_COLUMNS, OPTIONAL_COLUMNS, ColumnSpec, DataContract
from features.contract.strict_yaml import places, read_mapping
from features.errors import MappingError

__all__ = [
    "UNDECIDED",
    "ColumnMapping",
    "CsvFormat",
    "CurrencyMapping",
    "LabelMapping",
    "Mapping",
    "identity_mapping",
    "load_mapping",
]

UNDECIDED = "?"
"""Stands in a draft for what only a human can say."""

_TO_WRITE = {
    "from": "name a column of the bank's, or write constant or absent instead",
    "origin": "write the first day, such as 2024-01-01",
}

_Text = Annotated[str, Field(min_length=1, max_length=500)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class ColumnMapping(_Model):
    """Where one canonical column comes from.

    Attributes:
        source: the bank's column, or several that are joined by ``joiner`` (``from`` in the file).
        joiner: what stands between the values of joined columns.
        constant: the same text in every row, instead of a column.
        absent: the bank has nothing for it: null in every row. Only where the contract allows null.
        codes: from the bank's text to the contract's; matched whole after trimming. A text that is not there is
            quarantined unless ``other`` names what it becomes. An empty value on the right means null.
        other: the contract's code for every text that ``codes`` lacks; without it those rows are quarantined.
        standard: iso18245 reads four-digit merchant category codes as the packaged contract's categories, iso3166
            two-letter, three-letter and numeric country codes as two-letter ones.
        format: of times in text, as strptime has it; null is ISO 8601.
        default: the contract's code, or text, where the bank has no value.
        nulls: words that mean no value in this column, besides the mapping's own and an empty text.
        unit: of times in numbers: s, ms and us count from 1970 UTC, or from ``origin``; h and d, hours and days, from
            ``origin``; excel is a spreadsheet's day number. Without a UTC start the ``zone`` counts.
        origin: the day from which a time in numbers counts.
        zone: IANA name of the zone of times that carry no offset.
        ambiguous: which of the two instants a local time stands for that happens twice.
        decimal, thousands: how numbers in text are written.
        symbols: currency signs or codes that stand before or after numbers, such as €; they tell no currency.
        scale: numbers are multiplied by it, 0.01 for amounts in cents.
        sign: what a negative number means: ``keep`` leaves it (and the contract refuses it), ``absolute`` drops the
            sign, ``negate`` turns it.
        sign_of: for direction: the column whose sign tells it, with ``negative`` saying which way a negative is.
        negative: with ``sign_of``: the direction of a negative number.
        debit, credit: for amount and direction: two columns of which one is empty or zero in each row. What is in
            ``debit`` goes out, what is in ``credit`` comes in; signs in them don't count.
        first_of: several columns, of which the first with a value counts.
        missing_part: what stands for an empty part of a join; without it the whole is null where a part is.
    """

    source: _Text | tuple[_Text, ...] | None = Field(default=None, alias="from")
    joiner: str = "|"
    constant: _Text | None = None
    absent: bool = False
    codes: Annotated[dict[str, str | int | float | None], Field(min_length=1)] | None = None
    other: _Text | None = None
    standard: Literal["iso18245", "iso3166"] | None = None
    format: _Text | None = None
    default: _Text | None = None
    nulls: tuple[_Text, ...] = ()
    unit: Literal["s", "ms", "us", "h", "d", "excel"] | None = None
    origin: date | None = None
    zone: _Text | None = None
    ambiguous: Literal["quarantine", "earlier", "later"] = "quarantine"
    decimal: Literal[".", ","] = "."
    thousands: Literal["", ".", ",", " ", "'"] = ""
    symbols: tuple[_Text, ...] = ()
    scale: FiniteFloat = 1.0
    sign: Literal["keep", "absolute", "negate"] = "keep"
    sign_of: _Text | None = None
    negative: Literal["out", "in"] = "out"
    debit: _Text | None = None
    credit: _Text | None = None
    first_of: Annotated[tuple[_Text, ...], Field(min_length=2)] | None = None
    missing_part: Annotated[str, Field(max_length=100)] | None = None

    @field_validator("zone")
    @classmethod
    def _known_zone(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                ZoneInfo(value)
            except (KeyError, ValueError, OSError) as error:
                raise ValueError("is no zone of the IANA time zone database") from error
        return value

    @model_validator(mode="after")
    def _one_origin(self) -> "ColumnMapping":
        if (self.debit is None) != (self.credit is None):
            raise ValueError("debit and credit go together")
        origins = (
            self.source is not None,
            self.constant is not None,
            self.sign_of is not None,
            self.debit is not None,
            self.first_of is not None,
            self.absent,
        )
        if sum(origins) != 1:
            raise ValueError(
                "exactly one of from, first_of, constant, sign_of, debit with credit, and absent says where the column "
                "comes from"
            )
        if self.decimal == self.thousands:
            raise ValueError("decimal and thousands must differ")
        if self.standard is not None and self.codes is not None:
            raise ValueError("standard and codes exclude each other")
        if self.other is not None and self.codes is None:
            raise ValueError("other goes with codes")
        self._reachable()
        self._counted()
        return self

    def _reachable(self) -> None:
        """What is written and could never count is refused."""
        for code, to in (self.codes or {}).items():
            if code == "" and to not in (None, ""):
                raise ValueError(f"codes: an empty text is no value and never a code; write default: {to}")
            if code != code.strip():
                raise ValueError(f"codes: {code!r} never matches, since texts are trimmed; write {code.strip()!r}")
            if code in self.nulls:
                raise ValueError(f"codes: {code!r} never matches, since nulls makes it no value")
        if self.missing_part is not None and len(self.columns) < 2:
            raise ValueError("missing_part goes with several columns in from")
        if self.default is not None and (self.constant is not None or self.absent):
            raise ValueError("default is never used with constant or absent")

    def _counted(self) -> None:
        """Times in numbers."""
        if self.unit in ("h", "d") and self.origin is None:
            raise ValueError(f"unit {self.unit} needs an origin: the day from which it counts, such as 2024-01-01")
        if self.origin is not None and self.unit in (None, "excel"):
            raise ValueError("origin goes with unit s, ms, us, h or d")
        if self.zone is not None and self.unit in ("s", "ms", "us") and self.origin is None:
            raise ValueError(f"zone is never used with unit {self.unit}: it counts from 1970 UTC")
        if self.format is not None and self.unit is not None:
            raise ValueError("format and unit exclude each other")

    @property
    def columns(self) -> tuple[str, ...]:
        """The bank's columns it reads."""
        if self.sign_of is not None:
            return (self.sign_of,)
        if self.debit is not None and self.credit is not None:
            return (self.debit, self.credit)
        if self.first_of is not None:
            return self.first_of
        return () if self.source is None else (self.source,) if isinstance(self.source, str) else self.source


class CurrencyMapping(_Model):
    """The currency of amounts and the table of rates.

    Attributes:
        source: the bank's column of ISO 4217 codes (``from`` in the file).
        constant: the ISO 4217 code of every amount, instead of a column.
        codes: from the bank's words for currencies to ISO 4217 codes; other texts are codes themselves.
        rates: CSV with the columns day (YYYY-MM-DD), currency and rate: units of the contract's currency for one of
            it. The payment's UTC day counts; where it has no rate, the last of the ``stale_days`` before it.
        stale_days: how many days old a rate may be; a payment without one is quarantined.
    """

    source: _Text | None = Field(default=None, alias="from")
    constant: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] | None = None
    codes: dict[str, Annotated[str, Field(pattern=r"^[A-Z]{3}$")]] = {}
    rates: Path | None = None
    stale_days: int = Field(default=4, ge=0, le=31)

    @model_validator(mode="after")
    def _one_origin(self) -> "CurrencyMapping":
        if (self.source is None) == (self.constant is None):
            raise ValueError("exactly one of from and constant says the currency of amounts")
        if self.codes and self.source is None:
            raise ValueError("codes goes with from")
        return self


class CsvFormat(_Model):
    """How the bank's CSV files are written.

    Attributes:
        delimiter: what parts the fields.
        quote: what fields are quoted with; inside a field it is doubled.
        encoding: of the whole file.
        skip: lines before the header; null finds the first line that has every column the mapping names.
    """

    delimiter: Literal[",", ";", "|", "\t"] = ","
    quote: Literal['"', "'"] = '"'
    encoding: Literal["utf-8", "latin-1", "windows-1252", "utf-16"] = "utf-8"
    skip: int | None = Field(default=None, ge=0, le=1000)


class LabelMapping(_Model):
    """How the rows of a label source are read: one a decision, beside the payments (see `features.store.label_source`).

    Attributes:
        columns: ``payment_id`` and ``is_fraud``, and ``label_time`` (when it was decided) if the source tells it.
        version_column: of two decisions on one payment the larger wins; without it the one in a file of a later name.
        csv: how its CSV files are written.
    """

    columns: dict[str, ColumnMapping] = {
        name: ColumnMapping.model_validate({"from": name}) for name in ("payment_id", "is_fraud", "label_time")
    }
    version_column: _Text | None = None
    csv: CsvFormat = CsvFormat()

    @model_validator(mode="after")
    def _known(self) -> "LabelMapping":
        wanted = {"payment_id", "is_fraud"}
        if not wanted <= self.columns.keys() or not self.columns.keys() <= wanted | {"label_time"}:
            raise ValueError("labels are payment_id and is_fraud, and label_time if it is known")
        if any(self.columns[name].absent for name in wanted):
            raise ValueError("a label without its payment or its verdict is none")
        if any(entry.sign_of is not None for entry in self.columns.values()):
            raise ValueError("sign_of is for the direction of payments, not for labels")
        return self


class Mapping(_Model):
    """A whole mapping.

    Attributes:
        contract: name of the contract that it is for.
        columns: the contract's column to where it comes from; every required one must be there.
        currency: the currency of amounts, where they are not all in the contract's.
        csv: how the bank's CSV files are written.
        version_column: the bank's column that grows when it corrects a row; the largest wins, in the column's own
            order. Without it a row in a file of a later name replaces the same payment in an earlier one.
        nulls: words that mean no value in every column, such as NULL or n/a, besides an empty text.
        labels: how a label source is read, where the configuration names one.
        own_agents: the bank's own BICs, by which ISO 20022 messages tell outgoing from incoming.
        confirmed: set by the human who read a drafted mapping; a draft is not used.
    """

    contract: _Text
    columns: dict[str, ColumnMapping]
    currency: CurrencyMapping | None = None
    version_column: _Text | None = None
    nulls: tuple[_Text, ...] = ()
    csv: CsvFormat = CsvFormat()
    labels: LabelMapping = LabelMapping()
    own_agents: tuple[Annotated[str, Field(pattern=r"^[A-Z0-9]{8}([A-Z0-9]{3})?$")], ...] = ()
    confirmed: bool = True

    @model_validator(mode="after")
    def _canonical(self) -> "Mapping":
        for name in self.columns:
            if name not in CANONICAL_COLUMNS | OPTIONAL_COLUMNS:
                raise ValueError(f"{name} is no column of the contract")
        for name, column in self.columns.items():
            if column.sign_of is not None and name != "direction":
                raise ValueError(f"{name}: sign_of is for direction")
            if column.debit is not None and name not in ("amount", "direction"):
                raise ValueError(f"{name}: debit and credit are for amount and direction")
        labels = {f"labels.{name}": column for name, column in self.labels.columns.items()}
        for name, column in (self.columns | labels).items():
            for code in column.codes or {}:
                if code in self.nulls:
                    raise ValueError(f"{name}: codes: {code!r} never matches, since nulls makes it no value")
        return self

    @property
    def source_columns(self) -> tuple[str, ...]:
        """Every column of the bank's that is read, without repeats; all others are never looked at."""
        names = [name for column in self.columns.values() for name in column.columns]
        names += [self.currency.source] if self.currency and self.currency.source else []
        names += [self.version_column] if self.version_column else []
        return tuple(dict.fromkeys(names))


def identity_mapping(contract: DataContract) -> Mapping:
    """The mapping of a bank whose columns have the contract's names and codes already."""
    return Mapping(
        contract=contract.name,
        columns={column.name: ColumnMapping.model_validate({"from": column.name}) for column in contract.columns},
    )


def load_mapping(path: Path | str, contract: DataContract, *, draft: bool = False) -> Mapping:
    """Read a mapping file; a relative ``rates`` is taken from the file's folder.

    Args:
        draft: whether one that no human confirmed yet may be read: for a trial, never for an extraction.

    Raises:
        MappingError: unreadable, not YAML, an unknown key, a required column without an entry, a place that is still
            a draft's question mark, a draft that no human confirmed, or a mapping for another contract. The message
            names the place.
    """
    path = Path(path)
    document = read_mapping(path, "Mapping", MappingError)
    if undecided := list(_undecided(document)):
        raise MappingError(f"Mapping {path} is not decided yet: {'; '.join(undecided)}.")
    try:
        mapping = Mapping.model_validate(document)
    except ValidationError as error:
        raise MappingError(f"Mapping {path}: {places(error)}") from error
    if mapping.contract != contract.name:
        raise MappingError(f"Mapping {path} is for another contract than {contract.name}.")
    missing = [column.name for column in contract.columns if column.required and column.name not in mapping.columns]
    if missing:
        raise MappingError(f"Mapping {path} has no entry for {', '.join(missing)}.")
    for column in contract.columns:
        if not column.nullable and column.name in mapping.columns and mapping.columns[column.name].absent:
            raise MappingError(f"Mapping {path}: {column.name} may not be absent.")
    for column in contract.columns:
        _check_codes(path, mapping.columns.get(column.name), column, contract)
    if mapping.currency is None and not draft:
        raise MappingError(
            f"Mapping {path} does not say in which currency amounts are. Write currency: {{constant: "
            f"{contract.currency}}} if all are in the contract's, {{constant: XXX, rates: rates.csv}} if all are in "
            "another, or {from: COLUMN, rates: rates.csv}."
        )
    if not mapping.confirmed and not draft:
        raise MappingError(f"Mapping {path} is a draft: read it, mend it, and set confirmed to true.")
    if mapping.currency is not None and mapping.currency.rates is not None:
        rates = path.parent / mapping.currency.rates
        mapping = mapping.model_copy(update={"currency": mapping.currency.model_copy(update={"rates": rates})})
    return mapping


def _check_codes(path: Path, entry: ColumnMapping | None, column: ColumnSpec, contract: DataContract) -> None:
    """Codes that the mapping makes and the contract doesn't know: every row with one would be quarantined."""
    if entry is None or column.vocabulary is None:
        return
    made = [entry.constant, entry.default, entry.other, *(entry.codes or {}).values()]
    known = contract.codes(column.name)
    for code in made:
        if code not in (None, "") and str(code) not in known:
            listed = ", ".join(known) if len(known) <= 20 else f"{', '.join(known[:20])} and {len(known) - 20} more"
            raise MappingError(
                f"Mapping {path}: {column.name}: {code} is no code of the contract's, which are {listed}."
            )


def _undecided(document: dict[str, Any]) -> Iterator[str]:
    """Places where a draft's question mark still stands, and what is to be written there."""
    labels = document.get("labels")
    sections = [("", document.get("columns")), ("labels.", labels.get("columns") if isinstance(labels, dict) else None)]
    for prefix, columns in sections:
        for name, entry in (columns if isinstance(columns, dict) else {}).items():
            for key, value in (entry if isinstance(entry, dict) else {}).items():
                place = f"{prefix}{name}"
                if value == UNDECIDED:
                    yield f"{place}: {key} is still ?: {_TO_WRITE.get(str(key), 'write what it is')}"
                elif key == "codes" and isinstance(value, dict) and UNDECIDED in value.values():
                    open_ = sum(code == UNDECIDED for code in value.values())
                    yield f"{place}: {open_} of {len(value)} codes are still ?: write one of the contract's for each"
