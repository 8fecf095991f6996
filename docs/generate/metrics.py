"""The metrics that runs report, with their meaning, from the dataclass that holds them. It computes none."""

from dataclasses import fields

from docs.generate.docstrings import attributes
from docs.generate.markdown import table

__all__ = ["reference"]


def reference() -> str:
    """A table of names and meanings.

    Raises:
        LookupError: a metric has no description.
    """
    from bank_node.evaluation.metrics import RankingMetrics

    told = attributes(RankingMetrics)
    missing = [field.name for field in fields(RankingMetrics) if field.name not in told]
    if missing:
        raise LookupError(f"RankingMetrics.{missing[0]} has no description under Attributes")
    return table(("metric", "meaning"), [(f"`{field.name}`", told[field.name]) for field in fields(RankingMetrics)])
