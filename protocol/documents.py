"""Reads the YAML files that people write: configurations, parameters, searches. It knows none of their keys."""

from pathlib import Path
from typing import Any

import yaml

from protocol.errors import ConfigError

__all__ = ["read_mapping"]


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
