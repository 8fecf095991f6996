"""A bank's configuration and command: unknown keys, open keys, unreachable node, bad payments: one clear line each."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from bank_node import pipeline
from bank_node.config import load_config
from bank_node.plan import RunPlan
from features.errors import DataError
from protocol.channel import read_secret_file
from protocol.errors import ConfigError, LocalError
from simulator.consortium import bank_files, make_certificates
from simulator.generator import GeneratorSettings, generate


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
    return path, pd.read_parquet(path)


def test_relative_paths_are_taken_from_the_file_s_folder(bank: Path) -> None:
    assert load_config(bank).work_dir == bank.parent / "work"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"bank": "x"}, "bank: Extra inputs are not permitted"),
        ({"bank_id": "a/b"}, "bank_id"),
        ({"aggregator": {}}, "aggregator.ca: Field required"),
    ],
)
def test_a_wrong_config_names_file_and_key(bank: Path, changes: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=r"alder\.yaml") as caught:
        load_config(_edit(bank, **changes))
    assert text in str(caught.value)


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


def test_an_unreachable_aggregator_is_named(bank: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bank_node.client._LONGEST_PAUSE", 0.1)
    client = pipeline._client(load_config(bank), patience_seconds=0.3)
    with pytest.raises(LocalError.__mro__[1], match=r"127\.0\.0\.1:1 does not answer"):
        client.runs()
    client.close()


@pytest.mark.parametrize(
    ("breaking", "text"),
    [
        (lambda t: t.drop(columns="amount"), "amount"),
        (lambda t: t.assign(amount="x"), "amount"),
        (lambda t: t.assign(category="spaceships"), "category"),
        (lambda t: t.iloc[:0], "has no row"),
        (lambda t: pd.concat([t, t.iloc[:3]]), "payment_id"),
        (lambda t: t.assign(is_fraud=t["is_fraud"].astype(float).where(t["direction"] == "in")), "is_fraud"),
        (lambda t: t.assign(amount=-t["amount"]), "amount"),
    ],
    ids=["missing column", "wrong type", "unknown code", "empty", "duplicated ids", "NaN label", "negative amount"],
)
def test_bad_payments_are_a_clear_error_and_the_last_good_table_stays(bank: Path, breaking, text: str) -> None:
    first = pipeline.extract(bank, log=lambda _: None)
    path, table = _events(bank)
    breaking(table).to_parquet(path, index=False)
    with pytest.raises(DataError, match=text) as caught:
        pipeline.extract(bank, log=lambda _: None)
    assert path.name in str(caught.value)
    assert len(pd.read_parquet(first["path"])) == first["rows"]


def test_scoring_without_a_model_says_what_to_do(bank: Path) -> None:
    pipeline.extract(bank, log=lambda _: None)
    with pytest.raises(LocalError, match="take part in a run first"):
        pipeline.score(bank)


@pytest.mark.parametrize("text", ['{"param": {}}', '{"params": {"etaa": 1}}', "[]", "{"])
def test_a_plan_we_do_not_understand_is_refused_before_joining(text: str) -> None:
    with pytest.raises(LocalError):
        RunPlan.from_json(text)
