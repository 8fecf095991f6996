"""Points Airflow at a throw-away home before anything imports it, and makes bank configs. No assertions."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

_HOME = tempfile.mkdtemp(prefix="crossbank-airflow-")
for _name in [name for name in os.environ if name.startswith("AIRFLOW")]:
    del os.environ[_name]
os.environ["AIRFLOW_HOME"] = _HOME
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ["AIRFLOW__CORE__UNIT_TEST_MODE"] = "False"
os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = f"sqlite:///{_HOME}/airflow.db"
os.environ["AIRFLOW__USAGE_DATA_COLLECTION__ENABLED"] = "False"


@pytest.fixture(scope="session", autouse=True)
def _throw_away_home() -> Iterator[None]:
    yield
    shutil.rmtree(_HOME, ignore_errors=True)


@dataclass(kw_only=True)
class View:
    """A stand-in for `protocol.messages.RunView` with what the DAGs read."""

    run_id: str = "run-1"
    phase: str = "ENROLLING"
    roster: tuple[str, ...] = ("alpha", "beta")
    joined: tuple[str, ...] = ()
    round_done: int = 0
    rounds_total: int = 50
    reason: str = ""
    model_sha256: str = ""
    metrics_json: str = "{}"
    bytes_received: int = 0
    created_at: float = 100.0
    updated_at: float = 160.0
    events: tuple[object, ...] = field(default=())

    @property
    def warnings(self) -> tuple[str, ...]:
        """Nothing was odd."""
        return ()

    @property
    def members(self) -> tuple[str, ...]:
        """Nobody was dropped."""
        return self.joined


def _write_bank(folder: Path, bank_id: str, name: str | None = None) -> Path:
    """Writes a bank config that is complete enough for the DAGs and returns its path."""
    path = folder / f"{name or bank_id}.yaml"
    path.write_text(
        f"""bank_id: {bank_id}
events: {bank_id}.parquet
work_dir: {bank_id}
contract: null
aggregator: {{address: "127.0.0.1:9", ca: ca.pem, certificate: {bank_id}.pem, key: {bank_id}.key}}
""",
        encoding="utf-8",
    )
    return path


@pytest.fixture
def make_view() -> type[View]:
    """The stand-in for a run's view, to be called with what differs from a fresh run."""
    return View


@pytest.fixture
def write_bank() -> Callable[..., Path]:
    """Writes a bank's config into a folder: ``write_bank(folder, bank_id, file_stem)``."""
    return _write_bank


@pytest.fixture
def operator_config(tmp_path: Path) -> Path:
    """An operator's config."""
    path = tmp_path / "operator.yaml"
    path.write_text(
        f"""aggregator: {{address: "127.0.0.1:9", ca: ca.pem, certificate: operator.pem, key: operator.key}}
run:
  roster: [alpha, beta]
  minimum_roster: 2
  contract_fingerprint: {"a" * 64}
  train_until: 2026-03-01
  params: {{n_estimators: 7, max_depth: 3}}
""",
        encoding="utf-8",
    )
    return path


@pytest.fixture
def banks_dir(tmp_path: Path) -> Path:
    """A folder with the configs of the banks alpha and beta."""
    folder = tmp_path / "banks"
    folder.mkdir()
    for bank_id in ("alpha", "beta"):
        _write_bank(folder, bank_id)
    return folder
