"""The comparison with peers: its rows, its judging and its table. It installs and runs no peer."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks.peer_rows import settings, site_rows
from tests.benchmarks.peers import CANDIDATES, ENVIRONMENTS, HERE, Candidate, judge, markdown, run, write_rows


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_rows(tmp_path / "data", sites=3, rows=400, features=4, trees=2)
    return tmp_path / "data"


def _candidate(script: Path) -> Candidate:
    return Candidate(name="x", script=str(script), environment="here", encrypted="no", shares="nothing")


def _here(folder: Path) -> Path:
    (folder / "here" / "bin").mkdir(parents=True)
    (folder / "here" / "bin" / "python").symlink_to(sys.executable)
    return folder


def test_every_site_has_its_rows_and_the_held_out_ones_are_others(data: Path) -> None:
    assert settings(data)["sites"] == 3
    held_out, labels = site_rows(data, "held-out")
    assert held_out.shape == (300, 4) and 0 < labels.sum() < 300
    trained = {row.tobytes() for n in (1, 2, 3) for row in site_rows(data, f"site-{n}")[0]}
    assert len(trained) == 1200
    assert not trained & {row.tobytes() for row in held_out}


def test_scores_are_judged_on_the_held_out_rows(data: Path) -> None:
    _, labels = site_rows(data, "held-out")
    assert judge(data, labels.astype(float)) == 1.0
    constant = judge(data, np.zeros(len(labels)))
    assert constant == pytest.approx(labels.mean(), abs=1e-9)
    assert judge(data, np.stack([labels.astype(float), np.zeros(len(labels))])) == pytest.approx((1 + constant) / 2)
    with pytest.raises(ValueError, match="299 scores for 300"):
        judge(data, np.zeros(299))


def test_a_failure_and_a_timeout_are_rows_that_say_so(data: Path, tmp_path: Path) -> None:
    broken, slow = tmp_path / "broken.py", tmp_path / "slow.py"
    broken.write_text("raise SystemExit('no such library')")
    slow.write_text("import time; time.sleep(600)")
    environments = _here(tmp_path / "envs")
    failed = run(_candidate(broken), data, tmp_path / "out", environments, 60)
    assert failed == {"failed": "failed (1): no such library"}
    late = run(_candidate(slow), data, tmp_path / "out", environments, 0.2)
    assert late == {"failed": "not done after 0 s"}
    table = markdown({"fedtree": failed, "flower": late})
    assert "| FedTree 1.0.5, plain | failed (1): no such library |" in table
    assert "| Flower 1.42, bagging | not done after 0 s |" in table


def test_ratios_are_to_pooled_and_unknown_bytes_are_not_zero() -> None:
    pooled = {"training_seconds": 0.5, "job_seconds": 0.5, "auc_pr": 0.4, "bytes_per_site": 0}
    table = markdown({"pooled": pooled, "flare": pooled | {"training_seconds": 4.0, "bytes_per_site": None}})
    assert "| 4.00 | 8.0 | 0.5 | 0.4000 | not told | no |" in table


def test_every_candidate_has_its_script_and_every_version_is_pinned() -> None:
    for candidate in CANDIDATES.values():
        assert (HERE / candidate.script).is_file()
        assert candidate.environment is None or candidate.environment in ENVIRONMENTS
    assert all("==" in package for packages in ENVIRONMENTS.values() for package in packages)


def test_crossbank_runs_on_the_rows_and_its_scores_beat_chance(data: Path, tmp_path: Path) -> None:
    measured = run(CANDIDATES["plain"], data, tmp_path / "out", tmp_path, 200)
    assert measured["trees"] == 2 and measured["bytes_per_site"] == 0
    assert measured["auc_pr"] > 1.5 * site_rows(data, "held-out")[1].mean()


def test_help_teaches() -> None:
    command = [sys.executable, "-m", "tests.benchmarks.peers", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, cwd=HERE.parents[1], check=True).stdout
    assert "not into the project's environment" in shown and "fedtree-he" in shown
