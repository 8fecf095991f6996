"""What can be wrong with a contract or with a bank's table. Not what can be wrong on the wire: see ``protocol.errors``.

Every message is whole sentences and names the file, the column, how many rows are bad and the number of the first bad
row (data rows counted from 1). No message holds a value of the data.
"""

from collections.abc import Mapping
from typing import Any

__all__ = [
    "ColumnTypeError",
    "ContractError",
    "DataError",
    "DuplicateRowError",
    "EmptyTableError",
    "FeatureTableError",
    "GateError",
    "KeyFileError",
    "LabelError",
    "MappingError",
    "MissingColumnError",
    "MissingValueError",
    "RangeError",
    "SchemaError",
    "SharedRiskError",
    "SourceError",
    "TooManyQuarantined",
    "UnknownCodeError",
]


class DataError(ValueError):
    """Root of this package's errors: the bank's own contract file or table is at fault, and the bank mends it."""


class ContractError(DataError):
    """The data contract can't be read, has an unknown key, or contradicts itself. Mend it where the text says."""


class KeyFileError(DataError):
    """The file with the key of identifiers is missing, open to others, or not a key. Restore it, or chmod 600 it."""


class MappingError(DataError):
    """The bank's mapping can't be read, has an unknown key, or names a column or code that nobody knows. Mend it."""


class GateError(DataError):
    """The bank's data failed the quality gate: it must not join a run. Mend the feed; the message has the reasons."""


class TooManyQuarantined(GateError):
    """More rows were set aside than the contract's quality gate lets pass. The store holds all the others.

    Attributes:
        result: what the extraction did, as it returns it when it goes well.
    """

    def __init__(self, message: str, result: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.result: Mapping[str, Any] = result or {}


class SourceError(DataError):
    """The payments can't be read: no such file, an empty folder, a damaged file. Mend it or take it away."""


class SchemaError(DataError):
    """The payments were read and break the contract. Mend them at the column and row that the text names.

    Attributes:
        column: the first column at fault, or None when the table as a whole is.
        bad_rows: how many rows are bad in that column, or 0 when that is not about rows.
        first_bad_row: number of the first bad row in its file, from 1, or None when that is not about rows.
    """

    def __init__(
        self, message: str, *, column: str | None = None, bad_rows: int = 0, first_bad_row: int | None = None
    ) -> None:
        super().__init__(message)
        self.column = column
        self.bad_rows = bad_rows
        self.first_bad_row = first_bad_row


class MissingColumnError(SchemaError):
    """A column that the contract requires is not there. Add it, or map another column to it."""


class ColumnTypeError(SchemaError):
    """A column has another type than the contract's, or text that can't be read as it. Say how in the mapping."""


class EmptyTableError(SchemaError):
    """There is no row, or no outgoing payment. Look at the source, and at the mapping of direction."""


class MissingValueError(SchemaError):
    """Null in a column that may not be null. Mend the rows, or map what stands for it."""


class UnknownCodeError(SchemaError):
    """A code that is not in the contract's vocabulary. Give it a place under the mapping's codes."""


class RangeError(SchemaError):
    """A number or a time outside the contract's range; NaN and infinity are outside every range. Mend the rows."""


class DuplicateRowError(SchemaError):
    """The same payment more than once. Take the repeats out, or name a version_column in the mapping."""


class LabelError(SchemaError):
    """A label that contradicts its time: missing though known, or known before the payment. Mend label or time."""


class SharedRiskError(DataError):
    """A table of shared risk does not fit the contract: a count, a size, a token. Compare the banks' contracts."""


class FeatureTableError(SchemaError):
    """The features that were made break their own schema: a fault in this package, to be reported as one."""
