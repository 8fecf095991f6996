"""A draft as YAML text: above each entry why it is so and what is asked; then what is not read. Decides nothing."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from features.contract.schema import DataContract
from features.ingestion.profile.entries import Notes
from features.ingestion.profile.facts import ColumnFacts
from features.ingestion.profile.masking import may_show, samples
from features.ingestion.profile.sample import Sample

__all__ = ["draft_text"]

_WIDTH = 116


def draft_text(
    contract: DataContract,
    sample: Sample,
    entries: Mapping[str, Any],
    settings: Mapping[str, Any],
    labels: Mapping[str, Any] | None,
    notes: Notes,
    unread: Sequence[tuple[str, Sequence[ColumnFacts]]],
) -> str:
    """The whole draft.

    Args:
        unread: by source, its columns that the draft does not read.
    """
    rows = f"the first {sample.rows.num_rows:,} rows" if sample.more else f"the {sample.rows.num_rows:,} rows"
    files = f" (of {sample.files} files)" if sample.files > 1 else ""
    lines = [
        *_comment(
            f"A draft for contract {contract.name} {contract.version} from {rows} of {sample.where}{files}. Read it, "
            "mend it, then set confirmed to true. sure, likely and a guess say how well name and values fit; a "
            "CHECK is for you to decide.", ""
        ),
        "confirmed: false",
        f"contract: {contract.name}",
        *_block(settings, "", notes, ""),
    ]  # fmt: skip
    lines += ["columns:", *_block(entries, "  ", notes, "")]
    if labels is not None:
        lines += [
            "labels:",
            *_block({name: value for name, value in labels.items() if name != "columns"}, "  ", notes, "labels."),
            "  columns:",
            *_block(labels["columns"], "    ", notes, "labels."),
        ]
    for where, columns in unread:
        if columns:
            lines += ["", *_comment(f"Not read of {where} (texts that may tell of a person by their shape):", "")]
            lines += [f"#   {line}" for line in _unread(columns)]
    return "\n".join(lines) + "\n"


def _block(values: Mapping[str, Any], indent: str, notes: Notes, prefix: str) -> Iterator[str]:
    for name, value in values.items():
        if told := notes.told.get(prefix + name):
            yield from _comment(told, indent)
        for question in notes.asked.get(prefix + name, []):
            yield from _comment(f"CHECK: {question}", indent)
        # Collections in one line each, scalars as they are.
        style = None if isinstance(value, dict | list) else False
        flow = yaml.safe_dump(
            {name: value}, default_flow_style=style, width=_WIDTH, allow_unicode=True, sort_keys=False
        )
        yield from (f"{indent}{line}" for line in flow.rstrip().splitlines())


def _comment(text: str, indent: str) -> Iterator[str]:
    """Comment lines, broken at blanks. A line end in a name would end the comment, so there is none."""
    words, line = " ".join(text.split()).split(" "), ""
    for word in words:
        if line and len(indent) + len(line) + len(word) + 3 > _WIDTH:
            yield f"{indent}# {line}"
            line = f"  {word}" if text.startswith("CHECK") else word
        else:
            line = f"{line} {word}" if line else word
    yield f"{indent}# {line}"


def _unread(columns: Sequence[ColumnFacts]) -> Iterator[str]:
    wide = min(max(len(facts.name) for facts in columns), 40)
    for facts in columns:
        filled = f"{facts.present / facts.rows:.0%} filled" if facts.rows else "empty"
        shown = " | ".join(" ".join(each.split()) for each in samples(facts))
        personal = "" if may_show(facts) else " (personal data?)"
        name = " ".join(facts.name.split()) or "(no name)"
        yield f"{name:{wide}s}  {filled:>11s}, {facts.distinct:>6,} different: {shown}{personal}".rstrip(": ")
