"""The configuration of row shards: complete, and never unencrypted to another machine."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from bank_node.boosting.row_files import RowFiles
from bank_node.config import BankConfig, ShardsConfig
from bank_node.dataset.shards import open_shards
from protocol.errors import ConfigError

TLS = {"ca": "ca.pem", "certificate": "bank.pem", "key": "bank.key"}


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({}, "either workers or scheduler"),
        ({"workers": 3, "scheduler": "tcp://127.0.0.1:8786"}, "either workers or scheduler"),
        ({"workers": 0}, "greater than or equal to 1"),
        ({"scheduler": "tcp://10.0.0.5:8786"}, "must be reached by tls"),
        ({"scheduler": "tcp://dask.bank.example:8786"}, "must be reached by tls"),
        ({"scheduler": "tcp://127.0.0.1.bank.example:8786"}, "must be reached by tls"),
        ({"scheduler": "tcp://0.0.0.0:8786"}, "must be reached by tls"),
        ({"scheduler": "tls://dask.bank.example:8786"}, "needs ca, certificate and key"),
        ({"scheduler": "tls://dask.bank.example:8786", "ca": "ca.pem"}, "go together"),
        ({"scheduler": "dask.bank.example:8786"}, "must be tls://host:port"),
        ({"scheduler": "inproc://x", **TLS}, "must be tls://host:port"),
        ({"workers": 2, **TLS}, "get theirs by themselves"),
        ({"workers": 2, "threads": 2}, "Extra inputs"),
    ],
)
def test_what_is_incomplete_or_unsafe_is_refused(given: dict[str, object], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        ShardsConfig.model_validate(given)


@pytest.mark.parametrize(
    "given",
    [
        {"workers": 3, "shards": 12},
        {"scheduler": "tls://dask.bank.example:8786", **TLS},
        {"scheduler": "tcp://127.0.0.1:8786"},
        {"scheduler": "tcp://[::1]:8786"},
    ],
)
def test_what_is_safe_is_taken(given: dict[str, object]) -> None:
    ShardsConfig.model_validate(given)


def test_certificates_that_are_not_there_and_an_open_key_are_named(tmp_path: Path) -> None:
    files = RowFiles(folder=tmp_path, n_rows=0, n_features=1)
    paths = {name: tmp_path / f"{name}.pem" for name in ("ca", "certificate", "key")}
    config = ShardsConfig(scheduler="tls://127.0.0.1:1", **paths)
    paths["certificate"].write_text("")
    with pytest.raises(ConfigError, match=r"ca\.pem is not there"), open_shards(config, files):
        pass
    paths["ca"].write_text("")
    paths["key"].write_text("")
    paths["key"].chmod(0o644)
    with pytest.raises(ConfigError, match=r"key\.pem"), open_shards(config, files):
        pass


def test_two_banks_may_share_a_folder(tmp_path: Path) -> None:
    one = BankConfig.model_construct(
        bank_id="alder", work_dir=tmp_path, shards=ShardsConfig(workers=1, folder=tmp_path)
    )
    assert one.rows_dir != one.model_copy(update={"bank_id": "birch"}).rows_dir


def test_a_scheduler_that_is_not_there_is_named(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bank_node.dataset.shards._CONNECT_SECONDS", 1)
    files = RowFiles(folder=tmp_path, n_rows=0, n_features=1)
    with (
        pytest.raises(ConfigError, match=r"tcp://127\.0\.0\.1:1 can.t be reached"),
        open_shards(ShardsConfig(scheduler="tcp://127.0.0.1:1"), files),
    ):
        pass
