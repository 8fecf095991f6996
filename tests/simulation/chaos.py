"""A consortium of real processes that tests may kill: banks, the aggregator, and a network between them. Not a test.

Banks are forked from a server process that has imported everything, so that starting one takes no seconds; they are
processes of their own all the same, and `kill -9` is what it says.
"""

import contextlib
import json
import multiprocessing
import random
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aggregator.operator.client import OperatorClient
from bank_node.boosting import BoostingParameters
from bank_node.boosting.row_files import BankRows
from bank_node.secure_aggregation.ledger import read_records
from protocol.errors import AggregatorUnreachable
from protocol.messages import RunSettings, RunView
from protocol.run_plan import RunPlan
from protocol.run_state import TERMINAL, Phase
from simulator.harness import worker
from simulator.harness.processes import (
    AggregatorProcess,
    bank_files,
    make_certificates,
    operator_files,
)
from simulator.harness.tables import SimulatedTable
from simulator.harness.training import federate
from simulator.ports import LOOPBACK, free_port

PARAMS = BoostingParameters.from_mapping({"n_estimators": 8, "max_depth": 3, "max_bin": 16, "eta": 0.3})
_METHOD = multiprocessing.get_context("forkserver")
_METHOD.set_forkserver_preload(["simulator.harness.worker", "tests.simulation.chaos"])


def _bank(folder: str, bank: str, address: str, certificates: str, run_id: str, fingerprint: str) -> None:
    """The bank's process: what `simulator bank-worker` does, with its result and any error in files."""
    home = Path(folder)
    try:
        job, files = worker.load_job(home, bank), bank_files(Path(certificates), bank)
        with (home / "log.txt").open("a") as log:
            result = worker.run_job(
                job, address, files, run_id, fingerprint, lambda text: print(text, file=log, flush=True)
            )
        (home / "result.json").write_text(json.dumps(result))
    except Exception as error:
        (home / "error.txt").write_text(f"{type(error).__name__}: {error}")
        raise SystemExit(1) from error


@dataclass
class Chaos:
    """One run under attack."""

    folder: Path
    table: SimulatedTable
    node: AggregatorProcess
    address: str
    run_id: str
    banks: dict[str, Any] = field(default_factory=dict)

    @property
    def certificates(self) -> Path:
        return self.folder / "certificates"

    def start(self, bank: str) -> None:
        """Start, or start again, a bank's process."""
        (self.folder / bank / "error.txt").unlink(missing_ok=True)
        arguments = (str(self.folder / bank), bank, self.address, str(self.certificates), self.run_id)
        self.banks[bank] = _METHOD.Process(target=_bank, args=(*arguments, self.table.fingerprint), daemon=True)
        self.banks[bank].start()

    def kill(self, bank: str) -> None:
        """kill -9, at once; what it hit is printed for whoever reads the test's output."""
        self.banks[bank].kill()
        print(f"killed {bank} at {self._where()}")
        self.banks[bank].join()

    def _where(self) -> str:
        with contextlib.suppress(AggregatorUnreachable):
            view = self.view()
            return f"{view.phase} {view.step} attempt {view.attempt}"
        return "a time when the aggregator was down"

    def kill_node(self) -> None:
        """kill -9 of the aggregator."""
        process = self.node._process
        assert process is not None
        print(f"killing the aggregator at {self._where()}")
        process.send_signal(signal.SIGKILL)
        process.wait()

    def view(self) -> RunView:
        """The run, as the aggregator tells it directly, whatever the network between it and the banks does."""
        with OperatorClient(self.node.address, operator_files(self.certificates)) as client:
            return client.get_run(self.run_id)

    def wait(self, until: Callable[[RunView], bool], patience: float = 120.0) -> RunView:
        """Wait until the run satisfies a condition; a hang is a failure with the run's history."""
        give_up = time.monotonic() + patience
        view = None
        while time.monotonic() < give_up:
            with contextlib.suppress(AggregatorUnreachable):
                view = self.view()
                if until(view):
                    return view
            time.sleep(0.02)
        raise AssertionError(f"the run hangs: {view and (view.phase, view.step, [e.text for e in view.events[-8:]])}")

    def some_moment(self, chance: random.Random) -> None:
        """Wait for a moment drawn from the whole run: a phase or a boosting round, and a little more."""
        order = [phase.value for phase in Phase]
        target = chance.choice(["KEYING", "BINNING", *range(PARAMS.n_estimators), "EVALUATING", "VOTING"])

        def come(view: RunView) -> bool:
            at = order.index(view.phase)
            if isinstance(target, int):
                return at > order.index("TRAINING") or (view.phase == "TRAINING" and view.rounds_done >= target)
            return at >= order.index(target)

        self.wait(come)
        time.sleep(chance.uniform(0, 0.15))

    def finish(self, banks: list[str] | None = None) -> dict[str, dict[str, Any]]:
        """Wait for the run's end and the given banks' results."""
        view = self.wait(lambda v: v.phase in TERMINAL)
        assert view.phase == "RELEASED", (view.reason, self.errors(), [e.text for e in view.events[-8:]])
        for bank in banks or list(self.banks):
            self.banks[bank].join(60)
            assert self.banks[bank].exitcode == 0, (bank, self.errors())
        return {
            bank: json.loads((self.folder / bank / "result.json").read_text()) for bank in banks or list(self.banks)
        }

    def errors(self) -> dict[str, str]:
        """What banks failed with."""
        found = {bank: self.folder / bank / "error.txt" for bank in self.banks}
        return {bank: path.read_text() for bank, path in found.items() if path.exists()}

    def rounds_before_drop(self, bank: str) -> int | None:
        """Boosting rounds that a surviving bank had committed when the roster shrank; None if bins were not agreed."""
        anchors: list[str] = []
        for record in read_records(self.folder / bank / "ledger.jsonl"):
            if record["kind"] == "anchor":
                anchors = [*([] if record["name"] == "keys" else anchors), record["name"]]
            elif record["kind"] == "rewind":
                anchors = anchors[: anchors.index(record["to"]) + 1]
            elif record["kind"] == "roster" and record["attempt"] > 0:
                break
        if "bins" not in anchors:
            return None
        return sum(name.startswith("train/") for name in anchors)


@contextlib.contextmanager
def chaos(folder: Path, table: SimulatedTable, *, proxy: "Proxy | None" = None, **settings: Any) -> Iterator[Chaos]:
    """Certificates, an aggregator's process, an open run, and each bank's shard on disk; banks are not started."""
    banks = list(table.train)
    make_certificates(folder / "certificates", banks)
    node = AggregatorProcess(folder / "node", folder / "certificates", port=free_port())
    node.start()
    if proxy is not None:
        proxy.serve(node.address)
    fields: dict[str, Any] = {"enrol_seconds": 60, "step_seconds": 60, "pause_seconds": 60, "minimum_roster": 3}
    with OperatorClient(node.address, operator_files(folder / "certificates")) as client:
        run_id = client.open_run(
            RunSettings(
                title="chaos",
                roster=tuple(banks),
                contract_fingerprint=table.fingerprint,
                parameters_json=RunPlan(params=PARAMS.to_mapping(), alert_budget=0.02).to_json(),
                rounds=PARAMS.n_estimators,
                **(fields | settings),
            )
        )
    for bank in banks:
        worker.save_job(
            worker.BankJob(
                bank=bank,
                folder=folder / bank,
                feature_names=table.feature_names,
                grids=table.grids,
                train=table.train[bank],
                test=table.test[bank],
            )
        )
    address = node.address if proxy is None else proxy.address
    made = Chaos(folder=folder, table=table, node=node, address=address, run_id=run_id)
    try:
        yield made
    finally:
        for process in made.banks.values():
            if process.is_alive():
                process.kill()
        if proxy is not None:
            proxy.stop()
        node.stop()


def undisturbed(table: SimulatedTable, folder: Path) -> str:
    """The model's digest of a run that nobody disturbs: plain sums, which the exactness tests show to be the same."""
    results, _ = federate(table, PARAMS, folder, mode="plain", alert_budget=0.02)
    return str(next(iter(results.values()))["model_sha256"])


def after_drop(table: SimulatedTable, folder: Path, lost: str, rounds: int | None) -> str:
    """The digest of a model whose first `rounds` trees come of all banks and the others of all but one."""
    from concurrent.futures import ThreadPoolExecutor

    from bank_node.training.federated import train_model
    from bank_node.training.training_input import TrainingInput

    left = {bank: rows for bank, rows in table.train.items() if bank != lost}
    homes = {bank: folder / bank for bank in table.train}

    def train(shards: dict[str, BankRows], params: BoostingParameters) -> str:
        sums = worker.PlainSums(list(shards))

        def one(bank: str) -> str:
            homes[bank].mkdir(parents=True, exist_ok=True)
            given = TrainingInput(
                rows=shards[bank], feature_names=table.feature_names, grids=table.grids, params=params
            )
            return train_model(given, sums.seat(bank), homes[bank], lambda _: None).sha256

        with ThreadPoolExecutor(len(shards)) as pool:
            return set(pool.map(one, shards)).pop()

    if rounds is None:
        return train(left, PARAMS)
    first = BoostingParameters.from_mapping(PARAMS.to_mapping() | {"n_estimators": max(rounds, 1)})
    train(table.train, first)
    if rounds == 0:
        for home in homes.values():
            for path in [*home.glob("trees*"), home / "model.json"]:
                path.unlink()
    return train(left, PARAMS)


class Proxy:
    """A TCP proxy that spoils what passes: it delays, drops, duplicates and reorders pieces, and cuts connections."""

    def __init__(self, seed: int, *, chance: float = 0.02) -> None:
        self._random = random.Random(seed)
        self._chance = chance
        self._listener = socket.create_server((LOOPBACK, 0))
        self.address = f"{LOOPBACK}:{self._listener.getsockname()[1]}"
        self.faults: dict[str, int] = dict.fromkeys(("delay", "drop", "duplicate", "reorder", "cut"), 0)
        self._target: tuple[str, int] = (LOOPBACK, 0)
        self._over = False

    def serve(self, target: str) -> None:
        """Forward to `target` from now on."""
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self) -> None:
        """Stop forwarding."""
        self._over = True
        self._listener.close()

    def _accept(self) -> None:
        while not self._over:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self._target, 2)
            except OSError:
                near.close()
                continue
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        held = b""
        try:
            while not self._over:
                piece = source.recv(65536)
                if not piece:
                    break
                fault = self._random.choice(list(self.faults)) if self._random.random() < self._chance else ""
                if fault:
                    self.faults[fault] += 1
                if fault == "cut":
                    break
                if fault == "delay":
                    time.sleep(self._random.uniform(0.05, 0.5))
                if fault == "drop":
                    continue
                if fault == "reorder" and not held:
                    held = piece
                    continue
                sink.sendall(piece * (2 if fault == "duplicate" else 1) + held)
                held = b""
        except OSError:
            pass
        finally:
            for end in (source, sink):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()
