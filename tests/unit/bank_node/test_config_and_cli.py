"""A bank's configuration and command: unknown keys, open keys, unreachable node, bad payments: one clear line each."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import pytest
import yaml

from bank_node import pipeline
from bank_node.config import load_config
from bank_node.dataset.feature_tables import feature_rows
from bank_node.pipeline.working import client_of
from features import load_contract
from features.errors import DataError
from features.identifiers import KINDS
from features.sources.engines import BankTable
from protocol.channel import read_secret_file
from protocol.errors import ConfigError, LocalError
from protocol.run_plan import RunPlan
from simulator.generator import GeneratorSettings, generate
from simulator.harness.processes import bank_files, make_certificates


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    """A bank's config whose aggregator is not there."""
    make_certificates(tmp_path / "c", ["alder_bank"])
    files = bank_files(tmp_path / "c", "alder_bank")
    made = generate(GeneratorSettings(banks=1, customers=80, merchants=60, days=45, seed=3), tmp_path / "data")
    document = {
        "bank_id": "alder_bank",
        "events": str(made.events["north_bank"]),
        "work_dir": "work",
        "aggregator": {
            "address": "127.0.0.1:1",
            "ca": str(files.ca),
            "certificate": str(files.certificate),
            "key": str(files.key),
        },
    }
    path = tmp_path / "alder.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def _edit(path: Path, **changes: object) -> Path:
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changes))
    return path


def _events(bank: Path) -> tuple[Path, pd.DataFrame]:
    path = load_config(bank).events
    assert isinstance(path, Path)
    return path, pd.read_parquet(path)


def test_relative_paths_are_taken_from_the_file_s_folder(bank: Path) -> None:
    assert load_config(bank).work_dir == bank.parent / "work"


def test_a_spark_table_s_folder_is_relative_too_and_an_address_is_not(bank: Path) -> None:
    def folder(written: str) -> str | None:
        events = load_config(_edit(bank, events={"engine": "spark", "table": "payments", "parquet": written})).events
        assert isinstance(events, BankTable)
        return events.parquet

    assert folder("payments") == str(bank.parent / "payments")
    assert folder("s3a://lake/payments") == "s3a://lake/payments"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"bank": "x"}, "bank: Extra inputs are not permitted"),
        ({"bank_id": "a/b"}, "bank_id"),
        ({"aggregator": {}}, "aggregator.ca: Field required"),
        ({"events": {"engine": "oracle", "table": "t"}}, "alder.yaml: events.engine: Input should be"),
        ({"events": {"engine": "postgresql", "table": "t"}}, "alder.yaml: events: Value error, PostgreSQL needs"),
        ({"events": {"engine": "spark", "table": "t; drop"}}, "alder.yaml: events.table: String should match"),
        ({"events": 7}, "alder.yaml: events: Input is not a valid path"),
    ],
)
def test_a_wrong_config_names_file_and_key(bank: Path, changes: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=r"alder\.yaml") as caught:
        load_config(_edit(bank, **changes))
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "meant"),
    [
        ({"retention_day": 40}, "retention_days"),
        ({"minimum_rooster": 4}, "minimum_roster"),
        ({"shards": {"workers": 1, "worker": 2}}, "workers"),
        ({"events": {"engine": "spark", "table": "t", "conection": "c"}}, "connection"),
    ],
)
def test_an_unknown_key_is_told_with_the_one_that_was_meant(bank: Path, changes: dict[str, object], meant: str) -> None:
    with pytest.raises(ConfigError, match=f"did you mean {meant}\\?"):
        load_config(_edit(bank, **changes))


def test_a_key_open_to_others_is_refused(bank: Path) -> None:
    key = load_config(bank).aggregator.key
    key.chmod(0o644)
    with pytest.raises(ConfigError, match="open to other users"):
        read_secret_file(key, "private key")


def test_the_command_prints_one_line_and_exits_2(bank: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bank_node", "extract", "--config", str(_edit(bank, typo=1))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and done.stderr.startswith("error: ") and "typo" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-50], lambda b: b"", lambda b: b"\x00" * 1000], ids=["cut", "empty", "zeros"]
)
def test_a_broken_feed_is_one_line_and_exit_code_2(bank: Path, damage) -> None:
    path = load_config(bank).events
    path.write_bytes(damage(path.read_bytes()))
    command = [sys.executable, "-m", "bank_node", "extract", "--config", str(bank)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: File ") and path.name in done.stderr


def test_an_unreachable_aggregator_is_named(bank: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bank_node.transport.client._LONGEST_PAUSE", 0.1)
    client = client_of(load_config(bank), patience_seconds=0.3)
    with pytest.raises(LocalError.__mro__[1], match=r"127\.0\.0\.1:1: nothing listens there"):
        client.runs()
    client.close()


@pytest.mark.parametrize(
    ("breaking", "text"),
    [
        (lambda t: t.drop(columns="amount"), "has no column amount"),
        (lambda t: t.assign(amount="x"), "column amount: text that is not a number"),
        (lambda t: t.assign(category="spaceships"), "column category: a code that the contract doesn't know"),
        (lambda t: t.iloc[:0], "has no row"),
        (lambda t: t.assign(amount=-t["amount"]), "column amount: a number that is not above 0"),
    ],
    ids=["missing column", "wrong type", "unknown code", "empty", "negative amount"],
)
def test_a_table_without_a_good_row_is_a_clear_error_and_the_last_features_stay(
    bank: Path, breaking, text: str
) -> None:
    first = pipeline.extract(bank, log=lambda _: None)
    path, table = _events(bank)
    breaking(table).to_parquet(path, index=False)
    with pytest.raises(DataError, match=text) as caught:
        pipeline.extract(bank, log=lambda _: None)
    assert path.name in str(caught.value)
    config = load_config(bank)
    assert len(feature_rows(config, load_contract(config.contract))) == first["rows"]


def test_bad_rows_among_good_ones_are_counted_and_set_aside(bank: Path) -> None:
    path, table = _events(bank)
    table.loc[[3, 5], "category"] = "spaceships"
    pd.concat([table, table.iloc[10:14]]).to_parquet(path, index=False)
    payments = pipeline.extract(bank, log=lambda _: None)["payments"]
    assert payments["quarantined"] == {"category: a code that the contract doesn't know": 2}
    assert (payments["read"], payments["repeated"]) == (len(table) + 4, 4)
    assert payments["kept"] == len(table) - 2


def test_a_second_extraction_reads_nothing_again(bank: Path) -> None:
    first = pipeline.extract(bank, log=lambda _: None)
    second = pipeline.extract(bank, log=lambda _: None)
    assert first["days"]["built"] > 40 and second["days"] == {"built": 0, "relabelled": 0}
    assert second["rows"] == first["rows"]


def test_the_key_of_identifiers_is_made_once_for_the_bank_alone(bank: Path) -> None:
    pipeline.extract(bank, log=lambda _: None)
    path = load_config(bank).identifier_key_path
    key = path.read_bytes()
    assert path.stat().st_mode & 0o077 == 0
    pipeline.extract(bank, log=lambda _: None)
    assert path.read_bytes() == key
    path.chmod(0o644)
    with pytest.raises(DataError, match="chmod 600"):
        pipeline.extract(bank, log=lambda _: None)


def test_scoring_without_a_model_says_what_to_do(bank: Path) -> None:
    pipeline.extract(bank, log=lambda _: None)
    with pytest.raises(LocalError, match="take part in a run first"):
        pipeline.score(bank)


@pytest.mark.parametrize("text", ['{"param": {}}', '{"params": {"etaa": 1}}', "[]", "{"])
def test_a_plan_we_do_not_understand_is_refused_before_joining(text: str) -> None:
    with pytest.raises(LocalError):
        RunPlan.from_json(text)


@pytest.mark.parametrize("command", ["bank_node", "features", "simulator"])
def test_every_command_tells_its_version(command: str) -> None:
    done = subprocess.run([sys.executable, "-m", command, "--version"], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and version("crossbank") in done.stdout, done.stderr


def test_the_help_of_hash_names_every_kind_of_identifier() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bank_node", "hash", "--help"], capture_output=True, text=True, check=False
    )
    assert all(kind in done.stdout for kind in KINDS)
