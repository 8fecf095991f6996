"""A bank whose disk is full: a named error and an exit code, never a traceback; with room again, the same bytes.

On a small file system of its own (tmpfs), so that every write that the bank makes is the kernel's to refuse.
"""

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from bank_node import pipeline
from bank_node.config import load_config
from bank_node.files import named_when_full, storage_full, write_atomic
from bank_node.secure_aggregation.leaving import SECRETS
from bank_node.transport.egress_log import Outbox, read_outbox
from features import load_contract
from features.errors import SourceError
from protocol import crossbank_pb2 as pb
from protocol.errors import StorageFull
from protocol.run_plan import RunPlan
from simulator.generator import GeneratorSettings, generate
from tests.conftest import BANKS, Node, in_parallel
from tests.integration.test_contracts import configure

CONTRACT = load_contract()
MIB = 1 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 48 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small disk can't be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(disk: Path, leave: int) -> Path:
    """A file that takes all but so many bytes."""
    ballast = disk / "ballast"
    ballast.unlink(missing_ok=True)
    left = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    # A bank that writes meanwhile takes its part.
    with ballast.open("wb", buffering=0) as stream, contextlib.suppress(OSError):
        for start in range(0, max(left - leave, 0), 4096):
            stream.write(bytes(min(4096, left - leave - start)))
    return ballast


def bank_node(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bank_node", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def told(done: subprocess.CompletedProcess[str]) -> bool:
    """Whether it ended as a full disk must: named, with its exit code, in one line."""
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == 3, (done.returncode, done.stderr)
    return done.stderr.splitlines()[-1].startswith("error: ") and "no room left on the disk" in done.stderr


@contextlib.contextmanager
def aborted_at_the_end(node: Node, run: str) -> Iterator[None]:
    """Whatever fails in the block, no bank waits for another afterwards."""
    try:
        yield
    finally:
        with node.operator() as operator:
            operator.abort_run(run, "the test is over")


def digest_of(store: Path) -> str:
    found = hashlib.sha256()
    for path in sorted(store.rglob("*.parquet")):
        if "features" in path.parts:
            found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()


@pytest.mark.slow
def test_extraction_goes_on_to_the_same_features_wherever_the_disk_was_full(disk: Path, tmp_path: Path) -> None:
    made = generate(GeneratorSettings(banks=1, customers=80, merchants=50, days=40, seed=3), tmp_path / "data")
    (events,) = made.events.values()

    def config(work: Path) -> Path:
        path = tmp_path / f"{work.parent.name}.yaml"
        node = {"ca": "ca.pem", "certificate": "a.pem", "key": "a.key"}
        key = tmp_path / "identifiers.key"
        document = {"bank_id": "a", "events": str(events), "work_dir": str(work), "aggregator": node}
        path.write_text(yaml.safe_dump(document | {"identifier_key": str(key)}))
        return path

    whole = config(tmp_path / "whole" / "work")
    pipeline.extract(whole, log=lambda _: None)
    expected, path = digest_of(load_config(whole).store_dir), config(disk / "work")
    size = sum(each.stat().st_size for each in load_config(whole).store_dir.rglob("*") if each.is_file())
    full = 0
    for leave in (0, 8192, size // 4, size // 2):
        ballast = fill(disk, leave)
        full += told(bank_node("extract", "--config", str(path)))
        ballast.unlink()
    assert full == 4
    done = bank_node("extract", "--config", str(path))
    assert done.returncode == 0, done.stderr
    assert digest_of(load_config(path).store_dir) == expected


@pytest.mark.slow
def test_training_goes_on_to_the_same_model_after_room_is_made(node: Node, disk: Path, tmp_path: Path) -> None:
    made = generate(GeneratorSettings(banks=3, customers=80, merchants=50, days=40, seed=5), tmp_path / "data")
    configs = {
        bank: configure(node, bank, events, "data", **({"work_dir": str(disk / "work")} if bank == BANKS[0] else {}))
        for bank, events in zip(BANKS, made.events.values(), strict=True)
    }
    for path in configs.values():
        pipeline.extract(path, log=lambda _: None)
    plan = RunPlan(params={"n_estimators": 60, "max_depth": 2, "max_bin": 16}).to_json()
    run = node.open(contract_fingerprint=CONTRACT.fingerprint, parameters_json=plan, rounds=60, step_seconds=3000)
    folder = load_config(configs[BANKS[0]]).run_dir(run)
    train = ("train", "--config", str(configs[BANKS[0]]), "--run", run, "--ignore-gate")
    with ThreadPoolExecutor(3) as pool, aborted_at_the_end(node, run):
        others = [pool.submit(pipeline.train, configs[bank], run, log=lambda _: None) for bank in BANKS[1:]]
        first = pool.submit(bank_node, *train)
        while not (folder / "trees.bin").exists() or (folder / "trees.bin").stat().st_size < 300:
            assert not first.done(), first.result().stderr
            time.sleep(0.01)
        ballast = fill(disk, 0)
        assert told(first.result(timeout=100)) and (folder / SECRETS).exists(), "its keys stay: it is to go on"
        assert told(bank_node(*train)), "and again while there is no room"
        ballast.unlink()
        again = bank_node(*train)
        assert again.returncode == 0 and "going on with" in again.stderr, again.stderr
        (sha,) = {other.result(timeout=100)["model_sha256"] for other in others}
    assert hashlib.sha256((folder / "model.json").read_bytes()).hexdigest() == sha


@pytest.mark.slow
def test_a_full_disk_before_the_run_begins_is_told_at_once_and_the_bank_may_come_back(
    node: Node, disk: Path, tmp_path: Path
) -> None:
    made = generate(GeneratorSettings(banks=3, customers=80, merchants=50, days=40, seed=5), tmp_path / "data")
    configs = {
        bank: configure(node, bank, events, "data", **({"work_dir": str(disk / "work")} if bank == BANKS[0] else {}))
        for bank, events in zip(BANKS, made.events.values(), strict=True)
    }
    for path in configs.values():
        pipeline.extract(path, log=lambda _: None)
    plan = RunPlan(params={"n_estimators": 2, "max_depth": 2, "max_bin": 16}).to_json()
    run = node.open(contract_fingerprint=CONTRACT.fingerprint, parameters_json=plan, enrol_seconds=3000)
    ballast = fill(disk, 48 * 1024)
    assert told(bank_node("train", "--config", str(configs[BANKS[0]]), "--run", run, "--ignore-gate"))
    with node.operator() as operator:
        view = operator.get_run(run)
    assert view.phase == "ENROLLING" and not view.joined
    assert [event.text for event in view.events if "disk is full" in event.text] == ["does not join: its disk is full"]
    assert not list(load_config(configs[BANKS[0]]).run_dir(run).glob(".room"))
    ballast.unlink()
    joined = threading.Event()

    def train(bank: str) -> str:
        # Once all others have joined without it, the run would end.
        assert bank == BANKS[0] or joined.wait(60)
        done = pipeline.train(configs[bank], run, log=lambda text: joined.set() if "joined" in text else None)
        return str(done["model_sha256"])

    with aborted_at_the_end(node, run):
        assert len(set(in_parallel(BANKS, train).values())) == 1


def test_a_full_disk_is_known_behind_whatever_wraps_it(tmp_path: Path) -> None:
    full = OSError(28, "No space left on device", "f")
    for wrapped in (SourceError("x"), RuntimeError("IO Error: No space left on device"), OSError(122, "quota")):
        wrapped.__cause__ = full if isinstance(wrapped, SourceError) else None
        assert storage_full(wrapped)
        with pytest.raises(StorageFull, match="no room left on the disk of"), named_when_full("x", tmp_path):
            raise wrapped
    assert not storage_full(OSError(13, "denied")) and not storage_full(None)
    with pytest.raises(ValueError, match="y"), named_when_full("x", tmp_path):
        raise ValueError("y")


def test_a_line_that_a_full_disk_tore_is_no_message_that_left(tmp_path: Path) -> None:
    path, outbox = tmp_path / "outbox.jsonl", Outbox("node")
    outbox.follow(path)
    outbox.record("/x/GetRun", pb.RunRef(run_id="r", bank="b"), b"1")
    outbox.close()
    with path.open("ab") as stream:
        stream.write(b'{"at": 1')
    outbox.follow(path)
    outbox.record("/x/GetRun", pb.RunRef(run_id="r", bank="b"), b"2")
    outbox.close()
    assert [entry.size for entry in read_outbox(path)] == [1, 1]


def test_a_whole_write_or_none(disk: Path) -> None:
    path = disk / "file"
    write_atomic(path, b"before")
    ballast = fill(disk, 4096)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, bytes(MIB))
    assert path.read_bytes() == b"before" and sorted(each.name for each in disk.iterdir()) == ["ballast", "file"]
    ballast.unlink()
