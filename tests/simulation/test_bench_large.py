"""The large benchmark, small: whole, from payments to a model, and resumed by phase."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from protocol.errors import ConfigError
from simulator.benchmarks.large import _phase, bench_large
from simulator.harness.measuring import available_bytes, peak_bytes, processor_seconds
from simulator.harness.worker import load_job

SMALL = {"banks": 3, "rows": 6_000, "features": 40, "trees": 2}


@pytest.mark.slow
def test_it_trains_on_generated_payments_and_tells_where_time_and_memory_went(tmp_path: Path) -> None:
    said: list[str] = []
    first = bench_large(tmp_path, **SMALL, say=said.append)
    assert 5_000 < first["rows"] < 7_000
    assert first["frauds"] > 0
    assert len(first["train"]["bank_seconds"]["mask and encrypt"]) == 3
    assert min(first["train"]["bank_seconds"]["mask and encrypt"]) > 0
    assert first["train"]["peak_bytes_of_the_node"] > 10_000_000
    assert json.loads((tmp_path / "large.json").read_text()) == first
    job = load_job(tmp_path / "banks" / "north_bank", "north_bank")
    assert job.train.columns.shape == (len(job.train.labels), 40)
    assert np.isfinite(job.train.columns[:, 0]).all()
    assert "training on" in said[-1]


def test_a_phase_is_run_once_in_a_process_of_its_own(tmp_path: Path) -> None:
    said: list[str] = []
    first = _phase(tmp_path / "done.json", said.append, "working", _work, 3)
    assert first["pid"] != os.getpid() and first["value"] == 3 and first["seconds"] > 0
    assert _phase(tmp_path / "done.json", said.append, "working", _work, 4) == first
    assert said[1:] == ["working: done before"]


def _work(value: int) -> dict[str, int]:
    return {"pid": os.getpid(), "value": value, "peak_bytes": peak_bytes()}


def test_a_folder_of_another_size_and_too_many_features_are_refused(tmp_path: Path) -> None:
    (tmp_path / "size.json").write_text(json.dumps({"banks": 4}))
    with pytest.raises(ConfigError, match="another size"):
        bench_large(tmp_path, **SMALL)
    with pytest.raises(ConfigError, match="50 features; the packaged contract has 49"):
        bench_large(tmp_path, **(SMALL | {"features": 50}))


def test_a_process_is_measured() -> None:
    held = np.ones(3_000_000)
    assert peak_bytes() > held.nbytes
    assert peak_bytes(os.getpid()) == peak_bytes()
    assert 0 < processor_seconds(os.getpid()) < 3600 * 24
    assert available_bytes() > 0
