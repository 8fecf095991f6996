"""One simulated bank: takes its shard through a run. In its own process it is ``python -m simulator bank-worker``."""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter, process_time, thread_time
from typing import Any

import numpy as np
import numpy.typing as npt

from bank_node.boosting import BoostingParameters
from bank_node.boosting.dask_rows import DaskShards
from bank_node.boosting.row_files import BankRows, write_rows
from bank_node.config import AggregatorAddress, ShardsConfig
from bank_node.consortium import Consortium
from bank_node.dataset.shards import open_shards
from bank_node.files import write_atomic
from bank_node.secure_aggregation.session import RunSession
from bank_node.secure_aggregation.sum_costs import SumCosts, Work
from bank_node.training.release import evaluate_model, vote
from bank_node.training.training_input import TrainingInput
from bank_node.training.tuning import OnScore, train_or_tune
from bank_node.transport.client import BankClient
from bank_node.transport.identity import Identity
from bank_node.warm_up import warm_up
from protocol.channel import TlsFiles
from protocol.errors import LocalError
from protocol.process import prepared_process
from protocol.run_plan import TuningPlan, announced_plan
from protocol.run_state import Phase
from simulator.harness.measuring import peak_bytes

__all__ = ["BankJob", "PlainConsortium", "PlainSums", "load_job", "main", "run_bank", "run_job", "save_job"]


_ARRAYS = ("columns", "labels", "weights", "keys")


_BUDGET = 0.005
"""A simulation's tables have no contract; its plans name a budget themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BankJob:
    """What one simulated bank needs.

    ``warm`` is the model that the run goes on from, if it does; with ``shards`` the bank spreads its training rows over
    so many Dask workers. ``tuning`` is for the settings of a run; a bank's process has it from these. With ``detailed``
    the bank tells what its processor time went into, which costs some of it.
    """

    bank: str
    folder: Path
    feature_names: tuple[str, ...]
    grids: tuple[npt.NDArray[np.float64], ...]
    train: BankRows
    test: BankRows
    validation: BankRows | None = None
    warm: bytes = b""
    shards: int = 0
    detailed: bool = False
    tuning: TuningPlan | None = None


def save_job(job: BankJob) -> None:
    """Write a bank's shard into its folder, for its process: a file an array, so that it can be mapped into memory."""
    folder = job.folder / "rows"
    folder.mkdir(parents=True, exist_ok=True)
    parts = {"train": job.train, "validation": job.validation, "test": None if job.test is job.train else job.test}
    for part, rows in parts.items():
        for name in _ARRAYS if rows is not None else ():
            if getattr(rows, name) is not None:
                np.save(folder / f"{part}_{name}.npy", getattr(rows, name))
    if job.warm:
        (folder / "warm.json").write_bytes(job.warm)
    np.save(folder / "names.npy", np.array(job.feature_names))
    for i, grid in enumerate(job.grids):
        np.save(folder / f"grid_{i}.npy", grid)


def load_job(folder: Path, bank: str) -> BankJob:
    """Read what `save_job` wrote; the columns stay on disk and are mapped, so they may be larger than memory."""
    rows = folder / "rows"

    def shard(part: str) -> BankRows | None:
        paths = {name: rows / f"{part}_{name}.npy" for name in _ARRAYS}
        if not paths["columns"].exists():
            return None
        columns = np.asarray(np.load(paths["columns"], mmap_mode="r"))
        others = {name: np.load(path) for name, path in paths.items() if name != "columns" and path.exists()}
        return BankRows(columns=columns, **others)

    names = tuple(str(name) for name in np.load(rows / "names.npy"))
    train = shard("train")
    if train is None:
        raise LocalError(f"bank {bank}: there are no rows in {rows}")
    warm = rows / "warm.json"
    return BankJob(
        bank=bank,
        folder=folder,
        feature_names=names,
        grids=tuple(np.load(rows / f"grid_{i}.npy") for i in range(len(names))),
        train=train,
        test=shard("test") or train,
        validation=shard("validation"),
        warm=warm.read_bytes() if warm.exists() else b"",
    )


def run_bank(
    job: BankJob,
    params: BoostingParameters,
    alert_budget: float,
    consortium: Consortium,
    log: Callable[[str], None],
    *,
    tuning: TuningPlan | None = None,
    on_score: OnScore = lambda number, rung, score: None,
) -> dict[str, Any]:
    """Train, or search among parameters, and evaluate over any consortium; the same code for every mode."""
    with _spread(job) as shards:
        given = TrainingInput(
            rows=job.train,
            feature_names=job.feature_names,
            grids=job.grids,
            params=params,
            validation=job.validation,
            warm=job.warm,
            shards=shards,
        )
        model, found = train_or_tune(given, tuning, consortium, job.folder, log, on_score=on_score)
    started = perf_counter()
    judged = evaluate_model(model, job.test, alert_budget, consortium, log)
    return {
        "model_sha256": model.sha256,
        "model_json": model.model_json.decode(),
        "trees": len(model.trees),
        "rows": len(job.train.labels),
        "frauds": int(job.train.labels.sum()),
        "consortium": judged.consortium.to_mapping(),
        "own": judged.own.to_mapping(),
        "calibration": judged.sidecar.decode(),
        "tuning": None if found is None else found.to_mapping(),
        "seconds": model.seconds | {"evaluation": perf_counter() - started},
    }


@contextmanager
def _spread(job: BankJob) -> Iterator[DaskShards | None]:
    """The training rows in shards, if that was asked for."""
    if not job.shards:
        yield None
        return
    files = write_rows(job.folder / "shards", [job.train], job.train.columns.shape[1])
    try:
        with open_shards(ShardsConfig(workers=job.shards), files) as shards:
            yield shards
    finally:
        files.remove()


def run_job(
    job: BankJob, address: str, files: TlsFiles, run_id: str, fingerprint: str, log: Callable[[str], None]
) -> dict[str, Any]:
    """Take one bank through a run at a real aggregator, over mutual TLS, encrypted."""
    node = AggregatorAddress(address=address, ca=files.ca, certificate=files.certificate, key=files.key)
    client = BankClient(node, job.bank)
    try:
        # A simulation's operator chooses the roster; its banks take what it says.
        # What processor time goes into is told by a clock that costs some of it.
        costs = SumCosts(thread_time) if job.detailed else SumCosts()
        session = RunSession(client, Identity(files, job.bank), run_id, job.folder, log, minimum_roster=1, costs=costs)
        plan = announced_plan(session.view.settings)
        evaluated = job.folder / "evaluated.json"
        if evaluated.exists():
            # Started again after the evaluation: the vote is all that can be missing.
            result = json.loads(evaluated.read_text())
        else:
            session.join(fingerprint)
            # The wait for slower starters is no part of the protocol's cost.
            session.wait_for(Phase.KEYING)
            started = perf_counter()
            session.exchange_keys()
            keying = perf_counter() - started
            if job.detailed:
                watched, started = _Watched(session), process_time()
                result = run_bank(job, plan.boosting, plan.budget(_BUDGET), watched, log, tuning=plan.tuning)
                result["work"] = _work(costs, watched, process_time() - started)
            else:
                result = run_bank(job, plan.boosting, plan.budget(_BUDGET), session, log, tuning=plan.tuning)
            result["bytes_sent"] = costs.bytes_sent
            result["checking_seconds"] = costs.seconds[Work.CHECKING]
            result["peak_bytes"] = peak_bytes()
            result["seconds"] = {"keys": keying} | result["seconds"]
            write_atomic(evaluated, json.dumps(result).encode())
        if not session.reported(Phase.VOTING):
            session.exchange_keys()
            vote(session, result["model_sha256"], log)
        session.end()
        return dict(result)
    finally:
        client.close()


class _Watched:
    """A session whose sums are timed."""

    def __init__(self, session: RunSession) -> None:
        self._session = session
        self.sums = 0
        self.wall_seconds = self.processor_seconds = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def secure_sum(
        self, step: str, vector: npt.NDArray[np.int64], *, bound: int | None = None
    ) -> npt.NDArray[np.int64]:
        """The session's, timed."""
        wall, processor = perf_counter(), process_time()
        try:
            return self._session.secure_sum(step, vector, bound=bound)
        finally:
            self.sums += 1
            self.wall_seconds += perf_counter() - wall
            self.processor_seconds += process_time() - processor


def _work(costs: SumCosts, watched: _Watched, processor: float) -> dict[str, float]:
    """Where a bank's processor time went, and how long it waited in sums."""
    encrypting, decrypting = costs.seconds[Work.ENCRYPTING], costs.seconds[Work.DECRYPTING]
    return {
        "kernels and the rest": processor - watched.processor_seconds,
        "mask and encrypt": encrypting,
        "decrypt": decrypting,
        "checks, gRPC and ledger": max(0.0, watched.processor_seconds - encrypting - decrypting),
        "waiting in sums": max(0.0, watched.wall_seconds - watched.processor_seconds),
        "sums": watched.sums,
    }


def main(spec_path: Path) -> None:
    """The process: reads its spec, runs, writes ``result.json`` next to it."""
    spec = json.loads(spec_path.read_text())
    warm_up()
    folder = spec_path.parent
    files = TlsFiles(ca=Path(spec["ca"]), certificate=Path(spec["certificate"]), key=Path(spec["key"]))
    job = replace(load_job(folder, spec["bank"]), shards=spec["shards"], detailed=spec["detailed"])
    with prepared_process():
        result = run_job(
            job,
            spec["address"],
            files,
            spec["run_id"],
            spec["fingerprint"],
            lambda text: print(f"{spec['bank']}: {text}", flush=True),
        )
    (folder / "result.json").write_text(json.dumps(result))


class PlainSums:
    """Sums in memory among threads of this process, unencrypted. Nothing of it can reach a network."""

    def __init__(self, banks: Sequence[str]) -> None:
        self.banks = tuple(sorted(banks))
        self._barrier = threading.Barrier(len(banks))
        self._lock = threading.Lock()
        self._totals: dict[str, npt.NDArray[np.int64]] = {}
        self._read: dict[str, int] = {}
        self._banks = len(banks)

    def seat(self, bank: str) -> "PlainConsortium":
        """One bank's view."""
        return PlainConsortium(self, bank)

    def add(self, step: str, vector: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The sum over all threads' vectors."""
        with self._lock:
            if step in self._totals:
                self._totals[step] += vector
            else:
                self._totals[step] = vector.astype(np.int64, copy=True)
                self._read[step] = 0
        self._barrier.wait()
        total = self._totals[step]
        with self._lock:
            self._read[step] += 1
            if self._read[step] == self._banks:
                del self._totals[step], self._read[step]
        return total

    def abort(self) -> None:
        """Release threads that wait for one that failed."""
        self._barrier.abort()


class PlainConsortium:
    """`PlainSums` as one bank sees them."""

    def __init__(self, sums: PlainSums, bank: str) -> None:
        self.bank = bank
        self.members = sums.banks
        self._sums = sums

    def secure_sum(
        self, step: str, vector: npt.NDArray[np.int64], *, bound: int | None = None
    ) -> npt.NDArray[np.int64]:
        """The sum over all banks' vectors."""
        return self._sums.add(step, vector)

    def commit(self, name: str, digest: str) -> None:
        """Nothing is resumed in memory."""

    def rewind(self, name: str) -> None:
        """Nothing is resumed in memory."""

    def adopt_roster(self) -> None:
        """Threads are not dropped."""

    def report(self, phase: Phase, digest: str, *, metrics_json: str = "", detail: str = "") -> None:
        """All threads' digests are compared by the caller at the end."""

    def reported(self, phase: Phase) -> bool:
        """Never: nothing is resumed in memory."""
        return False
