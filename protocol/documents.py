"""Reads the YAML files that people write: configurations, parameters, searches. It knows none of their keys itself."""

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from protocol.errors import ConfigError

__all__ = ["did_you_mean", "read_mapping"]


def read_mapping(path: Path, what: str) -> dict[str, Any]:
    """A YAML file's mapping; an empty file is an empty one.

    Args:
        path: the file.
        what: what it is to its reader, for errors.

    Raises:
        ConfigError: unreadable, not YAML, or no mapping; names the file, never what is in it.
    """
    try:
        document = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(f"{what} {path} can't be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{what} {path} is not YAML") from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigError(f"{what} {path} must be a mapping")
    return document


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``; did you mean NAME?`` for a name that is nearly a known one, else nothing."""
    near = difflib.get_close_matches(name[:64], list(known), n=1, cutoff=0.7)
    return f"; did you mean {near[0]}?" if near else ""
