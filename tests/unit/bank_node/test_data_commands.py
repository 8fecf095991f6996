"""The commands on the bank's own data: what they write and show, and the exit code that tells how it went."""

import json
from pathlib import Path

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from bank_node.cli import app
from bank_node.data_commands import TOO_MANY_QUARANTINED
from tests.unit.features.ingestion.profile import exports
from tests.unit.features.payments import good_frame

SECRET = "hunter2"


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    node = {name: name for name in ("ca", "certificate", "key")}
    path = tmp_path / "bank.yaml"
    path.write_text(
        yaml.safe_dump({"bank_id": "alder", "events": "events.csv", "work_dir": "work", "aggregator": node})
    )
    return path


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})


def payments(folder: Path, bad: int, rows: int = 100) -> None:
    table = good_frame(rows).astype({"amount": "object"})
    table.loc[table.index[:bad], "amount"] = SECRET
    table.to_csv(folder / "events.csv", index=False)


@pytest.mark.parametrize(
    ("bad", "code", "warned"), [(0, 0, False), (1, 0, False), (4, 0, True), (6, 4, True), (90, 4, True)]
)
def test_the_exit_code_tells_when_too_many_rows_are_set_aside(bank: Path, bad: int, code: int, warned: bool) -> None:
    payments(bank.parent, bad)
    done = run("extract", "--config", bank)
    assert done.exit_code == code
    assert ("warning: payments:" in done.stderr) == warned
    result = json.loads(done.stdout)
    assert result["payments"]["kept"] == 100 - bad
    assert SECRET not in done.output
    if code:
        assert f"{bad} of 100 rows ({bad / 100:.1%}) were quarantined; 5.0% may be" in done.stderr


def test_labels_of_their_own_are_judged_by_themselves(bank: Path) -> None:
    payments(bank.parent, 0)
    lines = [f"p{number},{'1' if number else 'perhaps'},2024-02-01 00:00:00" for number in range(10)]
    (bank.parent / "labels.csv").write_text("\n".join(["payment_id,is_fraud,label_time", *lines]) + "\n")
    bank.write_text(bank.read_text() + "labels: labels.csv\n")
    done = run("extract", "--config", bank)
    assert done.exit_code == TOO_MANY_QUARANTINED
    assert "of the labels 1 of 10 rows" in done.stderr


def test_a_second_extraction_that_mends_nothing_fails_again(bank: Path) -> None:
    payments(bank.parent, 50)
    assert [run("extract", "--config", bank).exit_code for _ in range(2)] == [4, 4]
    payments(bank.parent, 0)
    assert run("extract", "--config", bank).exit_code == 0


def test_the_quarantine_is_listed_without_a_value(bank: Path) -> None:
    payments(bank.parent, 3)
    assert run("quarantine", "--config", bank).exit_code != 0
    run("extract", "--config", bank)
    shown = run("quarantine", "--config", bank)
    assert shown.exit_code == 0
    for words in (
        "3 of 100 rows are quarantined (3.0%)",
        "events.csv",
        "text that is not a number",
        "1, 2, 3",
        "decimal",
    ):
        assert words in " ".join(shown.output.split())
    assert SECRET not in shown.output
    group = json.loads(run("quarantine", "--config", bank, "--json").output)
    assert (group["column"], group["rows"], group["first"]) == ("amount", 3, [1, 2, 3])
    assert SECRET in run("quarantine", "--config", bank, "--values").output


def test_a_file_that_is_not_there_is_refused(bank: Path) -> None:
    payments(bank.parent, 3)
    run("extract", "--config", bank)
    assert run("quarantine", "--config", bank, "--file", "other.csv").exit_code != 0
    assert run("quarantine", "--config", bank, "--file", "events.csv").exit_code == 0


def test_profile_writes_a_draft_and_a_page_and_tries_it(bank: Path) -> None:
    folder = bank.parent
    exports.written(exports.american, folder / "events.csv")
    done = run("profile", "--config", bank, "--out", folder / "mapping.yaml", "--try")
    assert done.exit_code == 0, done.output
    assert "all 400 rows of events.csv: 400 kept, 0 repeated, 0 quarantined (0.0%)" in done.output
    assert "is a draft" in done.output and "check  is_fraud" in done.output
    assert (folder / "mapping.html").stat().st_mode & 0o077 == 0
    path = folder / "mapping.yaml"
    path.write_text(path.read_text().replace("'%m/%d/%Y %I:%M:%S %p'", "'%d/%m/%Y'"))
    again = run("profile", "--config", bank, "--out", path, "--try")
    assert again.exit_code == TOO_MANY_QUARANTINED
    assert "`format` reads other times than these" in " ".join(again.output.replace("│", " ").split())


def test_profile_drafts_the_labels_too(bank: Path) -> None:
    folder = bank.parent
    exports.written(exports.spanish, folder / "events.csv")
    (folder / "cases.csv").write_text(
        "Transaction ID;Verdict;Closed At\n"
        + "".join(f"{row:08d}A;{'FRAUD' if row % 9 == 0 else 'GENUINE'};05.04.2024 10:00:00\n" for row in range(90))
    )
    bank.write_text(bank.read_text() + "labels: cases.csv\n")
    assert run("profile", "--config", bank, "--out", folder / "mapping.yaml").exit_code == 0
    labels = yaml.safe_load((folder / "mapping.yaml").read_text())["labels"]
    assert labels["csv"] == {"delimiter": ";"}
    assert labels["columns"] == {
        "payment_id": {"from": "Transaction ID"},
        "is_fraud": {"from": "Verdict", "codes": {"FRAUD": 1, "GENUINE": 0}},
        "label_time": {"from": "Closed At", "format": "%d.%m.%Y %H:%M:%S"},
    }
