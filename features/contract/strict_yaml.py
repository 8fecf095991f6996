"""YAML as contracts and mappings are read: no key twice, no alias, faults told by place. Knows no key of its own.

Configurations are read by the same rules in `protocol.documents`: the two packages do not know each other, and one
test holds both readers.
"""

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from features.errors import DataError

__all__ = ["MAX_DOCUMENT_BYTES", "StrictLoader", "parsed_mapping", "places", "read_mapping"]

MAX_DOCUMENT_BYTES = 1_000_000
"""A contract has tens of kB; a file far above is a mistake, and YAML of that size takes minutes to parse."""


class StrictLoader(yaml.SafeLoader):
    """YAML's safe loader, refusing a key that is there twice and any alias (aliases can blow up in memory)."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "aliases are not allowed", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key is not a word; write it in quotes", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key} is there twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def read_mapping(path: Path, what: str, error: type[DataError]) -> dict[str, Any]:
    """A YAML file's mapping.

    Args:
        path: the file, UTF-8.
        what: what it is to its reader, for errors.
        error: the kind of error it raises.

    Raises:
        DataError: of that kind: unreadable, too large, not YAML, a key twice, an alias, or no mapping; names the file
            and the line.
    """
    try:
        if path.stat().st_size > MAX_DOCUMENT_BYTES:
            raise error(f"{what} {path} is larger than {MAX_DOCUMENT_BYTES} bytes.")
        text = path.read_bytes()
    except OSError as fault:
        raise error(f"{what} {path} can't be read: {fault.strerror or 'unreadable'}.") from fault
    return parsed_mapping(text, f"{what} {path}", error)


def parsed_mapping(text: bytes, name: str, error: type[DataError]) -> dict[str, Any]:
    """The same for text that was read already; `name` is what messages call it."""
    try:
        document = yaml.load(text.decode("utf-8"), StrictLoader)  # noqa: S506 a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError) as fault:
        mark = getattr(fault, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark is not None else ""
        reason = getattr(fault, "problem", None) or type(fault).__name__
        raise error(f"{name} is not valid YAML{where}: {reason}.") from fault
    if not isinstance(document, dict):
        raise error(f"{name} must be a mapping of keys to values at its top level.")
    return document


def places(error: ValidationError) -> str:
    """One sentence for each of the first ten faults: where in the file, and what."""
    faults = error.errors(include_url=False, include_input=False, include_context=False)
    sentences = []
    for fault in faults[:10]:
        where = ".".join(str(part) for part in fault["loc"]) or "the whole"
        message = "unknown key" if fault["type"] == "extra_forbidden" else fault["msg"].removeprefix("Value error, ")
        sentences.append(f"{where}: {message}.")
    if len(faults) > 10:
        sentences.append(f"And {len(faults) - 10} more.")
    return " ".join(sentences)
