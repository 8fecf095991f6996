"""Shows sample configurations inside pages, as they lie in docs/samples. It checks none: tests load them."""

from pathlib import Path

__all__ = ["FOLDER", "SHOWN", "shown"]

FOLDER = Path(__file__).resolve().parents[1] / "samples"

#: Page and sample that is shown in it, by its path in docs/samples.
SHOWN: tuple[tuple[str, str], ...] = (
    ("docs/operations.md", "aggregator.yaml"),
    ("docs/operations.md", "bank.yaml"),
    ("docs/operations.md", "operator.yaml"),
    ("docs/data.md", "bank_postgresql.yaml"),
    ("docs/data.md", "bank_spark.yaml"),
    ("docs/data.md", "mapping_csv.yaml"),
    ("docs/data.md", "mapping_labels.yaml"),
    ("docs/boosting.md", "bank_shards.yaml"),
    ("docs/tuning.md", "search.yaml"),
)


def shown(name: str) -> str:
    """The sample as a fenced block."""
    return f"```yaml\n{(FOLDER / name).read_text()}```\n"
