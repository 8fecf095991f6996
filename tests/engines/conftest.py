"""A PostgreSQL server and a Spark session for the tests of this folder; each is real, local, and gone afterwards.

PostgreSQL refuses to run as root, so under root its programs run as the user `postgres`. Where the programs, the
packages or Java are missing the tests are skipped, with the reason; `.ci/run` sets CROSSBANK_ENGINES=1, and then they
fail instead.
"""

import glob
import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest

from features.sources.engines import BankTable

COLUMNS = {
    "payment_id": "text",
    "event_time": "timestamp",
    "account_id": "text",
    "counterparty_id": "text",
    "counterparty_bank": "text",
    "direction": "text",
    "channel": "text",
    "amount": "double precision",
    "category": "text",
    "is_fraud": "double precision",
    "label_time": "timestamp",
}

Put = Callable[[pd.DataFrame], BankTable]
"""Puts payments into an engine, under a new name."""


def missing(reason: str) -> None:
    """Skip, or fail where the engines were promised."""
    if os.environ.get("CROSSBANK_ENGINES") == "1":
        pytest.fail(reason)
    pytest.skip(f"{reason}; `make test-engines` says how to get it")


def programs() -> Path | None:
    """Where PostgreSQL's server programs are: beside `initdb` on PATH, or where Debian puts them."""
    found = shutil.which("initdb")
    places = [str(Path(found).resolve().parent)] if found else []
    places += sorted(glob.glob("/usr/lib/postgresql/*/bin"), reverse=True)
    return next((Path(place) for place in places if (Path(place) / "pg_ctl").exists()), None)


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """A server on a Unix socket in a folder of its own; its connection string."""
    if importlib.util.find_spec("psycopg") is None:
        missing("psycopg, crossbank's extra postgres, is not installed")
    place = programs()
    if place is None:
        missing("PostgreSQL's initdb and pg_ctl are not here")
    assert place is not None
    who = {"user": "postgres"} if os.geteuid() == 0 else {}
    folder = Path(tempfile.mkdtemp(prefix="crossbank-pg-"))
    if who:
        shutil.chown(folder, **who)

    def run(*command: str) -> None:
        done = subprocess.run(
            [str(place / command[0]), *command[1:]], cwd="/", capture_output=True, text=True, timeout=120, **who
        )
        assert done.returncode == 0, done.stderr

    try:
        run("initdb", "-D", f"{folder}/data", "-U", "bank", "-A", "trust", "-E", "UTF8", "--locale=C", "-N")
        options = f"-k {folder} -c listen_addresses='' -c fsync=off"
        run("pg_ctl", "-D", f"{folder}/data", "-l", f"{folder}/log", "-o", options, "-w", "start")
        try:
            yield f"host={folder} user=bank dbname=postgres"
        finally:
            run("pg_ctl", "-D", f"{folder}/data", "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgresql(postgresql_server: str) -> Iterator[Put]:
    """Puts payments into a new table of the server; tables are dropped in the end."""
    import psycopg

    made: list[str] = []

    def put(table: pd.DataFrame) -> BankTable:
        name = f"payments_{len(made)}"
        made.append(name)
        columns = [column for column in COLUMNS if column in table]
        with psycopg.connect(postgresql_server) as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE TABLE {name} ({', '.join(f'{each} {COLUMNS[each]}' for each in columns)})")
            with cursor.copy(f"COPY {name} FROM STDIN (FORMAT csv)") as copy:
                copy.write(table[columns].to_csv(index=False, header=False, date_format="%Y-%m-%d %H:%M:%S.%f"))
        return BankTable(engine="postgresql", table=name, connection=postgresql_server)

    yield put
    with psycopg.connect(postgresql_server) as connection:
        for name in made:
            connection.execute(f"DROP TABLE IF EXISTS {name}")


@pytest.fixture(scope="session")
def spark_session() -> Iterator[None]:
    """One local session for all tests: starting it takes seconds. `open_table` joins it."""
    if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
        missing("Java is not here")
    try:
        from pyspark.sql import SparkSession
    except ImportError:
        missing("pyspark is not installed")
    settings = {
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.memory": "3g",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": "8",
    }
    builder = SparkSession.builder.master("local[2]").appName("tests")
    for name, value in settings.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("OFF")
    yield
    session.stop()


@pytest.fixture
def spark(spark_session: None, tmp_path: Path) -> Put:
    """Writes payments as Parquet, which Spark reads as a table."""
    made: list[str] = []

    def put(table: pd.DataFrame) -> BankTable:
        name = f"payments_{len(made)}"
        made.append(name)
        folder = tmp_path / name
        folder.mkdir()
        # pandas writes a column of nothing but nulls without a type; Spark would take it for numbers.
        typed = table.astype({"counterparty_bank": "string"})
        typed.to_parquet(folder / "part.parquet", index=False)
        return BankTable(engine="spark", table=name, parquet=str(folder), master="local[2]")

    return put


@pytest.fixture(params=["postgresql", "spark"])
def put(request: pytest.FixtureRequest) -> Put:
    """Each engine in turn."""
    chosen: Put = request.getfixturevalue(request.param)
    return chosen
