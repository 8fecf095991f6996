"""The list of rows set aside: every row in it with its number, advice for every reason, and no value unless asked."""

import ast
from pathlib import Path

import pytest

from features import load_contract
from features.contract.mapping import ColumnMapping
from features.identifiers import IdentifierKey
from features.incremental import extract_days
from features.ingestion import advice as advices
from features.ingestion.advice import advice
from features.ingestion.quarantine import set_aside, values_set_aside
from features.store.partitions import FeatureStore
from tests.unit.features.ingestion.test_dirty_data import SECRET, line, mapped, text

CONTRACT = load_contract()
ROOT = Path(advices.__file__).parents[1]


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    """Two files, one with three bad rows and a line cut short."""
    source = tmp_path / "payments"
    source.mkdir()
    bad = [line(1, amount=SECRET), line(2), line(3, category=SECRET), line(4, amount="x"), "cut,short"]
    (source / "a.csv").write_bytes(text(line(0), *bad))
    (source / "b.csv").write_bytes(text(line(9)))
    store = FeatureStore(tmp_path / "store")
    extract_days(CONTRACT, source, store, key=IdentifierKey(bytes(32)), mapping=mapped())
    return store


def test_it_lists_reasons_with_row_numbers(store: FeatureStore) -> None:
    found = {
        (group.name, group.column, group.reason): (group.rows, group.first) for group in set_aside(store, mapped())
    }
    assert found == {
        ("a.csv", "amount", "text that is not a number"): (2, (2, 5)),
        ("a.csv", "category", "a code that the contract doesn't know"): (1, (4,)),
        ("a.csv", "", "unreadable line"): (1, ()),
    }


def test_folders_have_a_readable_index(store: FeatureStore) -> None:
    head, *lines = (store.root / "intake" / "index.tsv").read_text().splitlines()
    assert head.split("\t") == ["folder", "rows", "quarantined", "source"]
    rows = {each.split("\t")[3]: each.split("\t")[:3] for each in lines}
    assert rows == {"a.csv": [store.intake("a.csv").name, "6", "4"], "b.csv": [store.intake("b.csv").name, "1", "0"]}
    assert all((store.root / "intake" / folder).is_dir() for folder, *_ in rows.values())


def test_values_are_read_again_only_when_asked(store: FeatureStore, tmp_path: Path) -> None:
    groups = set_aside(store, mapped())
    assert SECRET not in repr(groups)
    first = next(group for group in groups if group.column == "amount")
    assert values_set_aside(tmp_path / "payments", first, CONTRACT, mapped()) == (
        ("amount",),
        [(2, SECRET), (5, "x")],
    )


def reasons() -> set[str]:
    """Every reason that the code gives, from its calls of Fault and the words of unreadable lines."""
    found = {"unreadable line", "line within a quoted text, or too long"}
    for file in (*(ROOT / "ingestion").glob("*.py"), *(ROOT / "contract").glob("*.py")):
        tree = ast.parse(file.read_text())
        names = {
            target.id: node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Fault":
                word = node.args[1]
                word = names.get(word.id, word) if isinstance(word, ast.Name) else word
                if isinstance(word, ast.JoinedStr):
                    word = word.values[0]
                if isinstance(word, ast.Constant):
                    found.add(str(word.value))
    return found


def test_every_reason_has_advice() -> None:
    every = reasons()
    assert len(every) > 15
    assert [reason for reason in sorted(every) if not advice("amount", reason)] == []


def test_advice_knows_what_the_mapping_says() -> None:
    entry = ColumnMapping.model_validate({"from": "booked", "format": "%d.%m.%Y"})
    assert "it is %d.%m.%Y" in advice("event_time", "text that is not a time", entry)
    joined = ColumnMapping.model_validate({"from": ["a", "b"]})
    assert "join" in advice("payment_id", "no value", joined)
    assert advice("labels.is_fraud", "a code that the mapping doesn't know").startswith("labels.is_fraud: add the code")
