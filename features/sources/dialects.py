"""In what the engines differ: how a window is told to one, and how a time becomes whole microseconds. Opens nothing.

The feature expressions are the same on every engine. Only what must be said in an engine's own words is a `Dialect`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import ibis.expr.types as ir

__all__ = ["DIALECTS", "DUCKDB", "MICROSECONDS_PER_SECOND", "Dialect", "Frames"]


MICROSECONDS_PER_SECOND = 1_000_000


Frames = Literal["rows", "range"]
"""How an engine is told a window: by numbers of rows that are columns of the table, or by a span of time."""


def _microseconds(moment: "ir.Value") -> "ir.Value":
    # Truncated first: the engine rounds to seconds, and up from half a second.
    seconds = moment.truncate("s").epoch_seconds().cast("int64")
    return seconds * MICROSECONDS_PER_SECOND + moment.microsecond().cast("int64")


def _spark_microseconds(moment: "ir.Value") -> "ir.Value":
    import ibis

    # Ibis has no microsecond of a time on Spark: this is Spark's own function, by its name there.
    @ibis.udf.scalar.builtin(signature=(("timestamp('UTC')",), "int64"))
    def unix_micros(moment): ...  # type: ignore[no-untyped-def]

    return unix_micros(moment.cast("timestamp('UTC')"))


def _hash(text: "ir.Value") -> "ir.Value":
    return text.hash()


def _spark_hash(text: "ir.Value") -> "ir.Value":
    import ibis

    # Ibis' own hash has 32 bits on Spark.
    @ibis.udf.scalar.builtin(signature=(("string",), "int64"))
    def xxhash64(text): ...  # type: ignore[no-untyped-def]

    return xxhash64(text)


@dataclass(frozen=True, slots=True)
class Dialect:
    """What a feature expression must know of the engine it runs on.

    Attributes:
        frames: how a window is told; see `features.engineering.windows`.
        microseconds: from a UTC timestamp to int64 microseconds since 1970.
        text_hash: from a text to a 64-bit number; equal for equal texts on one engine, another on each.
    """

    name: str
    frames: Frames
    microseconds: Callable[["ir.Value"], "ir.Value"]
    text_hash: Callable[["ir.Value"], "ir.Value"]


DUCKDB = Dialect("duckdb", "rows", _microseconds, _hash)


DIALECTS = {
    "duckdb": DUCKDB,
    "postgresql": Dialect("postgresql", "range", _microseconds, _hash),
    "spark": Dialect("spark", "range", _spark_microseconds, _spark_hash),
}
