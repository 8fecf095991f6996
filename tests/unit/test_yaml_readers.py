"""The two strict YAML readers, of protocol and of features, which may not know each other: the same rules in both."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from features.contract import strict_yaml
from features.errors import MappingError
from protocol import documents
from protocol.errors import ConfigError

Reader = Callable[[Path], dict[str, Any]]


def of_features(path: Path) -> dict[str, Any]:
    return strict_yaml.read_mapping(path, "Document", MappingError)


def of_protocol(path: Path) -> dict[str, Any]:
    return documents.read_mapping(path, "Document")


READERS = pytest.mark.parametrize("read", [of_features, of_protocol])


@READERS
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3: key a is there twice"),
        ("a:\n  b: 1\n  b: 2\n", "line 3: key b is there twice"),
        ("a: [{b: 1, b: 2}]\n", "key b is there twice"),
        ("a: &x [1]\nb: *x\n", "line 2: aliases are not allowed"),
        ("1: a\n", "a key is not a word"),
        ("a: !!python/object:os.system {}\n", "line 1"),
        ("a: [\n", "line 2"),
        ("- a\n", "must be a mapping"),
        ("a", "must be a mapping"),
    ],
)
def test_both_refuse_with_file_and_line(read: Reader, text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "document.yaml"
    path.write_text(text)
    with pytest.raises((MappingError, ConfigError), match=r"document\.yaml") as caught:
        read(path)
    assert words in str(caught.value)


@READERS
def test_both_refuse_what_is_not_there_or_not_utf_8(read: Reader, tmp_path: Path) -> None:
    with pytest.raises((MappingError, ConfigError), match=r"gone.yaml can't be read: No such file"):
        read(tmp_path / "gone.yaml")
    (tmp_path / "latin.yaml").write_bytes("a: \u00e9\n".encode("latin-1"))
    with pytest.raises((MappingError, ConfigError), match=r"latin.yaml"):
        read(tmp_path / "latin.yaml")


@READERS
def test_both_read_the_same(read: Reader, tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text("a: {b: [1, 2.5, x, null]}\nday: 2026-01-31\n'1': \u00e9\n", encoding="utf-8")
    found = read(tmp_path / "good.yaml")
    assert found["a"] == {"b": [1, 2.5, "x", None]}
    assert (found["day"].isoformat(), found["1"]) == ("2026-01-31", "\u00e9")
