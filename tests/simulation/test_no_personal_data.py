"""After a full demo, nothing that a bank keeps, sends or logs holds a customer's name, number or address.

The banks' source files hold them all, in the columns a core banking export has. Everything else the demo leaves on
disk is searched: stores, run folders, models, alerts, Airflow's database and logs, the aggregator's database and logs.
"""

import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet
import pytest

import simulator.datasets
from simulator.demo import run_demo
from tests.outside_data import SHARED, needs

CARDS = SHARED / "card_payments"
ROWS = 120_000


def patterns(customers: pd.DataFrame) -> list[str]:
    """What must not be found: each as it is, card and social security numbers also without their dashes."""
    wanted: set[str] = set()
    for row in customers.to_dict("records"):
        wanted |= {row["ssn"], row["ssn"].replace("-", ""), row["cc_num"], row["acct_num"], row["street"]}
        wanted |= {f"{row['first']} {row['last']}", f"{row['last']}, {row['first']}", f"{row['first']},{row['last']}"}
    return sorted(wanted)


def with_personal_columns(path: Path, customers: pd.DataFrame) -> None:
    """What a bank's own table has besides: whose account it is."""
    table = pd.read_parquet(path)
    personal = customers.assign(name=customers["first"] + " " + customers["last"])
    merged = table.merge(personal.drop(columns=["gender"]), left_on="account_id", right_on="acct_num", how="left")
    assert len(merged) == len(table) and merged["ssn"].notna().all()
    merged.to_parquet(path, index=False)


def decoded(folder: Path, out: Path) -> int:
    """The content of compressed files as text, so that a search sees it; how many there were."""
    count = 0
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".parquet" and path.is_file():
            target = out / f"{count}.csv"
            pyarrow.parquet.read_table(path).to_pandas().to_csv(target)
        elif path.is_file() and zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                archive.extractall(out / f"{count}.zip.d")
        else:
            continue
        count += 1
    return count


def found(words: Path, *folders: Path) -> list[str]:
    """Files in which one of the words stands, whole."""
    command = ["grep", "-rlawF", "-f", str(words), *map(str, folders)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"}
    )
    assert done.returncode in (0, 1), done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
@needs("card_payments")
def test_no_personal_datum_is_found_after_a_full_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    customers = pd.read_parquet(CARDS / "customers.parquet").astype({"acct_num": "str"})
    real = simulator.datasets.load_dataset

    def with_names(path: Path, out: Path, **options: Any) -> Any:
        made = real(path, out, limit=ROWS, **options)
        for events in made.events.values():
            with_personal_columns(events, customers)
        return made

    monkeypatch.setattr(simulator.datasets, "load_dataset", with_names)
    monkeypatch.setattr(simulator.datasets, "_pseudonym", lambda values: values.astype(str))
    out = tmp_path / "demo"
    run_demo(CARDS, out, keep=False, trees=3)

    (tmp_path / "words").write_text("\n".join(patterns(customers)) + "\n")
    (tmp_path / "text").mkdir()
    (tmp_path / "source").mkdir()
    assert decoded(out / "data", tmp_path / "source") == 5
    assert len(found(tmp_path / "words", tmp_path / "source")) == 5  # the search does find them where they are
    shutil.rmtree(out / "data")
    assert decoded(out, tmp_path / "text") > 100
    kept = {path.relative_to(out).parts[0] for path in out.rglob("*") if path.is_file()}
    assert {"work", "node", "airflow", "banks"} <= kept
    assert found(tmp_path / "words", out, tmp_path / "text") == []
