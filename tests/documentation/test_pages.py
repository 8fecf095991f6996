"""What pages say of the code in lists that a change of the code makes wrong: errors, records, columns."""

import ast
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xgboost

from bank_node.models.scoring import make_alerts
from docs.generate.errors import known_errors

DOCS = Path(__file__).parents[2] / "docs"
AIRFLOW_SETTINGS = Path(__file__).parents[2] / "dags" / "settings.py"
BANK = Path(__file__).parents[2] / "bank_node"


@pytest.mark.parametrize("kind", known_errors(), ids=lambda kind: kind.__name__)
def test_the_runbook_has_every_error(kind: type[Exception]) -> None:
    assert re.search(rf"^\| [^|]*`{kind.__name__}`", (DOCS / "runbook.md").read_text(), re.MULTILINE)


def test_the_runbook_has_no_error_that_is_gone() -> None:
    rows = re.findall(r"^\| ([^|]*Error`|`[A-Z][^|]*`) \|", (DOCS / "runbook.md").read_text(), re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([A-Z]\w+)`", row)}
    assert named and named <= {kind.__name__ for kind in known_errors()}


def _noted() -> set[str]:
    """Kinds of records that the bank's code writes into a ledger."""
    found = set()
    for path in (BANK / "secure_aggregation").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "note"
                and node.args
                and isinstance(node.args[0], ast.Constant)
            ):
                found.add(str(node.args[0].value))
    return found


def test_the_auditor_s_page_has_every_kind_of_record() -> None:
    text = (DOCS / "audit.md").read_text().split("## The ledger's records")[1]
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == _noted() | {"rewind"}
    assert "sum" in _noted() and "evidence" in _noted()


def test_the_auditor_s_page_has_every_check_of_verify() -> None:
    source = (BANK / "secure_aggregation" / "ledger_audit.py").read_text()
    checks = source[source.index("    checks = {") : source.index("    findings = []")]
    names = re.findall(r'^        "([^"]+)":', checks, re.MULTILINE)
    text = (DOCS / "audit.md").read_text()
    assert len(names) > 7 and [name for name in names if f"| {name} |" not in text] == []


def test_the_columns_of_alerts_are_those_that_are_written() -> None:
    rows = pd.DataFrame({"a": np.arange(8, dtype=np.float32), "row_id": list("abcdefgh")})
    rows["event_time"] = pd.Timestamp("2026-01-05")
    booster = xgboost.train(
        {"max_depth": 1, "min_child_weight": 0}, xgboost.DMatrix(rows[["a"]], rows["a"] > 4), num_boost_round=1
    )
    columns = list(make_alerts(booster, rows, rows["a"].to_numpy(), 0.5).columns)
    text = (DOCS / "install-bank.md").read_text().split("## The alerts")[1]
    told = [name for row in re.findall(r"^\| (`[^|]+`) \|", text, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)]
    assert told == columns


def test_the_airflow_page_has_every_variable_that_is_read() -> None:
    read = set(re.findall(r'"(CROSSBANK_[A-Z_]+)"', AIRFLOW_SETTINGS.read_text()))
    told = re.findall(r"^\| `(CROSSBANK_[A-Z_]+)` \|", (DOCS / "airflow.md").read_text(), re.MULTILINE)
    assert len(told) >= 4 and set(told) == read
