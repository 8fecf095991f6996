"""A whole small bank on a disk that is full at one write after the other. Run by `disk.run_with_shim`; sends nothing.

Each step must end well or by `StorageFull`, and make the same bytes once there is room.
"""

import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import yaml

from bank_node import pipeline
from bank_node.config import load_config
from features import load_contract
from protocol.errors import StorageFull
from protocol.run_plan import RunPlan, TuningPlan
from simulator.generator import GeneratorSettings, generate
from tests.conftest import BANKS, Node, serving
from tests.full_disk.disk import Disk
from tests.integration.test_contracts import configure

T = TypeVar("T")
CONTRACT = load_contract()
SMALL = {"n_estimators": 3, "max_depth": 2, "max_bin": 16}
PLANS: dict[str, RunPlan] = {
    "plain": RunPlan(params=SMALL, train_until="2026-02-05T00:00:00"),
    "local": RunPlan(params=SMALL | {"structure": "local"}),
    "search": RunPlan(params=SMALL, tuning=TuningPlan(sets=({"max_depth": 1}, {"max_depth": 2}), rungs=(1, 2))),
}


def quiet(_: str) -> None:
    """No log."""


def digest_of(folder: Path) -> str:
    """Of all feature tables in it."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*.parquet")):
        if "features" in path.parts:
            found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()


def attempted(disk: Disk, step: Callable[[], Any]) -> tuple[bool, str]:
    """Whether it ended well on the disk as it is armed, and which write was refused; any other error goes up."""
    try:
        step()
    except StorageFull as error:
        _, refused = disk.make_room()
        assert refused, f"no write was refused, and yet: {error}"
        return False, refused
    _, refused = disk.make_room()
    return True, refused


def swept(disk: Disk, name: str, step: Callable[[], T], *, kinds_in: tuple[Path, ...] = (), most: int = 1 << 30) -> T:
    """Do a step over and over, each time with a disk that is full at a write at which it never was, until none is left.

    Args:
        disk: the bank's.
        name: the step's, for the output.
        step: makes what is returned.
        kinds_in: see `Disk.full_at_the_next_new_write`.
        most: how often the disk is full at most.
    """
    for _ in range(most):
        disk.full_at_the_next_new_write(*kinds_in)
        done: list[T] = []
        well, refused = attempted(disk, lambda found=done: found.append(step()))
        if refused:
            print(f"full: {name}: {refused}: {'went on' if well else 'StorageFull'}", flush=True)
        if well and not refused:
            return done[0]
    return step()


def lone_bank(folder: Path, *, kinds: bool) -> None:
    """Extract and purge with a disk that is full at each write, or at each kind of write."""
    made = generate(GeneratorSettings(banks=1, customers=20, merchants=50, days=40, seed=3), folder / "data")
    (whole,) = made.events.values()
    table = pd.read_parquet(whole)
    middle, end = (table["event_time"].min().normalize() + pd.Timedelta(days=days) for days in (1, 2))
    events, bank, path = folder / "events.parquet", folder / "bank", folder / "bank.yaml"
    table[table["event_time"] < end].to_parquet(events, index=False)
    document = {
        "bank_id": "a",
        "events": str(events),
        "work_dir": str(bank / "work"),
        "aggregator": {"ca": "ca.pem", "certificate": "a.pem", "key": "a.key"},
        "identifier_key": str(folder / "identifiers.key"),
        "purge_share": 1.0,
    }
    path.write_text(yaml.safe_dump(document))
    disk = Disk(bank)

    def extract() -> None:
        pipeline.extract(path, log=quiet)

    def purge() -> None:
        pipeline.purge(path, until=middle.date(), log=quiet)

    def store() -> str:
        return digest_of(bank / "work")

    extract()
    whole_store = store()
    purge()
    purged_store = store()
    assert purged_store != whole_store
    shutil.rmtree(bank)
    bank.mkdir()
    swept(disk, "extract", extract, kinds_in=(bank,) if kinds else ())
    assert store() == whole_store, "other features than with room"
    swept(disk, "purge", purge, kinds_in=(bank,) if kinds else ())
    assert store() == purged_store, "other features after the purge than with room"
    records = [json.loads(line) for line in (bank / "work" / "purges.jsonl").read_text().splitlines()]
    assert records[-1]["state"] == "done"


def in_run(node: Node, folder: Path, plan: RunPlan, most: int) -> None:
    """A run in which one bank's disk is full at each new write, then score and personalise; `most` bounds how often."""
    made = generate(GeneratorSettings(banks=3, customers=80, merchants=50, days=50, seed=5), folder / "data")
    configs = {b: configure(node, b, e, "data") for b, e in zip(BANKS, made.events.values(), strict=True)}
    for config in configs.values():
        pipeline.extract(config, log=quiet)
    run = node.open(
        contract_fingerprint=CONTRACT.fingerprint,
        parameters_json=plan.to_json(),
        step_seconds=3000,
        enrol_seconds=3000,
        minimum_roster=3,
    )
    first = configs[BANKS[0]]
    work = load_config(first).work_dir
    disk = Disk(work)

    def hit(name: str, step: Callable[[], T]) -> T:
        # Shared risk extracts anew, which the lone bank's sweep has, and writes a file for each bank and day.
        return swept(disk, name, step, kinds_in=(work / "store", work / "shared_risk"), most=most)

    def others(bank: str) -> str:
        pipeline.train(configs[bank], run, log=quiet)
        pipeline.evaluate(configs[bank], run, log=quiet)
        return str(pipeline.register(configs[bank], run, log=quiet)["model_sha256"])

    with ThreadPoolExecutor(3) as pool:
        futures: list[Future[str]] = []

        def waits(text: str) -> None:
            # The others come once the first bank has made all its writes before the key exchange.
            if not futures and "is in ENROLLING: waiting for" in text:
                futures.extend(pool.submit(others, bank) for bank in BANKS[1:])

        try:
            hit("train", lambda: pipeline.train(first, run, log=waits))
            hit("evaluate", lambda: pipeline.evaluate(first, run, log=quiet))
            ours = hit("register", lambda: pipeline.register(first, run, log=quiet))["model_sha256"]
        except BaseException:
            with node.operator() as operator:
                operator.abort_run(run, "the sweep failed")
            raise
        assert {future.result() for future in futures} == {ours}
    alerts = work / "alerts" / "alerts.csv"
    pipeline.score(first, log=quiet)
    expected = alerts.read_bytes()
    alerts.unlink()
    hit("score", lambda: pipeline.score(first, log=quiet))
    assert alerts.read_bytes() == expected
    hit("personalise", lambda: pipeline.personalise(first, trees=3, log=quiet))
    left = [str(path) for path in work.rglob(".*.????????") if path.is_file()]
    assert not left, f"parts of files were left: {left}"


def main(folder: Path, what: str, *arguments: str) -> None:
    """``lone each``, ``lone kinds``, or ``run PLAN [MOST]``: at most so many times in each step."""
    if what == "lone":
        lone_bank(folder, kinds=arguments[0] == "kinds")
        return
    with serving(folder) as node:
        in_run(node, folder, PLANS[arguments[0]], int(arguments[1]) if len(arguments) > 1 else 1 << 30)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
