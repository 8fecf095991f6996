"""Reads the YAML files that people write: configurations, parameters, searches. It knows none of their keys itself.

No key twice, no alias. Contracts and mappings are read by the same rules in `features.contract.strict_yaml`: the two
packages do not know each other, and one test holds both readers.
"""

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from protocol.errors import ConfigError

__all__ = ["did_you_mean", "read_document", "read_mapping"]

_OUR_WORDS = ("aliases are not allowed", "a key is not a word", "is there twice")


class _StrictLoader(yaml.SafeLoader):
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
                raise yaml.constructor.ConstructorError(None, None, "a key is not a word", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key} is there twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def read_mapping(path: Path, what: str) -> dict[str, Any]:
    """A YAML file's mapping; an empty file is an empty one.

    Args:
        path: the file, UTF-8.
        what: what it is to its reader, for errors.

    Raises:
        ConfigError: as `read_document`, or it is no mapping.
    """
    document = read_document(path, what)
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigError(f"{what} {path} must be a mapping of keys to values")
    return document


def read_document(path: Path, what: str) -> Any:
    """What a YAML file holds; None where it is empty.

    Raises:
        ConfigError: unreadable, not YAML, a key twice or an alias; names the file and the line, never what is in it
            but keys.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _StrictLoader)  # noqa: S506 a SafeLoader
    except OSError as error:
        raise ConfigError(f"{what} {path} can't be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # ValueError: bytes that are no text, a day 2026-02-30.
        raise ConfigError(f"{what} {path} is not YAML{_place(error)}") from None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``; did you mean NAME?`` for a name that is nearly a known one, else nothing."""
    near = difflib.get_close_matches(name[:64], list(known), n=1, cutoff=0.7)
    return f"; did you mean {near[0]}?" if near else ""


def _place(error: BaseException) -> str:
    """Where, and for our own complaints what: the parser's own text quotes the file."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return ""
    problem = str(getattr(error, "problem", ""))
    return f" at line {mark.line + 1}" + (f": {problem}" if problem.endswith(_OUR_WORDS) else "")
