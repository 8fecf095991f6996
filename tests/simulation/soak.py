"""A long run of a node: honest runs one after the other while a second certificate does what it likes. Not a test.

    python -m tests.simulation.soak --minutes 60 --runs 50 --out .bench/soak.json

The second certificate sends garbage, idles, floods and is revoked, then is issued again and begins anew. The node is a
process of its own, so are the banks of each run; the caller with the second certificate is another. The result holds,
for each honest run, how it ended and what the node held then; the exit code is 1 if a run was lost or memory grew.
"""

import argparse
import contextlib
import json
import random
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc

from aggregator.operator.client import OperatorClient
from aggregator.persistence.audit import AuditLog
from aggregator.persistence.store import Store
from aggregator.pki.ca import issued_certificates, make_key_and_request, revoke, sign_request
from aggregator.rpc.access import METHOD_ROLES
from protocol.channel import open_channel
from protocol.errors import AggregatorUnreachable
from protocol.messages import RunSettings
from protocol.run_plan import RunPlan
from protocol.run_state import TERMINAL
from simulator.harness import worker
from simulator.harness.measuring import provenance
from simulator.harness.processes import AggregatorProcess, bank_files, make_certificates, operator_files
from simulator.ports import free_port
from tests.simulation.chaos import _METHOD, PARAMS, _bank, undisturbed
from tests.simulation.tables import small_table

__all__ = ["main", "soak"]

ROGUE = "rogue_bank"
#: Seconds of each kind of misbehaviour, in turn; the last comes after the certificate is revoked.
KINDS = ("garbage", "idle", "flood", "revoked")
_KIND_SECONDS = 15.0
#: Memory may grow by so much from the first half of the runs to the last tenth; a short soak still warms up then.
GROWTH_BYTES = 48 << 20


class Rogue:
    """Misbehaves with the second certificate until it is told to stop; in a process of its own."""

    def __init__(self, address: str, certificates: Path, seed: int) -> None:
        self._address, self._certificates = address, certificates
        self._random = random.Random(seed)
        self.counts: Counter[str] = Counter()

    def go_on(self, over: Callable[[], bool]) -> None:
        """All kinds, round and round; what became of the calls is counted by kind and status."""
        while not over():
            self._certify()
            for kind in KINDS:
                if over():
                    return
                if kind == "revoked":
                    revoke(self._certificates, ROGUE, "soak")
                until = time.monotonic() + _KIND_SECONDS
                with open_channel(self._address, bank_files(self._certificates, ROGUE)) as channel:
                    while time.monotonic() < until and not over():
                        getattr(self, f"_{kind}")(channel, kind)

    def _certify(self) -> None:
        request = make_key_and_request(self._certificates / f"{ROGUE}.key", ROGUE, "bank")
        (self._certificates / f"{ROGUE}.pem").write_bytes(sign_request(self._certificates, request, ROGUE, "bank"))

    def _call(self, channel: grpc.Channel, kind: str, messages: Iterator[bytes]) -> None:
        method = self._random.choice(list(METHOD_ROLES))
        try:
            for _ in channel.stream_stream(method)(messages, timeout=5):
                pass
            self.counts[f"{kind}: OK"] += 1
        except grpc.RpcError as error:
            self.counts[f"{kind}: {error.code().name}"] += 1

    def _garbage(self, channel: grpc.Channel, kind: str) -> None:
        sizes = [self._random.choice([0, 1, 30, 1000, 200_000, 3_000_000]) for _ in range(self._random.randint(1, 3))]
        with contextlib.suppress(ValueError):
            self._call(channel, kind, iter([self._random.randbytes(size) for size in sizes]))
        time.sleep(0.02)

    def _idle(self, channel: grpc.Channel, kind: str) -> None:
        over = threading.Event()

        def nothing() -> Iterator[bytes]:
            over.wait()
            yield from ()

        calls = [
            channel.stream_stream(self._random.choice(list(METHOD_ROLES)))(nothing(), timeout=60) for _ in range(100)
        ]
        time.sleep(5)
        self.counts.update(f"{kind}: {call.code().name if call.done() else 'held'}" for call in calls)
        for call in calls:
            call.cancel()
        over.set()

    def _flood(self, channel: grpc.Channel, kind: str) -> None:
        futures = [channel.unary_unary("/crossbank.v1.Consortium/ListRuns").future(b"", timeout=5) for _ in range(50)]
        for future in futures:
            try:
                future.result()
                self.counts[f"{kind}: OK"] += 1
            except grpc.RpcError as error:
                self.counts[f"{kind}: {error.code().name}"] += 1
        time.sleep(0.05)

    def _revoked(self, channel: grpc.Channel, kind: str) -> None:
        self._idle(channel, kind) if self._random.random() < 0.2 else self._call(channel, kind, iter([b""]))
        time.sleep(0.02)


def _misbehave(address: str, certificates: str, over: Any, seed: int, out: str) -> None:
    rogue = Rogue(address, Path(certificates), seed)
    try:
        rogue.go_on(over.is_set)
    finally:
        Path(out).write_text(json.dumps(rogue.counts))


def _held(pid: int) -> dict[str, int]:
    """What a process holds: bytes of memory, threads, open files."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    return {
        "memory": int(fields["VmRSS"].split()[0]) << 10,
        "threads": int(fields["Threads"]),
        "files": len(list(Path(f"/proc/{pid}/fd").iterdir())),
    }


def _run(node: AggregatorProcess, certificates: Path, folder: Path, table: Any, patience: float) -> dict[str, Any]:
    """One honest run with banks in processes of their own."""
    started, banks = time.monotonic(), list(table.train)
    with OperatorClient(node.address, operator_files(certificates)) as operator:
        run_id = operator.open_run(
            RunSettings(
                title="soak",
                roster=tuple(banks),
                contract_fingerprint=table.fingerprint,
                parameters_json=RunPlan(params=PARAMS.to_mapping(), alert_budget=0.02).to_json(),
                rounds=PARAMS.n_estimators,
                enrol_seconds=600,
                step_seconds=600,
            )
        )
        processes = []
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
            arguments = (str(folder / bank), bank, node.address, str(certificates), run_id, table.fingerprint)
            processes.append(_METHOD.Process(target=_bank, args=arguments, daemon=True))
            processes[-1].start()
        view = operator.get_run(run_id)
        while view.phase not in TERMINAL and time.monotonic() < started + patience:
            time.sleep(0.2)
            with contextlib.suppress(AggregatorUnreachable):
                view = operator.get_run(run_id)
        for process in processes:
            process.join(30)
            if process.is_alive():
                process.kill()
    texts = {bank: (folder / bank / "error.txt") for bank in banks}
    return {
        "phase": view.phase,
        "reason": view.reason,
        "model": view.model_sha256,
        "seconds": round(time.monotonic() - started, 2),
        "errors": {bank: path.read_text() for bank, path in texts.items() if path.exists()},
    }


def soak(minutes: float, runs: int, folder: Path, *, seed: int = 7, patience: float = 600.0) -> dict[str, Any]:
    """Runs, evenly over the time; see the module's head.

    Returns:
        JSON: each run, what the node held after it, the second certificate's calls, the audit log's kinds.
    """
    table = small_table(banks=3, rows=900, features=4)
    expected = undisturbed(table, folder / "calm")
    certificates = folder / "certificates"
    make_certificates(certificates, [*table.train, ROGUE])
    node = AggregatorProcess(folder / "node", certificates, port=free_port())
    node.start()
    over = _METHOD.Event()
    out = folder / "rogue.json"
    rogue = _METHOD.Process(
        target=_misbehave, args=(node.address, str(certificates), over, seed, str(out)), daemon=True
    )
    rogue.start()
    begun, found = time.monotonic(), []
    try:
        for number in range(runs):
            time.sleep(max(0.0, begun + number * minutes * 60 / runs - time.monotonic()))
            home = folder / f"run-{number}"
            one = _run(node, certificates, home, table, patience)
            one |= {"at": round(time.monotonic() - begun), "held": _held(node.pid), "right": one["model"] == expected}
            found.append(one)
            print(json.dumps({"run": number} | one), flush=True)
            shutil.rmtree(home, ignore_errors=True)
        time.sleep(max(0.0, begun + minutes * 60 - time.monotonic()))
    finally:
        over.set()
        rogue.join(60)
        lasted = time.monotonic() - begun
        node.stop()
    log = AuditLog(Store(f"sqlite:///{folder / 'node' / 'aggregator.db'}").engine)
    serials = {c.serial for c in issued_certificates(certificates) if c.identity == ROGUE}
    records = log.records()
    return {
        "seconds": round(lasted, 1),
        "runs": found,
        "lost": sum(one["phase"] != "RELEASED" or not one["right"] or bool(one["errors"]) for one in found),
        "calls": json.loads(out.read_text()),
        "certificates": len(serials),
        "audit": Counter(
            f"{record.kind}{' of the second certificate' * (record.serial in serials)}" for record in records
        ),
        "audit_whole": log.verify()[1] == "",
        "tracebacks": node.log_path.read_text().count("Traceback"),
        "growth": growth(found),
    }


def growth(found: list[dict[str, Any]]) -> int:
    """Bytes by which the node's memory grew from the first half of the runs to the last tenth (one run at least)."""
    memory = [one["held"]["memory"] for one in found]
    return max(memory[-max(1, len(found) // 10) :]) - max(memory[: max(1, len(found) // 2)])


def main() -> None:
    """Parse, soak, write, judge."""
    parser = argparse.ArgumentParser(description="honest runs beside a certificate that misbehaves")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--out", type=Path, default=Path(".bench/soak.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="crossbank-soak-") as folder:
        result = soak(options.minutes, options.runs, Path(folder)) | {"run": provenance()}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1))
    bad = result["lost"] or result["tracebacks"] or result["growth"] > GROWTH_BYTES or not result["audit_whole"]
    print(f"{len(result['runs'])} runs, {result['lost']} lost, {result['growth'] / 1e6:.1f} MB grown: {options.out}")
    raise SystemExit(1 if bad else 0)


if __name__ == "__main__":
    main()
