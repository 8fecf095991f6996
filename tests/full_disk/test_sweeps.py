"""A small bank on a disk that is full at its writes: StorageFull or done, never a traceback; then the same bytes."""

from pathlib import Path

import pytest

from tests.full_disk.disk import run_with_shim


def full(output: str, step: str) -> list[str]:
    """The writes that were refused in a step."""
    return [line for line in output.splitlines() if line.startswith(f"full: {step}: ")]


def test_every_kind_of_write_of_a_bank_s_own_steps(tmp_path: Path) -> None:
    output = run_with_shim(tmp_path, "lone", "kinds")
    assert len(full(output, "extract")) > 20 and len(full(output, "purge")) > 2


@pytest.mark.slow
def test_the_first_writes_of_each_step_of_a_run(tmp_path: Path) -> None:
    output = run_with_shim(tmp_path, "run", "plain", "4")
    for step in ("train", "evaluate", "register", "score", "personalise"):
        assert full(output, step), step


@pytest.mark.slow
@pytest.mark.sweep
def test_every_write_of_a_bank_s_own_steps(tmp_path: Path) -> None:
    output = run_with_shim(tmp_path, "lone", "each")
    assert len(full(output, "extract")) > 100 and len(full(output, "purge")) > 10


@pytest.mark.slow
@pytest.mark.sweep
@pytest.mark.parametrize("plan", ["plain", "local", "search"])
def test_every_write_of_a_run(tmp_path: Path, plan: str) -> None:
    output = run_with_shim(tmp_path, "run", plan)
    assert len(full(output, "train")) > 50
    assert full(output, "register") and full(output, "score")
