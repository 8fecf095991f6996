"""The data contract: what the banks agree a payments table and its features are. Reads YAML; touches no data.

Two banks whose contracts have the same fingerprint mean the same thing by every column, code and feature, and share
the same bin grid. The fingerprint is over the parsed contract: comments and layout of the file don't count.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, field_validator, model_validator

from features.contract.grid import Grid
from features.contract.sections import DEVICE_FEATURES, SHARED_FEATURES, QualitySpec, SharedRiskSpec
from features.contract.standards import COUNTRIES, MINOR_UNITS

__all__ = [
    "CANONICAL_COLUMNS",
    "OPTIONAL_COLUMNS",
    "ColumnSpec",
    "DataContract",
    "FeatureSpec",
    "LabelSpec",
]

CANONICAL_COLUMNS = {
    "payment_id": "string",
    "event_time": "timestamp",
    "account_id": "string",
    "counterparty_id": "string",
    "counterparty_bank": "string",
    "direction": "string",
    "channel": "string",
    "amount": "number",
    "category": "string",
    "is_fraud": "number",
    "label_time": "timestamp",
}
"""Columns of a payments table and their types: the feature code knows these names, a contract can't rename them."""

OPTIONAL_COLUMNS = {"counterparty_country": "string", "device_id": "string"}
"""Columns that a contract may have, or not; where it has one, a bank may still lack it."""

STANDARD_VOCABULARIES = {"iso3166": COUNTRIES}
"""Code lists that a contract names instead of writing them out. Its fingerprint has the codes."""


_Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
_Text = Annotated[str, Field(min_length=1, max_length=2000)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ColumnSpec(_Model):
    """One column of the payments table: type, unit, whether it may be null or absent, and what values it may have.

    Attributes:
        name: one of the columns that this version knows.
        type: ``string``, ``timestamp`` (UTC, to the microsecond) or ``number``.
        description: what it means, for people.
        unit: of numbers and times, for people.
        required: whether a bank must have the column.
        nullable: whether a value may be missing.
        vocabulary: of text: the list of ``vocabularies`` that its codes come from.
        at_most: of numbers: the largest allowed one.
        allowed: of numbers: all that are allowed.
    """

    name: _Name
    type: Literal["string", "timestamp", "number"]
    description: _Text
    unit: str | None = None
    required: bool = True
    nullable: bool = False
    vocabulary: _Name | None = None
    above: FiniteFloat | None = Field(default=None, description="values must be greater than this")
    at_most: FiniteFloat | None = None
    allowed: tuple[FiniteFloat, ...] | None = None
    earliest: datetime | None = Field(default=None, description="first allowed time, UTC")
    latest: datetime | None = Field(default=None, description="last allowed time, UTC")

    @field_validator("earliest", "latest")
    @classmethod
    def _naive_utc(cls, value: datetime | None) -> datetime | None:
        if value is not None and value.tzinfo is not None:
            raise ValueError("write times without a zone: they are UTC")
        return value

    @model_validator(mode="after")
    def _rules_fit_type(self) -> "ColumnSpec":
        rules = {
            "string": ("vocabulary",),
            "number": ("above", "at_most", "allowed"),
            "timestamp": ("earliest", "latest"),
        }
        for kind, names in rules.items():
            for name in names:
                if kind != self.type and getattr(self, name) is not None:
                    raise ValueError(f"{name} is for columns of type {kind}, and {self.name} is a {self.type}")
        if not self.required and not self.nullable:
            raise ValueError(f"{self.name} may be absent, so it must be nullable")
        return self


class FeatureSpec(_Model):
    """One feature of the contract: its name in the catalogue, its meaning in words, and its bin grid.

    Attributes:
        name: in the catalogue, or one of the shared features.
        description: what it means, for people.
        grid: the fixed edges among which the consortium chooses its bins.
    """

    name: _Name
    description: _Text
    grid: Grid


class LabelSpec(_Model):
    """The label's definition, and how long after a payment its label is settled.

    Attributes:
        column: the column with 1 for fraud and 0 for not.
        time_column: the column with the time at which a label became known.
        description: what counts as fraud, for people.
        delay_days: a label without a time counts as known so many days after the payment, and so many days lie
            between training and test rows.
    """

    column: Literal["is_fraud"]
    time_column: Literal["label_time"]
    description: _Text
    delay_days: int = Field(ge=0, le=3650)


class DataContract(_Model):
    """A whole contract; banks whose contracts have the same fingerprint mean the same by everything in it.

    Attributes:
        name: the contract's name; a mapping names it.
        version: major.minor.patch; `features contract check` says which step a change needs.
        description: what it is for.
        label: what is predicted.
        vocabularies: name to codes in a fixed order, or to the name of a public standard (``iso3166``).
        columns: the payments table.
        features: what is made of it, in the order of the model's columns.
        alert_budget: share of rows a bank can look into, above 0 and at most 1.
        minor_unit_digits: decimal places of the currency's smallest unit (ISO 4217); amounts are rounded to it.
        shared_risk: what the banks count together about counterparties; None if they share nothing but the model.
        quality: limits of the data quality gate.
    """

    name: _Name
    version: str = Field(pattern=r"^\d+\.\d+\.\d+$")
    description: _Text
    currency: str = Field(pattern=r"^[A-Z]{3}$", description="ISO 4217 code of every amount")
    minor_unit_digits: int = Field(ge=0, le=4)
    alert_budget: float = Field(gt=0, le=1)
    label: LabelSpec
    vocabularies: dict[_Name, Annotated[tuple[_Text, ...], Field(min_length=1)]]
    columns: Annotated[tuple[ColumnSpec, ...], Field(min_length=1)]
    features: Annotated[tuple[FeatureSpec, ...], Field(min_length=1)]
    shared_risk: SharedRiskSpec | None = None
    quality: QualitySpec = QualitySpec()

    @field_validator("vocabularies", mode="before")
    @classmethod
    def _written_out(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {
            name: STANDARD_VOCABULARIES.get(words, words) if isinstance(words, str) else words
            for name, words in value.items()
        }

    @model_validator(mode="after")
    def _consistent(self) -> "DataContract":
        _refuse_repeats("column", (column.name for column in self.columns))
        _refuse_repeats("feature", (feature.name for feature in self.features))
        for name, words in self.vocabularies.items():
            _refuse_repeats(f"code in vocabulary {name}", words)
        self._check_columns()
        self._check_money()
        self._check_shared_risk()
        if not self.local_names:
            raise ValueError("at least one feature must be the bank's own")
        if strange := [name for name in self.quality.growing if name not in {each.name for each in self.features}]:
            raise ValueError(f"quality.growing names {strange[0]}, which is no feature of the contract")
        return self

    def _check_columns(self) -> None:
        types = {column.name: column.type for column in self.columns}
        for name, kind in CANONICAL_COLUMNS.items():
            if types.get(name) != kind:
                raise ValueError(f"the contract must have a column {name} of type {kind}")
        for column in self.columns:
            if column.name not in CANONICAL_COLUMNS | OPTIONAL_COLUMNS:
                raise ValueError(f"column {column.name} is not one that this version knows")
            if column.name in OPTIONAL_COLUMNS and (column.type != OPTIONAL_COLUMNS[column.name] or column.required):
                raise ValueError(f"column {column.name} must be of type string and not required")
            if column.vocabulary is not None and column.vocabulary not in self.vocabularies:
                raise ValueError(f"column {column.name} names the vocabulary {column.vocabulary}, which is not there")
        for name in ("direction", "channel", "category"):
            if self.column(name).vocabulary is None:
                raise ValueError(f"column {name} must name a vocabulary")
        country = "counterparty_country"
        if f"{country}_code" in self.local_names and country in types and self.column(country).vocabulary is None:
            raise ValueError(f"feature {country}_code needs column {country} to name a vocabulary")

    def _check_money(self) -> None:
        if self.currency not in MINOR_UNITS:
            raise ValueError("currency is no code of ISO 4217")
        if self.minor_unit_digits != MINOR_UNITS[self.currency]:
            raise ValueError(f"ISO 4217 gives {self.currency} {MINOR_UNITS[self.currency]} minor unit digits")
        if set(self.codes("direction")) != {"out", "in"}:
            raise ValueError("the vocabulary of direction must be exactly out and in")

    def _check_shared_risk(self) -> None:
        if self.shared_names and self.shared_risk is None:
            raise ValueError(f"feature {self.shared_names[0]} needs the section shared_risk")
        names = {column.name for column in self.columns}
        for entity in self.shared_risk.kinds if self.shared_risk else ():
            if entity.column not in names:
                raise ValueError(f"kind {entity.name} needs the column {entity.column}")
        devices = [name for name in self.shared_names if name in DEVICE_FEATURES]
        if devices and not any(
            kind.column == "device_id" for kind in (self.shared_risk.kinds if self.shared_risk else ())
        ):
            raise ValueError(f"feature {devices[0]} needs a kind with the column device_id")
        for entity in self.shared_risk.kinds if self.shared_risk else ():
            for channel in entity.channels:
                if channel not in self.codes("channel"):
                    raise ValueError(f"kind {entity.name} names the channel {channel}, which is not in its vocabulary")

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256, hex, of the contract as canonical JSON: sorted keys, no spaces, defaults written out, UTF-8."""
        canonical = json.dumps(
            self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        )
        return hashlib.sha256(canonical.encode()).hexdigest()

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the features, in the order of the feature table's and the model's columns."""
        return tuple(feature.name for feature in self.features)

    @property
    def local_names(self) -> tuple[str, ...]:
        """The features that a bank makes of its own payments: the catalogue's."""
        return tuple(name for name in self.feature_names if name not in SHARED_FEATURES)

    @property
    def shared_names(self) -> tuple[str, ...]:
        """The features that are read from what the banks counted together."""
        return tuple(name for name in self.feature_names if name in SHARED_FEATURES)

    def column(self, name: str) -> ColumnSpec:
        """The column of that name.

        Raises:
            KeyError: there is none.
        """
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)

    def codes(self, column: str) -> tuple[str, ...]:
        """The vocabulary of a column, in the contract's order; a code's number is its place in it, from 0."""
        vocabulary = self.column(column).vocabulary
        return () if vocabulary is None else self.vocabularies[vocabulary]


def _refuse_repeats(what: str, names: Iterable[str]) -> None:
    repeated = sorted(name for name, count in Counter(names).items() if count > 1)
    if repeated:
        raise ValueError(f"{what} {repeated[0]} is there twice")
