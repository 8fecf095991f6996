"""Finished sums survive a node that ends at any moment, and files of steps that are over are used again."""

import resource
from pathlib import Path

import pytest

from aggregator.persistence.sum_files import FinishedSum, SumFiles
from protocol.messages import Statement, SumHead


def _finished(attempt: int = 0, chunks: int = 2, fill: bytes = b"x") -> FinishedSum:
    statements = tuple(Statement(bank=bank, state=bytes(32), signature=bytes(64)) for bank in ("a", "b"))
    head = SumHead(pending=False, attempt=attempt, statements=statements)
    return FinishedSum(head=head, chunks=tuple(fill * 50_000 for _ in range(chunks)), length=4094 * chunks)


def test_a_new_process_finds_what_was_saved(tmp_path: Path) -> None:
    files = SumFiles(tmp_path)
    saved = {f"train/0/{n}": _finished(chunks=n + 1, fill=bytes([65 + n])) for n in range(3)}
    for step, finished in saved.items():
        files.save("run-1", step, finished)
    again = SumFiles(tmp_path)
    assert again.steps("run-1") == sorted(saved)
    assert {step: again.load("run-1", step) for step in saved} == saved
    assert again.load("run-1", "train/0/9") is None
    assert again.load("run-2", "train/0/0") is None


def test_files_of_steps_that_are_over_are_used_again(tmp_path: Path) -> None:
    files = SumFiles(tmp_path)
    for tree in range(20):
        for step in range(3):
            # Shorter and longer ones, so that an earlier sum's end stays behind in a file.
            files.save("run-1", f"train/{tree}/{step}", _finished(chunks=1 + (tree + step) % 3))
        if tree:
            files.forget("run-1", [f"train/{tree - 1}/{step}" for step in range(3)])
    assert len(list((tmp_path / "run-1").iterdir())) == 6
    assert files.steps("run-1") == [f"train/19/{step}" for step in range(3)]
    assert files.load("run-1", "train/18/0") is None
    again = SumFiles(tmp_path)
    for step in range(3):
        assert again.load("run-1", f"train/19/{step}") == _finished(chunks=1 + (19 + step) % 3)
    again.save("run-1", "train/20/0", _finished())
    assert SumFiles(tmp_path).load("run-1", "train/20/0") == _finished()


@pytest.mark.parametrize("kept", [0, 10, 20, 40, 60, 1000, 60_000])
def test_a_file_that_a_crash_left_half_written_is_no_answer(tmp_path: Path, kept: int) -> None:
    files = SumFiles(tmp_path)
    files.save("run-1", "train/0/0", _finished(fill=b"y"))
    (path,) = (tmp_path / "run-1").iterdir()
    before = path.read_bytes()
    files.forget("run-1", ["train/0/0"])
    files.save("run-1", "train/1/0", _finished(fill=b"z"))
    # As if only the first bytes of the second had reached the disk.
    path.write_bytes(path.read_bytes()[:kept] + before[kept:])
    again = SumFiles(tmp_path)
    assert again.load("run-1", "train/1/0") is None
    again.save("run-1", "train/1/0", _finished(fill=b"z"))
    assert SumFiles(tmp_path).load("run-1", "train/1/0") == _finished(fill=b"z")


def test_erased_answers_are_off_the_disk_at_once(tmp_path: Path) -> None:
    files = SumFiles(tmp_path)
    files.save("run-1", "train/0/0", _finished())
    files.forget("run-1", ["train/0/0"], erase=True)
    assert not list((tmp_path / "run-1").iterdir())
    assert files.load("run-1", "train/0/0") is None
    files.save("run-1", "train/0/0", _finished(attempt=1))
    assert SumFiles(tmp_path).load("run-1", "train/0/0") == _finished(attempt=1)
    files.forget_run("run-1")
    assert not (tmp_path / "run-1").exists()


def test_of_a_step_that_was_repeated_the_newest_attempt_counts(tmp_path: Path) -> None:
    for attempt in (0, 1):
        SumFiles(tmp_path / str(attempt)).save("run-1", "train/0/0", _finished(attempt=attempt))
    old, new = ((tmp_path / str(attempt) / "run-1" / "0.sums").read_bytes() for attempt in (0, 1))
    for name, order in (("old_first", (old, new)), ("new_first", (new, old))):
        (tmp_path / name / "run-1").mkdir(parents=True)
        for place, body in enumerate(order):
            (tmp_path / name / "run-1" / f"{place}.sums").write_bytes(body)
        assert SumFiles(tmp_path / name).load("run-1", "train/0/0") == _finished(attempt=1)


def test_a_sum_that_the_disk_refuses_is_no_answer(tmp_path: Path) -> None:
    files = SumFiles(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        assert not files.writable()
        with pytest.raises(OSError, match="File too large"):
            files.save("run-1", "train/0/0", _finished())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert files.writable()
    assert files.load("run-1", "train/0/0") is None
    assert SumFiles(tmp_path).load("run-1", "train/0/0") is None
    files.save("run-1", "train/0/0", _finished())
    assert SumFiles(tmp_path).load("run-1", "train/0/0") == _finished()
    assert len(list((tmp_path / "run-1").iterdir())) == 1
