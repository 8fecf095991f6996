"""Sample configurations: shows them in pages, and keeps the fingerprint in them. It checks none: tests load them."""

import re
from pathlib import Path

__all__ = ["FINGERPRINTED", "FOLDER", "SHOWN", "renewed", "shown"]

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

#: Samples that name the packaged contract by its fingerprint, which every change of the contract changes.
FINGERPRINTED = ("operator.yaml",)


def renewed(name: str) -> str:
    """The sample, with the packaged contract's fingerprint of now.

    Raises:
        ValueError: a sample that should name it does not.
    """
    text = (FOLDER / name).read_text()
    if name not in FINGERPRINTED:
        return text
    from features import load_contract

    text, found = re.subn(r'"[0-9a-f]{64}"', f'"{load_contract().fingerprint}"', text)
    if found != 1:
        raise ValueError(f"docs/samples/{name} must name the contract's fingerprint once, in double quotes")
    return text


def shown(name: str) -> str:
    """The sample as a fenced block."""
    return f"```yaml\n{renewed(name)}```\n"
